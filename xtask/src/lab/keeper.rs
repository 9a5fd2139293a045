//! The background process that owns a lab between `lab up` and `lab down`.
//!
//! `up` starts this program again as the keeper, waits until the registry says that the lab is
//! ready, and leaves. Until then the keeper dies with `up`, so that an interrupt leaves nothing.

use std::collections::HashSet;
use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid, setsid};
use tokio::signal::unix::{SignalKind, signal};

use super::client::new_runtime;
use super::namespace::ns_path;
use super::process::{tail, wait_for};
use super::registry::{self, Kind, LabState, Owner};
use super::{Director, Farm, Forwarding, HttpServer, Lab, LabConfig};

const UP_PATIENCE: Duration = Duration::from_secs(60);
const DOWN_PATIENCE: Duration = Duration::from_secs(15);

/// What `lab up` builds.
#[derive(Clone, Debug, Args)]
pub struct UpArgs {
    /// The lab's name
    #[arg(long, default_value = "default")]
    pub name: String,
    /// How many backends, each with an nginx
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub backends: usize,
    /// How many directors; the daemon is started on the first
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub directors: usize,
    /// Where the backends are
    #[arg(long, value_enum, default_value_t)]
    pub farm: Farm,
    /// The VLAN tag of packets on the cable of the directors' eth0
    #[arg(long, value_name = "VLAN")]
    pub tag: Option<u16>,
    /// How packets get to the backends; with a tunnel they run `xdp-lb decap`
    #[arg(long, value_enum, default_value_t)]
    pub forwarding: Forwarding,
    /// The daemon's config file [default: a service on the VIP with every backend]
    #[arg(long, value_name = "FILE")]
    pub director_config: Option<PathBuf>,
    /// The daemon [default: the xdp-lb beside this program]
    #[arg(long, value_name = "FILE")]
    pub bin: Option<PathBuf>,
    /// Start no daemon
    #[arg(long, conflicts_with_all = ["bin", "director_config", "forwarding"])]
    pub no_director: bool,
}

impl UpArgs {
    fn to_command_line(&self) -> Result<Vec<std::ffi::OsString>> {
        let mut line: Vec<std::ffi::OsString> = vec![
            "lab".into(),
            "keep".into(),
            format!("--name={}", self.name).into(),
            format!("--backends={}", self.backends).into(),
            format!("--directors={}", self.directors).into(),
            format!("--farm={}", word(&self.farm)).into(),
        ];
        if let Some(tag) = self.tag {
            line.push(format!("--tag={tag}").into());
        }
        for (option, file) in [
            ("--director-config", &self.director_config),
            ("--bin", &self.bin),
        ] {
            if let Some(file) = file {
                let found = file.canonicalize();
                let path = found.with_context(|| format!("cannot find {}", file.display()))?;
                line.extend([option.into(), path.into_os_string()]);
            }
        }
        if self.no_director {
            line.push("--no-director".into());
        } else {
            line.push(format!("--forwarding={}", word(&self.forwarding)).into());
        }
        Ok(line)
    }
}

/// A value as it stands on a command line.
fn word(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |it| it.get_name().to_owned())
}

