//! docs/performance.md: the part of it that is generated.

use std::fs;

use anyhow::{Context, Result};

use super::{churn, picture, report, requests, table};
use crate::paths;

const PAGE: &str = "docs/performance.md";
/// Charts, from the folder of the page.
const CHART: &str = "requests.svg";
const PICTURE: &str = "packets.svg";
const CHURN: &str = "churn.svg";
const BEGIN_PACKETS: &str = "<!-- begin: written by `cargo xtask bench --write-docs` -->\n";
const BEGIN_REQUESTS: &str =
    "<!-- begin: written by `cargo xtask bench requests --write-docs` -->\n";
const BEGIN_CHURN: &str = "<!-- begin: written by `cargo xtask bench churn --write-docs` -->\n";
const END: &str = "<!-- end -->\n";

/// Puts the report's table and chart in the place of those on the page.
pub(super) fn write(report: &report::Report) -> Result<()> {
    write_chart(PICTURE, &picture::svg(report))?;
    let table = table::markdown(report);
    let part = format!(
        "![Time for a packet, by what comes and how it is forwarded]({PICTURE})\n\n{table}"
    );
    write_part(BEGIN_PACKETS, &part)
}

/// Puts table and chart of requests in the place of those on the page.
pub(super) fn write_requests(report: &requests::Report) -> Result<()> {
    write_chart(CHART, &report.chart())?;
    write_part(BEGIN_REQUESTS, &report.markdown(CHART))
}

/// Puts table and chart of the churn experiment in the place of those on the page.
pub(super) fn write_churn(report: &churn::Report) -> Result<()> {
    write_chart(CHURN, &report.chart())?;
    write_part(BEGIN_CHURN, &report.markdown(CHURN))
}

fn write_chart(name: &str, svg: &str) -> Result<()> {
    let path = paths::workspace().join(PAGE).with_file_name(name);
    fs::write(&path, svg).with_context(|| format!("cannot write {name}"))
}

fn write_part(begin: &str, part: &str) -> Result<()> {
    let path = paths::workspace().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let page = replace(&page, begin, part)?;
    fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))?;
    println!("{PAGE} has the new table");
    Ok(())
}

/// Replaces what is between the line `begin` and the next end.
fn replace(page: &str, begin: &str, part: &str) -> Result<String> {
    let marks = || {
        let (head, rest) = page.split_once(begin)?;
        let (_, tail) = rest.split_once(END)?;
        Some((head, tail))
    };
    let (head, tail) =
        marks().with_context(|| format!("{PAGE} lacks a line `{begin}` or `{END}`"))?;
    Ok(format!("{head}{begin}\n{part}\n{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let begin = "<!-- begin -->\n";
        let page = format!("before\n{begin}old\n{END}after\n<!-- other -->\nkept\n{END}");
        let new = replace(&page, begin, "new\n").unwrap();
        assert_eq!(
            new,
            format!("before\n{begin}\nnew\n\n{END}after\n<!-- other -->\nkept\n{END}")
        );
        assert_eq!(replace(&new, begin, "new\n").unwrap(), new);
        assert!(replace("no marks", begin, "new\n").is_err());
    }

    #[test]
    fn the_page_has_the_marks() {
        let page = fs::read_to_string(paths::workspace().join(PAGE)).unwrap();
        for begin in [BEGIN_PACKETS, BEGIN_REQUESTS, BEGIN_CHURN] {
            assert!(replace(&page, begin, "").is_ok(), "{begin}");
        }
    }
}
