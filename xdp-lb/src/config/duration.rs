//! Durations as the operator writes them: a whole number and a unit, `100ms`, `2s`, `15m`, `1h`.

use std::time::Duration;

use serde::Serializer;

/// Units with their length in milliseconds, longest first.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// The duration that `text` spells; `None` if it spells none, or one of more than 2^64 - 1 ms.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit)?;
    Some(Duration::from_millis(number.checked_mul(*millis)?))
}

/// The duration that `text` spells, if it lies within bounds. `what` is what it is: "an idle timeout".
pub(super) fn within(
    text: &str,
    what: impl std::fmt::Display,
    (least, most): (Duration, Duration),
) -> Result<Duration, String> {
    let duration = parse(text).ok_or_else(|| {
        format!("`{text}` is not a duration; write a number and a unit: 500ms, 30s, 15m, 1h")
    })?;
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    let (least, most) = (format(least), format(most));
    Err(format!(
        "{text} is out of range; {what} is from {least} to {most}"
    ))
}

/// The shortest way to write `duration`, to the millisecond.
#[must_use]
pub fn format(duration: Duration) -> String {
    let millis = duration.as_millis();
    let exact = |(_, length): &&(&str, u64)| millis.is_multiple_of(u128::from(*length));
    match UNITS.iter().find(exact) {
        Some((name, length)) if millis > 0 => format!("{}{name}", millis / u128::from(*length)),
        _ => "0s".to_owned(),
    }
}

/// Serializes a duration as it is written in the configuration.
pub(super) fn serialize<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        for (text, millis) in [
            ("100ms", 100),
            ("2s", 2000),
            ("15m", 900_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("18446744073709551615ms", u64::MAX),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_a_duration() {
        for text in [
            "",
            "5",
            "s",
            "1.5s",
            "-1s",
            "+1s",
            "1 s",
            "1S",
            "1d",
            "1m30s",
            "s1",
            " 1s",
            "٣s",
            "99999999999999999999s",
            "18446744073709551615h",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn durations_are_written_in_the_largest_unit_that_is_exact() {
        for text in ["100ms", "2s", "90s", "15m", "24h", "1500ms", "0s"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
        assert_eq!(format(Duration::from_secs(7200)), "2h");
    }
}