/// Starts a keeper and waits until its lab is ready.
pub fn up(args: &UpArgs) -> Result<LabState> {
    if registry::labs()?.0.iter().any(|lab| lab.name == args.name) {
        bail!(registry::taken(&args.name));
    }
    let log = registry::keeper_log(&args.name)?;
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    // Opened now: another lab command may remove it with the remains of a lab that failed.
    let written = File::open(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let errors = output
        .try_clone()
        .context("cannot share the keeper's log")?;
    let mut command = Command::new(env::current_exe().context("cannot find this program")?);
    command.args(args.to_command_line()?).current_dir("/");
    // The end of the log is shown when it fails, and must be the error, not where it arose.
    command.env("RUST_LIB_BACKTRACE", "0");
    command.stdin(Stdio::null()).stdout(output).stderr(errors);
    let parent = Pid::this();
    // SAFETY: the closure makes system calls only; it neither allocates nor takes a lock.
    unsafe { command.pre_exec(move || leave_the_terminal(parent)) };
    let mut keeper = command.spawn().context("cannot start the keeper")?;

    let outcome = wait_until_ready(&args.name, &mut keeper)
        .map_err(|error| anyhow!("{error:#}; {}", tail(&log, written)));
    if outcome.is_err() {
        // A keeper that still tries dies with this process.
        registry::clear(&args.name)?;
    }
    outcome
}

fn wait_until_ready(name: &str, keeper: &mut Child) -> Result<LabState> {
    let pid = i32::try_from(keeper.id()).context("process id out of range")?;
    wait_for(&format!("the lab {name} to come up"), UP_PATIENCE, || {
        if let Some(status) = keeper.try_wait().context("cannot wait for the keeper")? {
            bail!("the lab {name} did not come up: its keeper ended ({status})");
        }
        let state = registry::read(name).ok();
        Ok(state.filter(|state| state.ready && state.owner.pid == pid))
    })
}

/// Between fork and exec: out of the terminal's reach, but not out of the parent's yet.
fn leave_the_terminal(parent: Pid) -> io::Result<()> {
    setsid()?;
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    if getppid() == parent {
        Ok(())
    } else {
        Err(io::ErrorKind::BrokenPipe.into())
    }
}

/// The keeper: builds the lab and holds it until SIGTERM.
pub(super) fn keep(args: UpArgs) -> Result<()> {
    let name = args.name.clone();
    new_runtime()?.block_on(async {
        let mut ended = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let built = tokio::task::spawn_blocking(move || KeptLab::build(&args));
        let mut kept = tokio::select! {
            built = built => built.context("the thread that builds the lab broke")??,
            _ = ended.recv() => {
                // The builder cannot be stopped half-way; the kernel takes away what it made.
                registry::forget(&name)?;
                std::process::exit(1);
            }
        };
        // From here on it lives without `up`. The setting belongs to this, the main thread.
        prctl::set_pdeathsig(None).context("cannot outlive the parent")?;
        kept.lab.set_ready()?;
        ended.recv().await;
        Ok(())
    })
}

/// Fields are dropped in this order.
struct KeptLab {
    _director: Option<Director>,
    _servers: Vec<HttpServer>,
    lab: Lab,
}

impl KeptLab {
    fn build(args: &UpArgs) -> Result<Self> {
        let config = LabConfig {
            name: Some(args.name.clone()),
            backends: args.backends,
            directors: args.directors,
            farm: args.farm,
            tag: args.tag,
            ..LabConfig::default()
        };
        let lab = Lab::begin(config, Kind::Kept)?;
        let servers = lab.start_all_http()?;
        let director = (!args.no_director)
            .then(|| start_director(&lab, args))
            .transpose()?;
        Ok(Self {
            _director: director,
            _servers: servers,
            lab,
        })
    }
}

fn start_director(lab: &Lab, args: &UpArgs) -> Result<Director> {
    let program = match &args.bin {
        Some(program) => program.clone(),
        None => env::current_exe()
            .context("cannot find this program")?
            .with_file_name("xdp-lb"),
    };
    let config = match &args.director_config {
        Some(file) => fs::read_to_string(file)
            .with_context(|| format!("cannot read the config {}", file.display()))?,
        None => lab.director_config(args.forwarding),
    };
    if args.forwarding != Forwarding::L2 {
        lab.decapsulate(&program)
            .context("cannot have the backends take packets out of tunnels")?;
    }
    lab.start_director(&program, &config)
        .context("cannot start the daemon; --no-director leaves it out")
}

/// Ends a lab that `up` made: its keeper, its hosts, and what was started in them.
pub fn down(lab: &LabState) -> Result<()> {
    let (name, owner) = (&lab.name, lab.owner);
    if lab.kind == Kind::Owned {
        bail!(
            "the lab {name} belongs to process {}, and goes when that ends",
            owner.pid
        );
    }
    // Found while the keeper holds the namespaces: later their numbers may mean others.
    let visitors = visitors(lab);
    end(owner, Signal::SIGTERM)?;
    let gone = |what: &str| {
        wait_for(
            what,
            DOWN_PATIENCE,
            || Ok((!owner.is_alive()).then_some(())),
        )
    };
    if gone("the keeper to end").is_err() {
        end(owner, Signal::SIGKILL)?;
        gone("the keeper to end after SIGKILL")?;
    }
    for visitor in visitors {
        end(visitor, Signal::SIGKILL)?;
    }
    registry::clear(name)
}

/// The processes in a lab's network namespaces, such as the shells of `lab exec`.
fn visitors(lab: &LabState) -> Vec<Owner> {
    let namespaces: HashSet<PathBuf> = lab
        .hosts
        .iter()
        .filter_map(|host| fs::read_link(ns_path(lab.owner.pid, host.tid, "net")).ok())
        .collect();
    let is_inside = |pid: &i32| {
        let namespace = fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns/net"));
        namespace.is_ok_and(|it| namespaces.contains(&it))
    };
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|item| item.ok()?.file_name().to_str()?.parse().ok())
        .filter(is_inside)
        .filter_map(Owner::of)
        .collect()
}

fn end(process: Owner, how: Signal) -> Result<()> {
    if !process.is_alive() {
        return Ok(());
    }
    match kill(Pid::from_raw(process.pid), how) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot end process {}", process.pid)),
    }
}
