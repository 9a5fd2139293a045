//! What the XDP program costs, as a picture: IPv4, by `l2` and `ipip`. The table has the rest.

use super::{
    chart::{Bar, Chart, Group},
    report::{Case, Report},
};

/// What the picture shows, of all cases.
fn is_shown(case: &Case) -> bool {
    case.family == "ipv4" && case.mode != "gue"
}

/// The picture, as SVG.
pub(super) fn svg(report: &Report) -> String {
    let shown: Vec<&Case> = report.cases.iter().filter(|case| is_shown(case)).collect();
    let kind = |case: &Case| (case.mode.clone(), case.tracking.clone());
    let groups = shown
        .chunk_by(|a, b| kind(a) == kind(b))
        .map(|cases| Group {
            heading: format!(
                "{}, connection_tracking: {}",
                cases[0].mode, cases[0].tracking
            ),
            bars: cases.iter().map(|case| bar(case)).collect(),
        });
    let chart = Chart {
        title: "Time for a packet, as a multiple of reading its headers and sending it back"
            .to_owned(),
        subtitle: format!(
            "IPv4, {} services of {} backends; less is better; the time to bring the packet is in both; the line spans half of \
             the rounds",
            report.services, report.backends_per_service
        ),
        has_one_scale: true,
        groups: groups.collect(),
    };
    chart.svg()
}

fn bar(case: &Case) -> Bar {
    let summary = case.summary();
    let ratio = summary.with_wrapper;
    Bar {
        label: case.traffic.clone(),
        value: ratio.median,
        range: (ratio.lower, ratio.upper),
        note: format!("{:.1} ({:.0} ns)", ratio.median, summary.program.median),
        is_ours: case.tracking == "adaptive",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::Round;

    #[test]
    fn one_family_and_two_modes_are_shown() {
        let round = Round {
            wrapper: 50.0,
            floor_tx: 52.0,
            floor_parse: 60.0,
            floor_stateless: None,
            program: 90.0,
        };
        let case = |mode: &str, family: &str| Case {
            mode: mode.to_owned(),
            family: family.to_owned(),
            tracking: "adaptive".to_owned(),
            traffic: "flows".to_owned(),
            packets_per_run: 1,
            connections: 1,
            rounds: vec![round],
            single: 1.0,
        };
        assert!(is_shown(&case("l2", "ipv4")) && is_shown(&case("ipip", "ipv4")));
        assert!(!is_shown(&case("gue", "ipv4")) && !is_shown(&case("l2", "ipv6")));
        let bar = bar(&case("l2", "ipv4"));
        assert_eq!((bar.value, bar.range), (1.5, (1.5, 1.5)));
        assert_eq!((&*bar.label, &*bar.note), ("flows", "1.5 (40 ns)"));
    }
}
