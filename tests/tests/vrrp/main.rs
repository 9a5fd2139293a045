//! VRRP: two directors, and who of them has the VIPs.

mod failover;
mod keepalived;
mod pair;
mod virtual_mac;
