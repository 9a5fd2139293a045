//! What may happen to a frame on the wire, or in bad company.

use crate::random::Random;

/// The shortest frame that the kernel runs the program on.
const SHORTEST: usize = 14;
/// The longest one, on every kernel: a page without what the kernel keeps in it.
pub(super) const LONGEST: usize = 3300;

/// Changes the frame in one to three ways; `other` is one to take pieces from.
pub(super) fn mutate(random: &mut Random, frame: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..=random.below(3) {
        once(random, frame, other);
        fit(random, frame);
    }
}

/// Makes the frame one that the kernel takes.
pub(super) fn fit(random: &mut Random, frame: &mut Vec<u8>) {
    frame.truncate(LONGEST);
    if frame.len() < SHORTEST {
        frame.extend(random.bytes(SHORTEST));
    }
}

fn once(random: &mut Random, frame: &mut Vec<u8>, other: &[u8]) {
    let at = position(random, frame);
    match random.below(10) {
        0 => frame[at] ^= 1 << random.below(8),
        1 => frame[at] = random.byte(),
        2 => frame[at] = random.one_of(&[0, 1, 0x7f, 0x80, 0xff]),
        3 => {
            let with = position(random, frame);
            frame.swap(at, with);
        }
        4 => {
            // A number in two bytes, as lengths are, becomes a bit more or less.
            let at = at.min(frame.len() - 2);
            let number = u16::from_be_bytes([frame[at], frame[at + 1]]);
            let by = u16::try_from(random.below(17)).expect("a small number");
            let edited = number.wrapping_add(by).wrapping_sub(8);
            frame[at..at + 2].copy_from_slice(&edited.to_be_bytes());
        }
        5 => frame.truncate(at),
        6 => {
            let padding = random.below(100);
            frame.extend(random.bytes(padding));
        }
        7 => {
            let end = frame.len().min(at + random.one_of(&[4, 8, 20, 40]));
            let again = frame[at..end].to_vec();
            frame.splice(at..at, again);
        }
        8 => {
            let end = frame.len().min(at + random.one_of(&[1, 4, 8, 20, 40]));
            frame.drain(at..end);
        }
        _ => {
            let at = at.min(other.len());
            frame.truncate(at);
            frame.extend(&other[at..]);
        }
    }
}

/// Most often one within the headers.
fn position(random: &mut Random, frame: &[u8]) -> usize {
    let within = random.one_of(&[40, 80, 160, frame.len()]);
    random.below(within.min(frame.len()))
}
