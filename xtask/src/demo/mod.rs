//! `cargo xtask demo`: shows a newcomer, on real traffic in a lab, what xdp-lb does.
//!
//! Every step checks what it shows; the first that does not hold ends the demo with an error. The
//! lab goes with the process, however that ends.

mod changes;
mod crash;
mod failover;
mod failure;
mod picture;
mod screen;
mod speed;
mod stage;
mod traffic;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use self::screen::Screen;
use self::stage::Stage;
use crate::build::{self, Profile};
use crate::interrupt;
use crate::root;

/// What the demo is told on the command line.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// The daemon [default: built first]
    #[arg(long, value_name = "FILE")]
    bin: Option<PathBuf>,
}

/// Builds, becomes root where needed, and shows everything.
pub fn run(args: DemoArgs) -> Result<ExitCode> {
    let program = match args.bin {
        Some(program) => program,
        None => build::run(Profile::Debug)?.binary,
    };
    if !root::is_root() {
        return run_as_root(&program);
    }
    let begun = Instant::now();
    let screen = Screen::new();
    interrupt::watch()?;
    let stage = screen.work("building the lab and starting nginx and the daemon", || {
        Stage::new(&program)
    })?;
    picture::show(&screen, &stage);
    traffic::show(&screen, &stage)?;
    changes::show(&screen, &stage)?;
    let mut stage = crash::show(&screen, stage)?;
    failure::show(&screen, &mut stage)?;
    speed::show(&screen, &stage)?;
    screen.work("taking the lab away", || stage.end())?;
    failover::show(&screen, &program)?;
    screen.end(begun.elapsed());
    Ok(ExitCode::SUCCESS)
}

/// Once more, as root: what was built is named, since cargo must not run as root for another user.
fn run_as_root(program: &Path) -> Result<ExitCode> {
    let this = env::current_exe().context("cannot find the path of this program")?;
    let why = "the demo makes network namespaces and attaches an XDP program in one";
    let mut command = root::command(&this, &[], why)?;
    let status = command.arg("demo").arg("--bin").arg(program).status();
    let status = status.context("cannot run sudo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
