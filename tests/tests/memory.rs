//! The memory that maps are said to need, against what the kernel says of maps that were made.

use std::{fs, os::fd::AsRawFd as _, path::Path};

use anyhow::{Context, Result};
use aya::maps::MapData;
use xdp_lb::{
    config::{DEFAULT_GUE_PORT, Limits},
    dataplane::{Dataplane, Memory, OBJECT, Options, PinDirectory, Sizes, of_map, possible_cpus},
};
use xdp_lb_common::{
    abi::{index_bits, map},
    hash::HashKey,
};
use xtask::{lab::Namespace, root, test::libtest::SKIPPED};

/// Maps that take memory only for what is in them: nothing, here.
const GROWING: [&str; 2] = [map::SERVICES, map::PREFIXES];

/// The bytes that the kernel says a pinned map takes, and its entries.
fn taken(pin: &Path) -> Result<(u64, u32)> {
    let data = MapData::from_pin(pin)?;
    let fd = std::os::fd::AsFd::as_fd(data.fd()).as_raw_fd();
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"))?;
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = line.context("no memlock")?.trim().parse()?;
    Ok((bytes, data.info()?.max_entries()))
}

/// True where the kernel counts what maps take: Linux 6.4 is the first.
fn can_tell() -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    let major = numbers.next().context("no release")??;
    let minor = numbers.next().context("no release")??;
    Ok((major, minor) >= (6, 4))
}

#[test]
fn maps_take_what_they_are_said_to_need() -> Result<()> {
    if !root::is_root() || OBJECT.is_empty() || !can_tell()? {
        println!("{SKIPPED}takes root, the XDP program, and a kernel that tells");
        return Ok(());
    }
    let limits = Limits {
        services: 3000,
        backends: 5000,
        slots: 1_000_000,
        flows: 50_000,
        ..Limits::default()
    };
    Namespace::new("memory")?.run(|| {
        let pins = PinDirectory::new("/sys/fs/bpf/memory");
        let options = Options {
            pins: pins.clone(),
            limits,
            hash_key: HashKey::DEFAULT,
            gue_port: DEFAULT_GUE_PORT,
        };
        let (dataplane, _) = Dataplane::open(&options)?;
        assert_eq!(dataplane.sizes(), Sizes::from(&limits));
        let mut all = 0;
        for name in map::PINNED.into_iter().filter(|name| *name != map::META) {
            let (taken, entries) = taken(&pins.path().join(name))?;
            let said = of_map(name, entries, possible_cpus());
            all += said;
            println!("{name}: {said} said, {taken} taken");
            assert!(
                taken <= said + said / 5,
                "{name}: {said} said, {taken} taken"
            );
            let is_empty = GROWING.contains(&name);
            assert!(
                is_empty || taken >= said - said / 5,
                "{name}: {said} said, {taken} taken"
            );
        }
        // Not pinned.
        all += of_map(
            map::INDEX,
            1 + (1 << index_bits(limits.services)),
            possible_cpus(),
        );
        assert_eq!(Memory::of(dataplane.sizes(), possible_cpus()).total, all);
        Ok(())
    })
}
