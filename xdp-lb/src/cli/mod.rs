//! The command line: `xdp-lb run` starts the daemon; everything else is a client of its API.

mod check;
mod commands;
mod decap;
mod flows;
mod health;
mod tables;
mod vrrp;

use std::{net::IpAddr, num::NonZeroU8, path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    config::{self, ConfigError},
    daemon::{self, RunOptions},
    dataplane::PinDirectory,
    director::{Paths, flows::FilterError},
};

/// Where the daemon listens where nobody asks for another place.
const SOCKET: &str = "/run/xdp-lb/xdp-lb.sock";
/// Where run-time changes are kept where nobody asks for another place.
const STATE: &str = "/var/lib/xdp-lb";
/// Where the config file is where nobody names one.
const CONFIG: &str = "/etc/xdp-lb/config.yaml";

/// Exit code of a wrong command line or config.
const WRONG_USAGE: u8 = 2;

/// A layer-4 load balancer for Linux that works in XDP.
///
/// `xdp-lb run` is the daemon. The other commands talk to it, and their changes take effect on the
/// next packet and survive a restart.
///
/// Exit codes: 0 done; 1 failed; 2 wrong usage or config.
#[derive(Debug, Parser)]
#[command(name = "xdp-lb", version, propagate_version = true)]
struct Arguments {
    /// UNIX socket of the daemon.
    #[arg(long, global = true, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,

