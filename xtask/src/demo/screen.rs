//! How the demo looks: headings, facts, tables and bars; colours and a spinner on a terminal only.

use std::io::{IsTerminal as _, stderr, stdout};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The terminal, or what stands in for one.
#[derive(Debug)]
pub(super) struct Screen {
    colours: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|it| !it.is_empty());
        Self {
            colours: stdout().is_terminal() && !no_colour,
        }
    }

    /// Begins a step.
    pub(super) fn step(&self, title: &str) {
        println!("\n{}", self.paint("1;36", &format!("── {title} ──")));
    }

    /// A line of text.
    pub(super) fn line(&self, text: &str) {
        println!("  {text}");
    }

    /// The header of a table.
    pub(super) fn header(&self, text: &str) {
        println!("  {}", self.paint("2", text));
    }

    /// Something that was checked, and holds.
    pub(super) fn good(&self, text: &str) {
        println!("  {} {text}", self.paint("32", "✓"));
    }

    /// Does what takes long while a spinner turns; without a terminal it says so once.
    pub(super) fn work<T>(&self, what: &str, work: impl FnOnce() -> T) -> T {
        if !stderr().is_terminal() {
            eprintln!("  … {what}");
            return work();
        }
        let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        spinner.enable_steady_tick(Duration::from_millis(100));
        let value = work();
        spinner.finish_and_clear();
        value
    }

    /// A bar of at most 30 columns for a part of a whole, in eighths of a column.
    pub(super) fn bar(&self, part: f64, whole: f64) -> String {
        let eighths = (part / whole * 240.0).round().clamp(0.0, 240.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0 to 240, by the line above"
        )]
        let eighths = eighths as usize;
        let mut bar = "█".repeat(eighths / 8);
        bar.extend([' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'].get(eighths % 8));
        self.paint("34", bar.trim_end())
    }

    /// The closing line.
    pub(super) fn end(&self, time: Duration) {
        let text = format!("everything held, in {:.0} s", time.as_secs_f64());
        println!("\n{}", self.paint("1;32", &text));
        println!("cargo xtask lab up   builds such a lab and leaves it to you");
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A number with its thousands apart: `65,537`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A part of a whole in percent.
#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_kept_apart() {
        let texts = [0, 999, 1000, 65_537, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "65,537", "1,234,567"]);
    }

    #[test]
    fn a_bar_is_as_long_as_its_part() {
        let screen = Screen { colours: false };
        assert_eq!(screen.bar(0.0, 1.0), "");
        assert_eq!(screen.bar(0.5, 1.0).chars().count(), 15);
        assert_eq!(screen.bar(2.0, 1.0).chars().count(), 30);
    }
}
