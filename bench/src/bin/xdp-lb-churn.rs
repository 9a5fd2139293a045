//! Runs the churn experiment and writes the report as JSON to stdout; `cargo xtask bench churn` shows it.

use std::io::{IsTerminal as _, Write as _, stderr};

use anyhow::Result;
use clap::Parser;
use xdp_lb_bench::churn::{Plan, run};

/// Connections under backends that come, go, drain and flap, as JSON.
#[derive(Parser)]
struct Arguments {
    /// Few connections and little time: shows that it works.
    #[arg(long)]
    quick: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let plan = if arguments.quick {
        Plan::QUICK
    } else {
        Plan::THOROUGH
    };
    let is_watched = stderr().is_terminal();
    let report = run(&plan, |second| {
        if is_watched && second % 10 == 0 {
            let _ = write!(stderr(), "\r{second} of {} virtual seconds", plan.seconds);
        }
    })?;
    if is_watched {
        eprintln!();
    }
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}
