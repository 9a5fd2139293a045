//! VRRP: two directors, and who of them has the VIPs.

mod decoded;
mod dying;
mod failover;
mod hostile;
mod keepalived;
mod pair;
mod priority;
mod virtual_mac;
