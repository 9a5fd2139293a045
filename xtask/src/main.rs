//! `cargo xtask`: the command line of [`xtask`].

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::build::{self, Profile};
use xtask::setup::{kernels, vm::Update};
use xtask::{bench, demo, fuzz, lab, root, setup, test, vm};

/// Work on xdp-lb: set a machine up, build, test.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Get what this machine lacks to build and run xdp-lb, into the user's cache folder.
    Setup,
    /// Build xdp-lb with its XDP program.
    Build {
        /// Optimise.
        #[arg(long)]
        release: bool,
    },
    /// Run unit tests, then integration tests (as root, through sudo where needed).
    Test {
        /// Parts of test names; all tests when there is none.
        filters: Vec<String>,
        /// Take a skipped test for an error; the same as CI=true in the environment.
        #[arg(long)]
        ci: bool,
    },
    /// Run the prog-run tests on other kernels, in virtual machines; x86_64 only. Fetches qemu and
    /// the kernels at the first time.
    Vm {
        /// Parts of test names; all tests when there is none.
        filters: Vec<String>,
        /// A kernel; may be repeated. Without it, all but the one of sid.
        #[arg(long = "kernel", value_name = "KERNEL", value_parser = kernels::names())]
        kernels: Vec<String>,
        /// Look for newer kernels than those in the cache.
        #[arg(long)]
        update: bool,
        /// Take a skipped test for an error; the same as CI=true in the environment.
        #[arg(long)]
        ci: bool,
    },
    /// Measure how long things take on this machine: lookup tables, and the XDP program per packet.
    Bench(bench::Options),
    /// Feed parsers what libFuzzer thinks up; takes a C++ compiler.
    Fuzz(fuzz::FuzzArgs),
    /// Show on real traffic in network namespaces what xdp-lb does; takes about a minute.
    Demo(demo::DemoArgs),
    /// Make network namespaces with a client, a router, directors and backends, and work in them.
    Lab(lab::cli::LabArgs),
}

fn main() -> ExitCode {
    // Not by returning the error: that prints a backtrace where RUST_BACKTRACE is set for the tests.
    run(Arguments::parse().task).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Setup => setup::run()?.print(),
        Task::Build { release } => {
            let profile = if release {
                Profile::Release
            } else {
                Profile::Debug
            };
            println!("{}", build::run(profile)?.binary.display());
        }
        Task::Test { filters, ci } => {
            if !test::run(&test::Options { filters, ci })? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Vm {
            filters,
            kernels,
            update,
            ci,
        } => {
            let update = if update { Update::Look } else { Update::Keep };
            let options = vm::Options {
                kernels,
                filters,
                ci,
                update,
            };
            if !vm::run(&options)? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Bench(options) => bench::run(&options)?,
        Task::Fuzz(arguments) => return fuzz::run(&arguments),
        Task::Demo(arguments) => return demo::run(arguments),
        Task::Lab(arguments) => {
            root::ensure("a lab is made of network namespaces")?;
            return lab::cli::run(arguments);
        }
    }
    Ok(ExitCode::SUCCESS)
}
