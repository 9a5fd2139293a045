//! What a difference looks like to the one who has to find its cause.

use std::fmt::Write as _;

use etherparse::LaxPacketHeaders;

use crate::{packet::Frame, plane::Action, reference::Answer};

/// Says where action and bytes differ; None where they do not. What is random in what is expected
/// has been made that of the output.
pub(super) fn difference(
    frame: &Frame,
    (action, output): (Action, &Frame),
    expected: &Answer,
) -> Option<String> {
    if action == expected.action && output.bytes() == expected.output {
        return None;
    }
    let leaves = |action| matches!(action, Action::Tx | Action::Redirect);
    let mut text = String::new();
    if leaves(action) && !leaves(expected.action) {
        text += "the program SENDS OUT a packet that it must not send\n";
    }
    let _ = writeln!(
        text,
        "action {action:?}, expected {:?} ({}, {:?}, {:?})",
        expected.action,
        expected.verdict.name(),
        expected.forwarded,
        expected.events,
    );
    let _ = writeln!(text, "packet: {}", dump(frame.bytes(), 0));
    if output.bytes() != expected.output {
        let pairs = output.bytes().iter().zip(&expected.output);
        let first = pairs.take_while(|(a, b)| a == b).count();
        let _ = writeln!(
            text,
            "output, which differs from byte {first:#x} on: {}\nexpected: {}",
            dump(output.bytes(), first),
            dump(&expected.output, first),
        );
    }
    Some(text)
}

/// The beginning of a frame in hexadecimal, beyond the byte at `interesting`, and what it is.
pub(super) fn dump(bytes: &[u8], interesting: usize) -> String {
    const HEADERS: usize = 160;

    let shown = bytes.len().min(HEADERS.max(interesting + 32));
    let beginning = Frame::new(&bytes[..shown]);
    let more = bytes.len() - shown;
    format!("{beginning:?}, and {more} more\n{}", summary(bytes))
}

/// What a frame is, header by header, as far as it can be told.
fn summary(bytes: &[u8]) -> String {
    match LaxPacketHeaders::from_ethernet(bytes) {
        Ok(headers) => format!(
            "  {:?}\n  {:?}\n  {:?}\n  {:?}",
            headers.link, headers.link_exts, headers.net, headers.transport
        ),
        Err(error) => format!("  not a frame: {error}"),
    }
}
