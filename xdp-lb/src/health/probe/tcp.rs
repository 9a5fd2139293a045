//! A TCP connection is accepted.

use tokio::net::TcpStream;

use super::{
    Stage, Target,
    socket::{self, Exchange},
};
use crate::health::Cause;

/// Connects to the target, and no more.
pub(super) async fn ask(target: &Target, stage: &Stage) -> Result<(), Cause> {
    connect_for(Exchange::Nothing, target, stage)
        .await
        .map(drop)
}

/// Connects to the target, for requests and answers.
pub(super) async fn connect(target: &Target, stage: &Stage) -> Result<TcpStream, Cause> {
    connect_for(Exchange::Data, target, stage).await
}

async fn connect_for(
    exchange: Exchange,
    target: &Target,
    stage: &Stage,
) -> Result<TcpStream, Cause> {
    stage.set("connecting");
    let connected = socket::connect_tcp(target, exchange).await;
    connected.map_err(|error| Cause::io("connect", &error))
}