    /// Print JSON, for programs.
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: attach to the interfaces and balance.
    ///
    /// Packets go on flowing when it stops, crashes or is upgraded; `xdp-lb detach` ends that.
    Run(Run),
    /// Show what runs, and where.
    Status,
    /// Show services.
    #[command(subcommand)]
    Service(Service),
    /// Show and change backends.
    #[command(subcommand)]
    Backend(Backend),
    /// Show what health checks tell, and check a backend now.
    #[command(subcommand)]
    Health(Health),
    /// Show, count and forget the flows that are remembered.
    ///
    /// With `connection_tracking: adaptive`, the default, flows are remembered only on slots that have moved; with
    /// `full` all are. A flow is remembered by a part of its hash: of its addresses and ports the table does not know,
    /// but one flow can be looked up by all of them.
    #[command(subcommand)]
    Flow(flows::Flow),
    /// Show virtual routers, and have them give way.
    #[command(subcommand)]
    Vrrp(Vrrp),
    /// Show the counters: every verdict and every reason for it.
    Stats {
        /// Show rates, anew each second, until interrupted.
        #[arg(long, conflicts_with = "json")]
        watch: bool,
        /// Show the counters that are zero too.
        #[arg(long)]
        all: bool,
    },
    /// Check a config file, or have the daemon read its own again.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Take program and pins away and end the daemon; traffic to VIPs goes to the kernel.
    Detach {
        /// Where maps and links are pinned, where no daemon is running to tell.
        #[arg(long, value_name = "DIR", default_value = PinDirectory::DEFAULT)]
        pin_dir: PathBuf,
    },
    /// On a backend: take packets out of the directors' tunnels (`ipip`, `gue`).
    ///
    /// For backends whose kernels have no such tunnels. Works without a daemon, and on without a
    /// process: the program stays attached until `--detach`. Called again it replaces the program in
    /// place; the counters go on.
    Decap(decap::Decap),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Vrrp {
    /// Show all virtual routers.
    List,
    /// Show one with its addresses and counters.
    Show {
        /// Its name.
        name: String,
    },
    /// Lower its priority until `promote`, also after a restart.
    Demote {
        /// Its name.
        name: String,
        /// By how much.
        #[arg(long, value_name = "N", default_value = "100")]
        by: NonZeroU8,
    },
    /// Take no part until `promote`, also after a restart.
    Pause {
        /// Its name.
        name: String,
    },
    /// Undo `demote` and `pause`.
    Promote {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The config file.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Where maps and links are pinned: a directory on a BPF file system.
    #[arg(long, value_name = "DIR", default_value = PinDirectory::DEFAULT)]
    pin_dir: PathBuf,
    /// Where run-time changes are kept.
    #[arg(long, value_name = "DIR", default_value = STATE)]
    state_dir: PathBuf,
    /// Take program and pins away when stopping.
    #[arg(long)]
    detach_on_exit: bool,
}

#[derive(Debug, Subcommand)]
enum Service {
    /// List all services.
    List,
    /// Show one service with its backends.
    Show {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Subcommand)]
enum Backend {
    /// List the backends of a service, or of all.
    List {
        /// Name of the service.
        service: Option<String>,
    },
    /// Add a backend; a part of the slots of the others moves to it.
    Add {
        #[command(flatten)]
        of: BackendOf,
        /// Its share, relative to the other backends' weights [default: 100].
        #[arg(long)]
        weight: Option<u32>,
    },
    /// Change a backend's weight.
    Set {
        #[command(flatten)]
        of: BackendOf,
        /// Its share, relative to the other backends' weights; 0: no new connections.
        #[arg(long)]
        weight: u32,
    },
    /// Send a backend no new connections; the running ones go on.
    Drain(BackendOf),
    /// Send a backend new connections again.
    Enable(BackendOf),
    /// Take a backend away; its connections break. Drain it first.
    Remove(BackendOf),
}

#[derive(Debug, Subcommand)]
enum Health {
    /// List the backends of a service, or of all: state, since when, last cause, latency.
    List {
        /// Name of the service.
        service: Option<String>,
    },
    /// Show all that is known of one backend, with its history.
    Show {
        /// Address of the backend.
        backend: IpAddr,
    },
    /// Wait for the next result of a backend's checks.
    Check {
        /// Address of the backend.
        backend: IpAddr,
        /// The checks of this service only.
        #[arg(long)]
        service: Option<String>,
        /// Run them at once, instead of waiting for their turn.
        #[arg(long)]
        now: bool,
    },
}

#[derive(Debug, clap::Args)]
struct BackendOf {
    /// Name of the service.
    service: String,
    /// Address of the backend.
    address: IpAddr,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check a config file without touching anything.
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Have the daemon read its config file again; SIGHUP does the same.
    Reload,
}

/// Parses the arguments, does what they ask for, and tells how it went.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Command::Completions { shell } = arguments.command {
        return completions(shell);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn completions(shell: Shell) -> ExitCode {
    use std::io::Write as _;

    // Not straight to standard output: the generator panics where that is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "xdp-lb", &mut script);
    match std::io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error.into()),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // A reader that has seen enough (`xdp-lb … | head`) is no failure.
    if let Some(io) = error.downcast_ref::<std::io::Error>()
        && io.kind() == std::io::ErrorKind::BrokenPipe
    {
        return ExitCode::SUCCESS;
    }
    eprintln!("xdp-lb: {error:#}");
    if error.is::<ConfigError>() || error.is::<FilterError>() {
        ExitCode::from(WRONG_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments {
        socket,
        json,
        command,
    } = arguments;
    match command {
        Command::Run(run) => {
            init_log();
            let config = config::load(&run.config)?;
            let paths = Paths {
                config: run.config,
                pins: PinDirectory::new(run.pin_dir),
                state: run.state_dir,
            };
            let detach_on_exit = run.detach_on_exit;
            daemon::run(
                RunOptions {
                    paths,
                    socket,
                    detach_on_exit,
                },
                config,
            )
            .await
        }
        Command::Config(ConfigCommand::Check { file }) => check::check(&file, json),
        Command::Decap(decap) => decap::run(decap, json),
        command => commands::Session::new(socket, json).run(command).await,
    }
}

/// To standard error, as systemd and people expect it; `RUST_LOG` chooses what.
fn init_log() {
    use std::io::IsTerminal as _;

    use tracing_subscriber::EnvFilter;

    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // The journal has its own times.
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        log.without_time().init();
    } else {
        log.init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_makes_sense() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn global_options_go_before_and_after_the_command() {
        for words in [
            ["xdp-lb", "--json", "--socket", "/s", "backend", "list"],
            ["xdp-lb", "backend", "list", "--socket", "/s", "--json"],
        ] {
            let arguments = Arguments::try_parse_from(words).unwrap();
            assert!(arguments.json);
            assert_eq!(arguments.socket, PathBuf::from("/s"));
        }
    }

    #[test]
    fn a_backend_needs_an_address() {
        for words in [
            &["xdp-lb", "backend", "add", "web"][..],
            &["xdp-lb", "backend", "add", "web", "10.0.0.300"],
            &["xdp-lb", "backend", "set", "web", "10.0.0.1"],
            &[
                "xdp-lb", "backend", "add", "web", "10.0.0.1", "--weight", "-1",
            ],
        ] {
            assert_eq!(
                Arguments::try_parse_from(words).unwrap_err().exit_code(),
                2,
                "{words:?}"
            );
        }
    }
}
