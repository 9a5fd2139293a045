use super::*;
use crate::netlink::LinkMap;
use std::path::PathBuf;
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    pub interface: String,
    pub vrid: u8,
    pub is_ipv6: bool,
    pub addresses: Vec<VirtualAddress>,
    pub virtual_mac: bool,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    AsFound,
    Held,
    Released,
}
pub struct Held {
    pub is_held: bool,
    pub error: Option<String>,
}
pub struct Ownership;
impl Ownership {
    pub fn start(_record: PathBuf, _links: watch::Receiver<LinkMap>) -> io::Result<Self> {
        Ok(Self)
    }
    pub fn set(&self, _id: usize, _holding: Holding, _wanted: Wanted) {}
    pub fn forget(&self, _id: usize) {}
    pub fn all_known(&self) {}
    pub fn announce(&self, _id: usize) {}
    pub fn held(&self) -> BTreeMap<(usize, VirtualAddress), Held> {
        BTreeMap::new()
    }
    pub async fn flush(&self) {}
    pub async fn finish(self) {}
}
