//! Probes that go over TCP, on servers that do as they should and on such as do not.

mod grpc;
mod http;
mod tcp;
mod tls;
mod ways;
