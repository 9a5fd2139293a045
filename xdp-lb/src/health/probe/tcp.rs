//! A TCP connection is accepted.

use tokio::net::TcpStream;

use super::{Stage, Target, socket};
use crate::health::Cause;

/// Connects to the target.
pub(super) async fn connect(target: &Target, stage: &Stage) -> Result<TcpStream, Cause> {
    stage.set("connecting");
    let connected = socket::connect_tcp(target).await;
    connected.map_err(|error| Cause::io("connect", &error))
}
