//! The rules of ARCHITECTURE.md that a program can check.

use std::{
    fs,
    path::{Path, PathBuf},
};

use xdp_lb::vrrp::counters::Count;
use xdp_lb_common::counters::{Counter, decap};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// All Rust files below a folder, with their text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.clone(), fs::read_to_string(path).unwrap()));
        }
    }
    found
}

fn assert_only(module: &str, forbidden: &[&str]) {
    for (path, text) in sources(&root().join("xdp-lb/src")) {
        if path.components().any(|part| part.as_os_str() == module) {
            continue;
        }
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let found = forbidden.iter().find(|word| line.contains(**word));
            assert!(
                found.is_none(),
                "{}: only `{module}` may: {line}",
                path.display()
            );
        }
    }
}

#[test]
fn only_dataplane_touches_aya() {
    assert_only("dataplane", &["use aya", " aya::", "(aya::", "aya_log"]);
}

#[test]
fn only_netlink_touches_netlink() {
    assert_only("netlink", &["rtnetlink", "netlink_packet"]);
}

#[test]
fn files_stay_under_500_lines() {
    for folder in [
        "xdp-lb",
        "xdp-lb-common",
        "xdp-lb-ebpf",
        "ebpf-build",
        "bench",
        "bench-ebpf",
        "fuzz",
        "xtask",
        "tests",
    ] {
        for (path, text) in sources(&root().join(folder)) {
            let lines = text.lines().count();
            assert!(
                lines <= 500,
                "{} has {lines} lines: what is hiding in it?",
                path.display()
            );
        }
    }
}

#[test]
fn the_documentation_lists_every_counter_with_its_meaning() {
    let text = fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    // Some counters of the two programs have the same names.
    let (director, backend) = text.split_once("## Decapsulation").unwrap();
    let row = |name, kind, text| format!("| `{name}` | {kind} | {text} |");
    for counter in Counter::ALL {
        let row = row(counter.name(), counter.kind().name(), counter.text());
        assert!(director.contains(&row), "docs/metrics.md lacks: {row}");
    }
    for count in Count::ALL {
        let row = format!("| `{}` | {} |", count.name(), count.text());
        assert!(director.contains(&row), "docs/metrics.md lacks: {row}");
    }
    for counter in decap::Counter::ALL {
        let row = row(counter.name(), counter.kind().name(), counter.text());
        assert!(backend.contains(&row), "docs/metrics.md lacks: {row}");
    }
}

#[test]
fn every_place_that_the_architecture_names_is_there() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let table = text.split("## Where everything lives").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let places: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    assert!(places.len() > 10, "{places:?}");
    for place in places {
        assert!(
            root().join(place).exists(),
            "ARCHITECTURE.md names {place}, which is not there"
        );
    }
}
