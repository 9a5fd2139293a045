//! docs/performance.md: the part of it that is generated.

use std::fs;

use anyhow::{Context, Result};

use super::report::Report;
use super::table;
use crate::paths;

const PAGE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- begin: written by `cargo xtask bench --write-docs` -->\n";
const END: &str = "<!-- end -->\n";

/// Puts the report's table in the place of the one on the page.
pub(super) fn write(report: &Report) -> Result<()> {
    let path = paths::workspace().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let page = replace(&page, &table::markdown(report))?;
    fs::write(&path, page).with_context(|| format!("cannot write {PAGE}"))?;
    println!("{PAGE} has the new table");
    Ok(())
}

fn replace(page: &str, table: &str) -> Result<String> {
    let marks = || {
        let (head, rest) = page.split_once(BEGIN)?;
        let (_, tail) = rest.split_once(END)?;
        Some((head, tail))
    };
    let (head, tail) =
        marks().with_context(|| format!("{PAGE} lacks a line `{BEGIN}` or `{END}`"))?;
    Ok(format!("{head}{BEGIN}\n{table}\n{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        let new = replace(&page, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\nnew\n\n{END}after\n"));
        assert_eq!(replace(&new, "new\n").unwrap(), new);
        assert!(replace("no marks", "new\n").is_err());
    }

    #[test]
    fn the_page_has_the_marks() {
        let page = fs::read_to_string(paths::workspace().join(PAGE)).unwrap();
        assert!(replace(&page, "").is_ok());
    }
}
