//! The report as people read it: on the terminal, in docs/performance.md, and as a chart.

use super::report::{Measured, Report};
use super::{Kind, Way};
use crate::bench::chart::{Bar, Chart, Group};
use crate::bench::figures::Figures;
use crate::bench::report::Spread;

/// The part of the straight way's requests that the project wants to reach.
const TARGET: f64 = 0.9;

const HEADINGS: [&str; 10] = [
    "connections",
    "way",
    "requests/s",
    "had",
    "undisturbed",
    "half of",
    "by straight",
    "half of",
    "xdp-lb by it",
    "µs",
];
/// Columns of words; those behind are numbers.
const WORDS: usize = 2;

impl Report {
    /// For the terminal.
    pub(crate) fn text(&self) -> String {
        let figures = self.figures().text();
        format!("{}\n\n{figures}\n\n{}", self.headline(), self.targets())
    }

    /// For a page in Markdown that is beside the chart `chart`.
    pub(crate) fn markdown(&self, chart: &str) -> String {
        format!(
            "![Requests a second by each way]({chart})\n\n{}\n\n{}\n{}",
            self.headline(),
            self.figures().markdown(),
            self.targets()
        )
    }

    fn figures(&self) -> Figures<{ HEADINGS.len() }> {
        Figures {
            headings: HEADINGS,
            words: WORDS,
            rows: self.measured.iter().map(|it| self.row(it)).collect(),
        }
    }

    /// As a picture.
    pub(crate) fn chart(&self) -> String {
        let group = |kind: Kind| Group {
            heading: match kind {
                Kind::New => "A new connection for each request".to_owned(),
                Kind::Kept => "Connections that are kept".to_owned(),
            },
            bars: self.of(kind).map(|it| self.bar(it)).collect(),
        };
        let chart = Chart {
            title: "HTTP requests a second through one director".to_owned(),
            subtitle: format!(
                "All hosts share {} processors. Undisturbed, part of straight; the line spans half of the rounds",
                self.processors
            ),
            has_one_scale: false,
            groups: Kind::ALL.map(group).into(),
        };
        chart.svg()
    }

    /// Where and with what it was measured.
    fn headline(&self) -> String {
        let machine = &self.machine;
        let kind = if machine.is_virtual {
            ", virtual machine"
        } else {
            ""
        };
        let versions = &self.versions;
        format!(
            "{} ({}, {} CPUs{kind}), Linux {}; client, router, director and {} backends share {} processors. \
             {} connections at once, answers of {} bytes, {} rounds of {} s.\nClient: wrk {}; backends: nginx {nginx}; \
             directors: xdp-lb (l2), nftables {}, HAProxy {}, nginx {nginx}.",
            machine.processor,
            machine.architecture,
            machine.cpus,
            machine.kernel,
            self.backends,
            self.processors,
            self.connections,
            self.body_bytes,
            self.rounds,
            self.seconds,
            versions.wrk,
            versions.nftables,
            versions.haproxy,
            nginx = versions.nginx,
        )
    }

    fn row(&self, measured: &Measured) -> [String; HEADINGS.len()] {
        let quick = measured.undisturbed();
        let ratio = self.by_straight(measured);
        let ours = self.ours_by(measured);
        let or_empty = |text: Option<String>| text.unwrap_or_default();
        [
            measured.kind.name().to_owned(),
            measured.way.name().to_owned(),
            format!("{:.0}", measured.rate().median),
            format!("{:.0} %", measured.had().median * 100.0),
            format!("{:.0}", quick.median),
            format!("{:.0}–{:.0}", quick.lower, quick.upper),
            or_empty(ratio.map(|it| format!("{:.2}", it.median))),
            or_empty(ratio.map(|it| format!("{:.2}–{:.2}", it.lower, it.upper))),
            or_empty(ours.map(|it| format!("{:.2}", it.median))),
            format!("{:.1}", measured.micros().median),
        ]
    }

    fn bar(&self, measured: &Measured) -> Bar {
        let rate = measured.undisturbed();
        let percent = self.by_straight(measured);
        let percent = percent.map(|it| format!(" ({:.0} %)", it.median * 100.0));
        Bar {
            label: measured.way.name().to_owned(),
            value: rate.median,
            range: (rate.lower, rate.upper),
            note: format!("{:.0}{}", rate.median, percent.unwrap_or_default()),
            is_ours: measured.way == Way::XdpLb,
        }
    }

