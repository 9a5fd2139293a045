//! VRRP: two directors, and who of them has the VIPs.

mod keepalived;
mod pair;
