//! An HTTP or HTTPS request is answered as expected.

use std::{fmt::Write as _, io::ErrorKind, net::IpAddr};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Stage, Target, socket, tcp, tls};
use crate::{
    config::{HealthCheck, Http, Pattern},
    health::{Cause, Kind},
};

/// Bytes of a head (status and headers) that are read at most.
const HEAD: usize = 16 * 1024;

/// Bytes of a body that are looked at.
const BODY: usize = 64 * 1024;

/// Bytes of a request at most, however large packets may be: servers take heads of 8 KiB.
const REQUEST: usize = 7 * 1024;

const AGENT: &str = concat!("xdp-lb/", env!("CARGO_PKG_VERSION"), " (health check)");

/// What requests are filled up with.
const PADDING: &str = "x-padding";

/// Asks by HTTP.
pub(super) async fn ask(
    check: &HealthCheck,
    http: &Http,
    target: &Target,
    stage: &Stage,
) -> Result<(), Cause> {
    let full_size = socket::segment(target).filter(|_| check.full_size);
    let request = request(http, target, full_size.map(usize::from))?;
    let stream = tcp::connect(target, stage).await?;
    match &http.tls {
        None => exchange(stream, request, http, stage).await,
        Some(settings) => {
            let host = http.host.as_deref();
            let stream =
                tls::handshake(stream, settings, host, &[b"http/1.1"], target, stage).await?;
            exchange(stream, request, http, stage).await
        }
    }
}

/// The request, filled up to `size` bytes.
fn request(
    http: &Http,
    target: &Target,
    size: Option<usize>,
) -> Result<Request<Empty<Bytes>>, Cause> {
    let host = match &http.host {
        Some(host) => host.clone(),
        None => authority(target, if http.tls.is_some() { 443 } else { 80 }),
    };
    let mut request = Request::builder()
        .method(http.method.as_str())
        .uri(&http.path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, AGENT)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|error| Cause::new(Kind::Local, format!("http: {error}")))?;
    if let Some(size) = size {
        let missing = size
            .min(REQUEST)
            .saturating_sub(length(&request) + PADDING.len() + 4);
        if missing > 0
            && let Ok(padding) = "X".repeat(missing).parse()
        {
            request.headers_mut().insert(PADDING, padding);
        }
    }
    Ok(request)
}

/// The address that is asked, as the header `Host` has it.
fn authority(target: &Target, default_port: u16) -> String {
    let mut authority = match target.asked() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    };
    let port = target.address.port();
    if port != default_port {
        let _ = write!(authority, ":{port}");
    }
    authority
}

/// Bytes of the request on the wire.
fn length(request: &Request<Empty<Bytes>>) -> usize {
    // "GET / HTTP/1.1", and a line end; each header with ": " and a line end; an empty line.
    let line = request.method().as_str().len()
        + request
            .uri()
            .path_and_query()
            .map_or(1, |path| path.as_str().len())
        + 12;
    let headers = request.headers().iter();
    let headers: usize = headers
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    line + headers + 2
}

/// Sends the request, and looks at the answer.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    request: Request<Empty<Bytes>>,
    http: &Http,
    stage: &Stage,
) -> Result<(), Cause> {
    stage.set("sending the request");
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| cause(&error))?;
    // What it has to say, it says to the sender.
    let driven = async {
        let _ = connection.await;
        std::future::pending().await
    };
    let answered = async {
        stage.set("waiting for the answer");
        let response = sender.send_request(request).await;
        let response = response.map_err(|error| cause(&error))?;
        let status = response.status().as_u16();
        if !http.status.contains(status) {
            return Err(Cause::new(Kind::Answer, format!("status {status}")));
        }
        match &http.body {
            Some(pattern) => {
                stage.set("reading the body");
                search(response.into_body(), pattern).await
            }
            None => Ok(()),
        }
    };
    tokio::select! {
        result = answered => result,
        result = driven => result,
    }
}

/// Looks for the pattern in the beginning of a body.
async fn search(mut body: Incoming, pattern: &Pattern) -> Result<(), Cause> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| cause(&error))?;
        if let Some(data) = frame.data_ref() {
            let room = BODY - read.len();
            read.extend_from_slice(&data[..data.len().min(room)]);
            if read.len() == BODY {
                break;
            }
        }
    }
    if pattern.is_in(&read) {
        return Ok(());
    }
    let text = format!("body: the pattern is not in its {} bytes", read.len());
    Err(Cause::new(
        Kind::Answer,
        if read.len() == BODY {
            "body: the pattern is not in its first 64 KiB".into()
        } else {
            text
        },
    ))
}

/// Says in a few words what went wrong.
fn cause(error: &hyper::Error) -> Cause {
    if error.is_parse_too_large() {
        return Cause::new(
            Kind::Answer,
            "http: a head of more than 16 KiB, or of more than 100 lines",
        );
    }
    if error.is_parse() {
        return Cause::new(Kind::Answer, "http: the answer is not HTTP");
    }
    let closed = Cause::new(Kind::Reset, "http: closed before the answer was whole");
    if error.is_incomplete_message() {
        return closed;
    }
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return match io.kind() {
                ErrorKind::UnexpectedEof => closed,
                // Chunks that are none.
                ErrorKind::InvalidData | ErrorKind::InvalidInput => {
                    Cause::new(Kind::Answer, "http: the body is not HTTP")
                }
                _ => Cause::io("http", io),
            };
        }
        source = inner.source();
    }
    if error.is_canceled() || error.is_closed() {
        return Cause::new(Kind::Reset, "http: closed before the request was sent");
    }
    Cause::new(Kind::Answer, format!("http: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Statuses;

    fn http(path: &str, host: Option<&str>) -> Http {
        Http {
            method: "GET".into(),
            path: path.into(),
            host: host.map(Into::into),
            status: Statuses::default(),
            body: None,
            tls: None,
        }
    }

    fn target(address: &str, vip: Option<&str>) -> Target {
        Target {
            address: address.parse().unwrap(),
            vip: vip.map(|vip| vip.parse().unwrap()),
            mark: None,
            source: None,
            mtu: None,
        }
    }

    #[test]
    fn the_host_is_the_address_that_is_asked() {
        for (address, vip, host) in [
            ("10.0.0.11:80", None, "10.0.0.11"),
            ("10.0.0.11:80", Some("192.0.2.10"), "192.0.2.10"),
            ("10.0.0.11:8080", None, "10.0.0.11:8080"),
            ("[2001:db8::1]:80", None, "[2001:db8::1]"),
            ("[2001:db8::1]:81", Some("2001:db8::2"), "[2001:db8::2]:81"),
        ] {
            let request = request(&http("/", None), &target(address, vip), None).unwrap();
            assert_eq!(request.headers()[header::HOST], host);
        }
        let request = request(
            &http("/", Some("a.b")),
            &target("10.0.0.1:8080", None),
            None,
        );
        assert_eq!(request.unwrap().headers()[header::HOST], "a.b");
    }

    #[test]
    fn a_request_is_filled_up() {
        for path in ["/", "/a/long/path?with=query"] {
            let length = |size| {
                length(&request(&http(path, None), &target("10.0.0.1:80", None), size).unwrap())
            };
            assert_eq!(length(Some(1460)), 1460);
            assert_eq!(length(Some(8960)), REQUEST);
            assert_eq!(length(Some(10)), length(None), "it is longer already");
        }
    }
}
