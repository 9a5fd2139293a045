//! The report as people read it: on the terminal, and in docs/performance.md.

use std::fmt::Write as _;

use super::figures::Figures;
use super::report::{Case, MemoryTimes, Report, Spread, TableTimes};

const HEADINGS: [&str; 16] = [
    "mode",
    "family",
    "tracking",
    "traffic",
    "ns",
    "half of",
    "tx",
    "parse",
    "ratio",
    "half of",
    "with wrapper",
    "stateless",
    "by it",
    "quiet ns",
    "quiet, with wrapper",
    "single",
];
/// Columns of words; those behind are numbers.
const WORDS: usize = 4;

/// For the terminal.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = format!("{}\n\n{}", headline(report), figures(report).text());
    if !report.tables.is_empty() {
        let tables = table_figures(report).text();
        let _ = write!(text, "\n\n{}\n\n{tables}", table_headline(report));
    }
    text
}

/// For a page in Markdown.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut text = format!("{}\n\n{}", headline(report), figures(report).markdown());
    if !report.tables.is_empty() {
        let tables = table_figures(report).markdown();
        let _ = write!(text, "\n{}\n\n{tables}", table_headline(report));
    }
    text
}

fn figures(report: &Report) -> Figures<{ HEADINGS.len() }> {
    Figures {
        headings: HEADINGS,
        words: WORDS,
        rows: report.cases.iter().map(row).collect(),
    }
}

fn table_headline(report: &Report) -> String {
    let wait = match Spread::of(&report.waits).median {
        wait if wait.is_nan() => String::new(),
        wait => format!(
            " A change waits for the packets under way besides, {wait:.1} ms here, before it gives memory to another table."
        ),
    };
    let slots = report.tables.first().map_or(0, |it| it.table_size);
    format!(
        "Lookup tables of {slots} slots, in milliseconds: to build one, and until it is in force after one backend has come or gone.{wait}"
    )
}

fn table_figures(report: &Report) -> Figures<6> {
    let row = |times: &TableTimes| {
        let (build, update) = (Spread::of(&times.build), Spread::of(&times.update));
        let quartiles = |spread: Spread| format!("{:.2}–{:.2}", spread.lower, spread.upper);
        [
            times.scheduler.clone(),
            times.backends.to_string(),
            format!("{:.2}", build.median),
            quartiles(build),
            format!("{:.2}", update.median),
            quartiles(update),
        ]
    };
    Figures {
        headings: [
            "scheduler",
            "backends",
            "build",
            "half of",
            "update",
            "half of",
        ],
        words: 1,
        rows: report.tables.iter().map(row).collect(),
    }
}

/// Where and with what it was measured.
fn headline(report: &Report) -> String {
    let machine = &report.machine;
    let kind = if machine.is_virtual {
        ", virtual machine"
    } else {
        ""
    };
    let mut text = format!(
        "{} ({}, {} CPUs{kind}), Linux {}; {} services of {} backends, tables of {} slots, frames of {} \
         bytes (IPv4) and {} (IPv6), {}.",
        machine.processor,
        machine.architecture,
        machine.cpus,
        machine.kernel,
        report.services,
        report.backends_per_service,
        report.table_size,
        report.frame_bytes[0],
        report.frame_bytes[1],
        if report.listed {
            "which come from a list in memory"
        } else {
            "which are computed"
        }
    );
    let memory = memory(&report.memory);
    let Some(program) = report.program else {
        return text + &memory;
    };
    let mut sizes = Vec::new();
    if let Some(count) = program.verified_instructions {
        sizes.push(format!("the verifier went through {count} instructions"));
    }
    if let Some(bytes) = program.translated_bytes {
        sizes.push(format!("{bytes} bytes of BPF instructions"));
    }
    if let Some(bytes) = program.jitted_bytes {
        sizes.push(format!("{bytes} bytes of machine code"));
    }
    let _ = write!(text, "\nThe XDP program: {}.", sizes.join(", "));
    text + &memory
}

/// What the machine's caches were like; nothing where that was not measured.
fn memory(times: &[MemoryTimes]) -> String {
    let measured = times.iter().filter(|times| !times.nanoseconds.is_empty());
    let sizes = measured.map(|times| {
        let Spread {
            lower,
            median,
            upper,
        } = Spread::of(&times.nanoseconds);
        let size = times.mebibytes;
        format!("{median:.0} of {size} MiB ({lower:.0}–{upper:.0} half of the time)")
    });
    let sizes: Vec<String> = sizes.collect();
    if sizes.is_empty() {
        return String::new();
    }
    format!(
        "\nA read of any byte of memory took meanwhile, in nanoseconds: {}.",
        sizes.join(", ")
    )
}

fn row(case: &Case) -> [String; HEADINGS.len()] {
    let summary = case.summary();
    // Where the floor is lost in the noise, a ratio to it means nothing.
    let ratio = |text: String| {
        if summary.floor_parse.lower > 0.0 {
            text
        } else {
            "?".to_owned()
        }
    };
    let quartiles = |spread: Spread| format!("{:.1}–{:.1}", spread.lower, spread.upper);
    let if_any = |spread: Option<Spread>| {
        let median = spread.map(|spread| format!("{:.1}", spread.median));
        median.unwrap_or_default()
    };
    [
        case.mode.clone(),
        case.family.clone(),
        case.tracking.clone(),
        case.traffic.clone(),
        format!("{:.1}", summary.program.median),
        quartiles(summary.program),
        format!("{:.1}", summary.floor_tx.median),
        format!("{:.1}", summary.floor_parse.median),
        ratio(format!("{:.1}", summary.ratio.median)),
        ratio(quartiles(summary.ratio)),
        format!("{:.1}", summary.with_wrapper.median),
        if_any(summary.floor_stateless),
        if_any(summary.by_stateless),
        if_any(summary.quiet.map(|quiet| quiet.program)),
        if_any(summary.quiet.map(|quiet| quiet.with_wrapper)),
        format!("{:.0}", case.single),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_stand_below_the_packets_with_what_they_wait_for() {
        let times = TableTimes {
            scheduler: "maglev".to_owned(),
            backends: 100,
            table_size: 65_537,
            build: vec![1.0, 2.0, 3.0],
            update: vec![4.0],
        };
        let mut report = Report {
            tables: vec![times],
            waits: vec![7.0],
            ..Report::any()
        };
        let page = markdown(&report);
        assert!(
            page.contains("| maglev | 100 | 2.00 | 1.50–2.50 | 4.00 | 4.00–4.00 |"),
            "{page}"
        );
        assert!(
            page.contains("of 65537 slots") && page.contains("7.0 ms here"),
            "{page}"
        );
        assert!(!page.contains("memory took"), "{page}");
        report.memory.push(MemoryTimes {
            mebibytes: 4,
            nanoseconds: vec![20.0, 30.0, 40.0],
        });
        let page = markdown(&report);
        assert!(
            page.contains("in nanoseconds: 30 of 4 MiB (25–35 half of the time)."),
            "{page}"
        );
        report.waits.clear();
        assert!(!text(&report).contains("waits"), "{}", text(&report));
        report.tables.clear();
        assert!(!text(&report).contains("Lookup tables"));
    }
}
