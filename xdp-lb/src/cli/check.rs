//! `xdp-lb config check`: whether a file is good, and the memory that its maps take.

use std::path::Path;

use comfy_table::Cell;
use serde::Serialize;

use super::{
    commands::show,
    tables::{bytes, table},
};
use crate::{
    config::{self, Config},
    dataplane::{HostMemory, Memory, Sizes, possible_cpus},
};

/// A good config, and what its maps take.
#[derive(Serialize)]
struct Checked {
    #[serde(flatten)]
    config: Config,
    memory: Memory,
}

/// Checks `file` and shows what was found.
pub(super) fn check(file: &Path, json: bool) -> anyhow::Result<()> {
    let config = config::load(file)?;
    let checked = Checked {
        memory: Memory::of(Sizes::from(&config.limits), possible_cpus()),
        config,
    };
    show(json, &checked, |Checked { config, memory }| {
        let host = HostMemory::read().ok();
        format!("{}\n\n{}", summary(file, config), table_of(memory, host))
    })
}

fn summary(file: &Path, config: &Config) -> String {
    let backends: usize = config
        .services
        .iter()
        .map(|service| service.backends.len())
        .sum();
    let interfaces: Vec<_> = config
        .interfaces
        .iter()
        .map(|interface| interface.name.as_str())
        .collect();
    format!(
        "{}: good: {}, {}, on {}",
        file.display(),
        counted(config.services.len(), "service"),
        counted(backends, "backend"),
        interfaces.join(", ")
    )
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The memory of the maps, and a warning where the host has less.
fn table_of(memory: &Memory, host: Option<HostMemory>) -> String {
    let mut table = table(&["MAPS", ">MEMORY"]);
    for part in &memory.parts {
        table.add_row(vec![Cell::new(part.name), Cell::new(bytes(part.bytes))]);
    }
    table.add_row(vec![Cell::new("total"), Cell::new(bytes(memory.total))]);
    let mut text = table.trim_fmt();
    if let Some(host) = host.filter(|host| host.total < memory.total) {
        text += &format!(
            "\nwarning: this host has {} of memory; make `limits` smaller for it",
            bytes(host.total)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Part;

    #[test]
    fn memory_is_told_by_parts_and_warned_of_where_there_is_less() {
        let part = |name, bytes| Part { name, bytes };
        let needed = Memory {
            parts: vec![part("lookup tables", 32 << 20), part("flows", 1500)],
            total: 32 << 20,
        };
        let host = |total| {
            Some(HostMemory {
                total,
                available: 0,
            })
        };
        let told = "MAPS            MEMORY\n\
                    lookup tables  32.0 MiB\n\
                    flows          1.46 KiB\n\
                    total          32.0 MiB";
        assert_eq!(
            table_of(&needed, None),
            told.replace("  MEMORY", "   MEMORY")
        );
        assert_eq!(table_of(&needed, host(32 << 20)), table_of(&needed, None));
        let warned = table_of(&needed, host(16 << 20));
        assert!(warned.ends_with(
            "\nwarning: this host has 16.0 MiB of memory; make `limits` smaller for it"
        ));
    }

    #[test]
    fn programs_get_the_config_and_the_memory() {
        let config = config::parse("interfaces: [eth0]", "config.yaml").unwrap();
        let memory = Memory::of(Sizes::from(&config.limits), 2);
        let total = memory.total;
        let json = serde_json::to_value(Checked { config, memory }).unwrap();
        assert_eq!(json["interfaces"][0]["name"], "eth0");
        assert_eq!(json["memory"]["total"], total);
        assert_eq!(json["memory"]["parts"][0]["name"], "lookup tables");
    }
}