    fn by_straight(&self, measured: &Measured) -> Option<Spread> {
        let straight = self.find(Way::Straight, measured.kind)?;
        (measured.way != Way::Straight).then(|| measured.ratio(straight))
    }

    fn ours_by(&self, measured: &Measured) -> Option<Spread> {
        let ours = self.find(Way::XdpLb, measured.kind)?;
        (measured.way != Way::XdpLb).then(|| ours.ratio(measured))
    }

    /// What the project wants to reach, and whether it does here.
    fn targets(&self) -> String {
        Kind::ALL
            .into_iter()
            .filter_map(|kind| self.target(kind))
            .collect()
    }

    fn target(&self, kind: Kind) -> Option<String> {
        let ours = self.find(Way::XdpLb, kind)?;
        let straight = self.by_straight(ours)?.median;
        let met = |is_met| if is_met { "met" } else { "missed" };
        let mut text = format!(
            "Connections {}: xdp-lb has {straight:.2} of the straight way's requests (target {TARGET}: {})",
            kind.name(),
            met(straight >= TARGET)
        );
        let others: Vec<_> = self
            .of(kind)
            .filter(|it| it.way.is_peer())
            .map(|it| (it.way.name(), ours.ratio(it).median))
            .collect();
        if !others.is_empty() {
            let all_less = others.iter().all(|(_, times)| *times > 1.0);
            let times = others
                .iter()
                .map(|(name, times)| format!("{times:.2} times those of {name}"));
            let times: Vec<_> = times.collect();
            text += &format!(", {} (target above 1: {})", times.join(", "), met(all_less));
        }
        Some(text + ".\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Round, Versions};
    use super::*;
    use crate::bench::report::Machine;

    fn report() -> Report {
        let measured = |way, kind, rate: f64| Measured {
            way,
            kind,
            rounds: vec![
                Round {
                    per_second: rate,
                    micros: 1e6 / rate,
                    busy: 0.9,
                    idle: 0.1,
                };
                2
            ],
        };
        let version = || "1.2".to_owned();
        Report {
            machine: Machine::any(),
            processors: 2,
            backends: 2,
            connections: 128,
            body_bytes: 1024,
            rounds: 2,
            seconds: 3,
            versions: Versions {
                nftables: version(),
                haproxy: version(),
                nginx: version(),
                wrk: version(),
            },
            measured: vec![
                measured(Way::Straight, Kind::New, 1000.0),
                measured(Way::XdpLb, Kind::New, 890.0),
                measured(Way::Haproxy, Kind::New, 445.0),
                measured(Way::Straight, Kind::Kept, 5000.0),
                measured(Way::Haproxy, Kind::Kept, 1000.0),
            ],
        }
    }

    #[test]
    fn targets_are_reported_as_they_come() {
        let text = report().targets();
        assert_eq!(
            text,
            "Connections one a request: xdp-lb has 0.89 of the straight way's requests (target 0.9: missed), \
             2.00 times those of HAProxy (target above 1: met).\n"
        );
    }

    #[test]
    fn every_row_of_the_page_has_a_cell_for_each_heading() {
        let page = report().markdown("requests.svg");
        let cells = |line: &str| line.matches('|').count();
        let rows: Vec<_> = page.lines().filter(|it| it.starts_with('|')).collect();
        assert_eq!(rows.len(), 2 + 5);
        assert!(
            rows.iter().all(|row| cells(row) == HEADINGS.len() + 1),
            "{page}"
        );
        assert!(
            page.contains(
                "| one a request | xdp-lb | 890 | 100 % | 890 | 890–890 | 0.89 | 0.89–0.89 |  | 1123.6 |"
            ),
            "{page}"
        );
    }

    #[test]
    fn the_chart_has_all_bars() {
        let svg = report().chart();
        assert_eq!(svg.matches("<rect").count(), 1 + 5);
        assert!(svg.contains(">890 (89 %)</text>"), "{svg}");
    }

    #[test]
    fn a_report_outlives_its_file() {
        let text = serde_json::to_string(&report()).unwrap();
        let read: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(read.text(), report().text());
    }
}
