//! What must hold of any service in the lab: HTTP and DNS through its VIP, over either family.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use xtask::lab::Lab;

/// Requests for each VIP; with fewer, a backend might be left out by chance.
pub const REQUESTS: usize = 60;
/// Questions to each VIP.
pub const QUESTIONS: usize = 32;

/// The client's own address, of the family of `vip`, which backends must see.
fn client(lab: &Lab, vip: IpAddr) -> IpAddr {
    let client = lab.host("client");
    match vip {
        IpAddr::V4(_) => client.v4().into(),
        IpAddr::V6(_) => client.v6().into(),
    }
}

/// Every request is answered, by every backend, and they see the client's own address.
pub fn http_is_balanced(lab: &Lab, vip: IpAddr) -> Result<()> {
    let seen = format!("client={}\n", client(lab, vip));
    let mut shares = BTreeMap::new();
    for response in lab.client().get_many((vip, 80).into(), "/", REQUESTS, 8) {
        let response = response.with_context(|| format!("HTTP from {vip}"))?;
        ensure!(
            response.status == 200 && response.body.ends_with(&seen),
            "{vip} answered {response:?}"
        );
        *shares.entry(response.backend).or_insert(0) += 1;
    }
    ensure!(shares.len() == lab.backends().count(), "{vip}: {shares:?}");
    Ok(())
}

/// Every question is answered, by every backend.
pub fn dns_is_balanced(lab: &Lab, vip: IpAddr) -> Result<()> {
    let mut shares = BTreeMap::new();
    for backend in lab.client().ask_dns(vip, QUESTIONS)? {
        *shares.entry(backend).or_insert(0) += 1;
    }
    ensure!(shares.len() == lab.backends().count(), "{vip}: {shares:?}");
    Ok(())
}
