//! `cargo xtask bench churn`: what becomes of connections while their backends come, go, drain and flap.
//!
//! The program `xdp-lb-churn` goes through it, and needs neither root nor a kernel.

use serde::{Deserialize, Serialize};

use super::chart::{Bar, Chart, Group};
use super::figures::Figures;

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The same seed makes the same run.
    pub seed: u64,
    /// Connections at once.
    pub connections: u32,
    /// Connections in all.
    pub begun: u64,
    /// How long, in virtual seconds.
    pub seconds: u32,
    /// Backends at the beginning.
    pub backends: u16,
    /// Slots of the lookup table.
    pub table_size: u32,
    /// How long silent flows are remembered.
    pub idle_seconds: u32,
    /// What happened to the backends, in which second.
    pub changes: Vec<(u32, String)>,
    /// What came of it.
    pub outcomes: Vec<Outcome>,
}

/// What came of one way to track connections.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Packets of connections that had not broken before.
    pub packets: u64,
    /// Connections of which a packet went to another backend than the SYN, while that one was there to answer.
    pub broken: u64,
    /// Connections that had a packet to send when their backend had died or been taken out.
    pub lost: u64,
    /// Connections that broke or were lost, and were not by remembering every flow.
    pub broken_beyond_full: u64,
    /// The most flows that were remembered at a time, as counted once a minute.
    pub most_entries: u64,
    /// How often a flow was looked up.
    pub lookups: u64,
}

impl Outcome {
    fn lookups_per_packet(&self) -> f64 {
        self.lookups as f64 / self.packets.max(1) as f64
    }
}

impl Report {
    /// For the terminal.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n\n{}", self.headline(), self.figures().text())
    }

    /// For a page in Markdown that is beside the chart `chart`.
    #[must_use]
    pub fn markdown(&self, chart: &str) -> String {
        format!(
            "![What tracking costs, and what it saves]({chart})\n\n{}\n\n{}",
            self.headline(),
            self.figures().markdown()
        )
    }

    /// As a picture.
    #[must_use]
    pub fn chart(&self) -> String {
        let group = |heading: &str, value: fn(&Outcome) -> f64, note: fn(f64) -> String| Group {
            heading: heading.to_owned(),
            bars: self
                .outcomes
                .iter()
                .map(|outcome| bar(&outcome.name, value(outcome), note))
                .collect(),
        };
        let whole = |value: f64| thousands(value);
        let chart = Chart {
            title: "What connection tracking costs, and what it saves".to_owned(),
            subtitle: format!(
                "{} connections at once for {} minutes, {} changes of {} backends; less is better",
                thousands(self.connections.into()),
                self.seconds / 60,
                self.changes.len(),
                self.backends
            ),
            has_one_scale: false,
            groups: vec![
                group("Connections broken", |it| it.broken as f64, whole),
                group(
                    "Flows remembered, at the most",
                    |it| it.most_entries as f64,
                    whole,
                ),
                group(
                    "Lookups for a packet",
                    Outcome::lookups_per_packet,
                    |value| format!("{value:.3}"),
                ),
            ],
        };
        chart.svg()
    }

    fn headline(&self) -> String {
        format!(
            "{} connections at once and {} in all, for {} minutes of virtual time; {} backends and {} changes of them, a table of {} \
             slots; silent flows are remembered for {} s; seed {}.",
            thousands(self.connections.into()),
            thousands(self.begun as f64),
            self.seconds / 60,
            self.backends,
            self.changes.len(),
            self.table_size,
            self.idle_seconds,
            self.seed
        )
    }

    fn figures(&self) -> Figures<7> {
        let row = |it: &Outcome| {
            [
                it.name.clone(),
                it.broken.to_string(),
                format!(
                    "{:.3} %",
                    it.broken as f64 * 100.0 / self.begun.max(1) as f64
                ),
                it.broken_beyond_full.to_string(),
                it.lost.to_string(),
                it.most_entries.to_string(),
                format!("{:.3}", it.lookups_per_packet()),
            ]
        };
        Figures {
            headings: [
                "tracking",
                "broken",
                "of all",
                "not by `full`",
                "lost with the backend",
                "flows remembered",
                "lookups for a packet",
            ],
            words: 1,
            rows: self.outcomes.iter().map(row).collect(),
        }
    }
}

fn bar(name: &str, value: f64, note: fn(f64) -> String) -> Bar {
    Bar {
        label: name.to_owned(),
        value,
        range: (value, value),
        note: note(value),
        is_ours: name == "adaptive",
    }
}

/// A whole number with its digits in threes.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let outcome = |name: &str, broken, most_entries| Outcome {
            name: name.to_owned(),
            packets: 10_000,
            broken,
            lost: 7,
            broken_beyond_full: broken,
            most_entries,
            lookups: most_entries,
        };
        Report {
            seed: 1,
            connections: 1000,
            begun: 1_234_567,
            seconds: 600,
            backends: 10,
            table_size: 251,
            idle_seconds: 900,
            changes: vec![(300, "backend 11 is added".to_owned())],
            outcomes: vec![outcome("off", 12_345, 0), outcome("adaptive", 0, 55)],
        }
    }

    #[test]
    fn all_figures_are_in_the_table_and_in_the_chart() {
        let text = report().text();
        assert!(
            text.contains("1,000 connections at once and 1,234,567 in all"),
            "{text}"
        );
        let row = text
            .lines()
            .find(|line| line.trim_start().starts_with("off"))
            .unwrap();
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(
            cells,
            ["off", "12345", "1.000", "%", "12345", "7", "0", "0.000"]
        );
        let svg = report().chart();
        assert!(
            svg.contains(">12,345</text>") && svg.contains(">0.005</text>"),
            "{svg}"
        );
        assert_eq!(svg.matches("#2563eb").count(), 3, "one in each group");
    }

    #[test]
    fn digits_are_in_threes() {
        let numbers = [0.0, 999.0, 1000.0, 12_345_678.0];
        assert_eq!(numbers.map(thousands), ["0", "999", "1,000", "12,345,678"]);
    }
}
