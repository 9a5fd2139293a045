//! Changes of interfaces: the addresses of virtual routers, and the devices that they may need.

use std::{io, net::IpAddr};

use netlink_packet_route::{
    address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo},
    link::MacVlanMode,
};
use rtnetlink::{AddressMessageBuilder, Handle, LinkMacVlan, LinkUnspec};

/// Changes interfaces. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Editor(Handle);

impl Editor {
    /// Opens a netlink socket, on a task that ends with what is returned.
    ///
    /// # Errors
    ///
    /// If none can be had.
    pub fn new() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Gives an interface an address, which is used at once and, with IPv6, is never chosen as a source.
    /// Nothing happens if it has it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, say because the interface is gone.
    pub async fn add_address(&self, ifindex: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut request = self.0.address().add(ifindex, address, prefix);
        if address.is_ipv6() {
            let mut lifetime = CacheInfo::default();
            (lifetime.ifa_preferred, lifetime.ifa_valid) = (0, u32::MAX);
            request.message_mut().attributes.extend([
                // Others may have it still: that is for VRRP to find out.
                AddressAttribute::Flags(AddressFlags::Nodad),
                AddressAttribute::CacheInfo(lifetime),
            ]);
        }
        allow(request.execute().await, libc::EEXIST)
    }

    /// Takes an address from an interface. Nothing happens if it does not have it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn remove_address(
        &self,
        ifindex: u32,
        address: IpAddr,
        prefix: u8,
    ) -> io::Result<()> {
        let message: AddressMessage = match address {
            IpAddr::V4(address) => AddressMessageBuilder::<std::net::Ipv4Addr>::new()
                .index(ifindex)
                .address(address, prefix)
                .build(),
            IpAddr::V6(address) => AddressMessageBuilder::<std::net::Ipv6Addr>::new()
                .index(ifindex)
                .address(address, prefix)
                .build(),
        };
        let removed = self.0.address().del(message).execute().await;
        allow(removed, libc::EADDRNOTAVAIL)
    }

    /// Makes a device with a MAC address of its own on top of an interface.
    ///
    /// It stays down until [`Editor::switch_on`].
    ///
    /// # Errors
    ///
    /// If the kernel refuses, say because it has no macvlan.
    pub async fn add_macvlan(&self, name: &str, parent: u32, mac: [u8; 6]) -> io::Result<()> {
        // What another host sends from this MAC address gets to the parent as well: the advertisements of a router
        // that has taken over come so. A private device would keep them to itself.
        let message = LinkMacVlan::new(name, parent, MacVlanMode::Vepa)
            .address(mac.to_vec())
            .build();
        allow(self.0.link().add(message).execute().await, libc::EEXIST)
    }

    /// Switches a device on.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn switch_on(&self, name: &str) -> io::Result<()> {
        let message = LinkUnspec::new_with_name(name).up().build();
        allow(self.0.link().set(message).execute().await, 0)
    }

    /// Removes a device.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn remove_link(&self, ifindex: u32) -> io::Result<()> {
        allow(self.0.link().del(ifindex).execute().await, libc::ENODEV)
    }
}

/// The kernel's answer, in which one error means that there is nothing to be done.
fn allow(done: Result<(), rtnetlink::Error>, fine: i32) -> io::Result<()> {
    match done {
        Ok(()) => Ok(()),
        Err(rtnetlink::Error::NetlinkError(message)) => {
            let error = message.to_io();
            if error.raw_os_error() == Some(fine) {
                Ok(())
            } else {
                Err(error)
            }
        }
        Err(error) => Err(io::Error::other(error)),
    }
}
