//! Health checks by UDP, DNS, ping and command: each asks a server that does right, and many that do not.

mod command;
mod dns;
mod icmp;
mod udp;
