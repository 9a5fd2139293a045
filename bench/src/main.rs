//! Measures and writes the report as JSON to stdout; `cargo xtask bench` runs this as root.

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use xdp_lb_bench::{
    cases::Case,
    measure::{Plan, measure},
    memory::Memory,
    packets::Family,
    plane::{Mode, Plane, Scale},
    tables,
    wrapper::Wrapper,
};
use xtask::{
    bench::report::{Machine, Report},
    lab::Namespace,
};

/// Measure the XDP program: nanoseconds per packet, as JSON. Needs root.
#[derive(Parser)]
struct Arguments {
    /// Parts of names of cases; all cases when there is none.
    filters: Vec<String>,
    /// Few packets and rounds: shows that it works.
    #[arg(long)]
    quick: bool,
    /// Services: what many flows cost is a matter of how much memory their lookup tables take.
    #[arg(long, default_value_t = SCALE.services, value_parser = clap::value_parser!(u8).range(1..=250))]
    services: u8,
    /// Packets are computed, instead of coming from a list in memory.
    #[arg(long)]
    computed: bool,
    /// Rounds of each case [default: 15, or 3 with --quick]: all cases are gone through again after each five, so that the
    /// rounds of each are spread over the whole time.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
}

/// What directors with many services have.
const SCALE: Scale = Scale {
    services: 100,
    backends: 100,
    table_size: 65_537,
    // Sparse enough that none of the connections displaces another.
    flows: 16_000_000,
    listed: 0,
};

const THOROUGH: Plan = Plan {
    scale: SCALE,
    rounds: 15,
    connections: 100_000,
    packets: 400_000,
    singles: 2000,
};

const QUICK: Plan = Plan {
    scale: SCALE,
    rounds: 3,
    connections: 10_000,
    packets: 40_000,
    singles: 200,
};

/// Rounds of a case, after which the others have theirs.
const ROUNDS_AT_A_TIME: u32 = 5;
/// Rounds of each lookup table.
const TABLE_ROUNDS: u32 = 15;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut plan = if arguments.quick { QUICK } else { THOROUGH };
    plan.scale.services = arguments.services;
    if !arguments.computed {
        plan.scale.listed = 10 * plan.connections;
    }
    plan.rounds = arguments.rounds.unwrap_or(plan.rounds);
    let mut report = Report {
        machine: Machine::this()?,
        frame_bytes: [Family::V4.frame(), Family::V6.frame()]
            .map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX)),
        services: plan.scale.services.into(),
        backends_per_service: plan.scale.backends.into(),
        table_size: plan.scale.table_size,
        flow_limit: plan.scale.flows,
        listed: !arguments.computed,
        program: None,
        cases: Vec::new(),
        memory: Vec::new(),
        tables: Vec::new(),
        waits: Vec::new(),
    };
    let mut memory = Memory::new();
    for pass in plan.passes(ROUNDS_AT_A_TIME) {
        for mode in Mode::ALL {
            for family in [Family::V4, Family::V6] {
                let cases: Vec<Case> = Case::all(mode, family)
                    .filter(|case| is_wanted(case, &arguments.filters))
                    .collect();
                if cases.is_empty() {
                    continue;
                }
                // One after the other, so that the maps of one are gone when the next begins.
                let namespace = Namespace::new("bench")?;
                namespace.run(|| run(mode, family, &cases, pass, &mut report, &mut memory))?;
            }
        }
    }
    report.memory = memory.into_times();
    let is_wanted = |name: &str| is_any_in(name, &arguments.filters);
    let rounds = plan.rounds.min(TABLE_ROUNDS);
    report.tables = tables::measure(plan.scale.table_size, rounds, is_wanted)?;
    if !report.tables.is_empty() {
        report.waits = waits(rounds)?;
    }
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn is_wanted(case: &Case, filters: &[String]) -> bool {
    is_any_in(&case.name(), filters)
}

fn is_any_in(name: &str, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
}

/// How long it takes to wait for the packets under way, in milliseconds.
fn waits(rounds: u32) -> Result<Vec<f64>> {
    let scale = Scale {
        services: 1,
        backends: 1,
        table_size: 1,
        flows: 1,
        listed: 0,
    };
    Namespace::new("bench")?.run(|| {
        let plane = Plane::open(Mode::L2, Family::V4, scale)?;
        let wait = || tables::milliseconds(|| plane.wait_for_packets_in_flight());
        (0..rounds).map(|_| wait()).collect()
    })
}

fn run(
    mode: Mode,
    family: Family,
    cases: &[Case],
    plan: Plan,
    report: &mut Report,
    memory: &mut Memory,
) -> Result<()> {
    stay_here()?;
    let mut wrapper = Wrapper::open(plan.scale)?;
    let mut plane = Plane::open(mode, family, plan.scale)?;
    let size = plane.program_size()?;
    ensure!(
        size.jitted_bytes.is_some(),
        "the kernel interprets BPF here: `sysctl -w net.core.bpf_jit_enable=1`"
    );
    report.program = Some(size);
    for &case in cases {
        memory.measure()?;
        let measured = measure(&mut plane, &mut wrapper, case, plan)?;
        let median = measured.summary().program.median;
        let rounds = report.add(measured);
        eprintln!("{:<28} {median:>7.1} ns, {rounds} rounds", case.name());
    }
    Ok(())
}

/// Stays on the CPU that this thread is on: caches and per-CPU maps are then those of one.
fn stay_here() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu()?)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("cannot stay on one CPU")
}
