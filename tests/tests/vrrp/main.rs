//! Two directors: who of them has the VIPs (VRRP), and that they agree on the backends.

mod agreement;
mod booted;
mod decoded;
mod dying;
mod failover;
mod flooding;
mod hostile;
mod keepalived;
mod pair;
mod priority;
mod virtual_mac;
