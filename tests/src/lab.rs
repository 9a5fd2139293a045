//! The daemon at work in a lab: nginx on every backend, real requests from the client.
//!
//! Nothing here asserts; tests say what must hold.

mod downloads;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

pub use self::downloads::{served, wait_until_all_go_on};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xtask::lab::{Director, Downloads, HttpServer, Lab, LabConfig, Process, Response, wait_for};

/// Long enough for everything that happens at once; not a statement about speed.
pub const SOON: Duration = Duration::from_secs(30);

/// The program under test: `XDP_LB_BIN`, or the `xdp-lb` that was built beside the tests.
///
/// # Panics
/// If this program has no path.
#[must_use]
pub fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("XDP_LB_BIN") {
        return path.into();
    }
    let this = std::env::current_exe().expect("a running program has a path");
    let folder = this.parent().and_then(Path::parent);
    folder.expect("target/debug/deps").join("xdp-lb")
}

/// The xtask that was built beside the tests.
pub fn xtask_program() -> Result<PathBuf> {
    let this = std::env::current_exe().context("a running program has a path")?;
    let folder = this.parent().and_then(Path::parent);
    let path = folder.context("no target folder")?.join("xtask");
    ensure!(
        path.is_file(),
        "no {}; `cargo build -p xtask` makes it",
        path.display()
    );
    Ok(path)
}

/// The address of backend `number`.
#[must_use]
pub fn address(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 10 + u8::try_from(number).unwrap_or(u8::MAX - 10))
}

/// A config with the service `web` on the VIP's port 80 and these backends, by their numbers.
#[must_use]
pub fn config(backends: RangeInclusive<usize>) -> String {
    let mut yaml = "interfaces: [eth0]\nservices:\n  - name: web\n    vip: 192.0.2.10\n    \
                    protocol: tcp\n    port: 80\n    backends:\n"
        .to_owned();
    for number in backends {
        let _ = writeln!(yaml, "      - {}", address(number));
    }
    yaml
}

/// A lab whose director balances.
#[derive(Debug)]
pub struct Rig {
    /// The daemon; first, so that it ends first.
    pub director: Director,
    /// The backends' servers, in the order of their numbers.
    pub servers: Vec<HttpServer>,
    /// The lab.
    pub lab: Lab,
}

impl Rig {
    /// A lab with `backends` backends, all of them in the config.
    pub fn new(backends: usize) -> Result<Self> {
        Self::with_config(backends, &config(1..=backends))
    }

    /// A lab with `backends` backends and this config; waits until every backend in it is active.
    pub fn with_config(backends: usize, config: &str) -> Result<Self> {
        Self::in_lab(Lab::new(LabConfig::with_backends(backends))?, config)
    }

    /// As [`Rig::with_config`], in a lab that was made, and perhaps changed, before.
    pub fn in_lab(lab: Lab, config: &str) -> Result<Self> {
        let servers = lab.start_all_http()?;
        let director = lab.start_director(&program(), config)?;
        let rig = Self {
            director,
            servers,
            lab,
        };
        rig.wait_until_active()?;
        Ok(rig)
    }

    /// Where the service `web` is.
    #[must_use]
    pub fn vip(&self) -> SocketAddr {
        (self.lab.vip(), 80).into()
    }

    /// Waits until no backend is unreachable.
    pub fn wait_until_active(&self) -> Result<()> {
        wait_for("all backends to be active", SOON, || {
            let backends = self.json(&["backend", "list"])?;
            let all = backends.as_array().context("not a list")?;
            let any_missing = all.iter().any(|it| it["state"] == "unreachable");
            Ok((!any_missing).then_some(()))
        })
    }

    /// Waits until backend `number` is in a state (`active`, `draining`, `down`, `standby`, `unreachable`), and
    /// its slots are as that state has it.
    pub fn wait_for_state(&self, number: usize, state: &str) -> Result<()> {
        let what = format!("backend{number} to be {state}");
        wait_for(&what, SOON, || {
            let backend = self.backend(number)?;
            let has_slots = backend["slots"].as_u64() > Some(0);
            let is_so = backend["state"] == state && has_slots == (state == "active");
            Ok(is_so.then_some(()))
        })
    }

    /// What `xdp-lb ARGS --json` answers.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.director.check(&[args, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{args:?} printed no JSON: {text}"))
    }

    /// `xdp-lb backend WHAT web ADDRESS MORE --json`.
    pub fn change(&self, what: &str, number: usize, more: &[&str]) -> Result<Value> {
        let address = address(number).to_string();
        self.json(&[&["backend", what, "web", &address], more].concat())
    }

    /// The row of backend `number` in `backend list --json`.
    pub fn backend(&self, number: usize) -> Result<Value> {
        let backends = self.json(&["backend", "list", "web"])?;
        let address = address(number).to_string();
        let all = backends.as_array().context("not a list")?;
        let found = all.iter().find(|it| it["address"] == *address);
        found
            .cloned()
            .with_context(|| format!("no backend {address} in {backends}"))
    }

    /// The value of a counter.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let stats = self.json(&["stats"])?;
        let all = stats["counters"].as_array().context("no counters")?;
        let found = all.iter().find(|it| it["name"] == name);
        found
            .and_then(|it| it["packets"].as_u64())
            .with_context(|| format!("no counter {name}"))
    }

    /// `count` requests through the VIP; fails if any of them does.
    pub fn get(&self, count: usize) -> Result<Vec<Response>> {
        self.get_at_most(count, 32)
    }

    /// As [`Rig::get`], with at most `concurrency` at once.
    pub fn get_at_most(&self, count: usize, concurrency: usize) -> Result<Vec<Response>> {
        let client = self.lab.client();
        let mut responses = Vec::with_capacity(count);
        // In parts, so that a service that does not answer is noticed soon.
        while responses.len() < count {
            let part = (count - responses.len()).min(500);
            for result in client.get_many(self.vip(), "/", part, concurrency) {
                responses.push(result?);
            }
        }
        let odd = responses.iter().find(|it| it.status != 200);
        ensure!(odd.is_none(), "not a good answer: {odd:?}");
        Ok(responses)
    }

    /// How many of `count` requests each backend answers.
    pub fn shares(&self, count: usize) -> Result<BTreeMap<String, usize>> {
        let mut shares = BTreeMap::new();
        for response in self.get(count)? {
            *shares
                .entry(response.backend.context("no backend named")?)
                .or_default() += 1;
        }
        Ok(shares)
    }

    /// Why a request through the VIP fails.
    ///
    /// # Panics
    /// If it does not fail.
    #[must_use]
    pub fn failure(&self) -> String {
        let outcome = self.lab.client().get(self.vip(), "/");
        format!("{:#}", outcome.expect_err("the request was answered"))
    }

    /// Starts `count` downloads, slow enough to outlast a test, and waits until all run.
    pub fn download(&self, count: usize) -> Result<Downloads> {
        let client = self.lab.client();
        let downloads = client.download(self.vip(), "/download?rate=200k", count)?;
        downloads.wait_until_running(SOON)?;
        Ok(downloads)
    }

    /// Whether the XDP program is attached to the director's interface.
    pub fn is_attached(&self) -> Result<bool> {
        let link = self.director.host().ip(&["link", "show", "dev", "eth0"])?;
        Ok(link.contains("xdp"))
    }

    /// What is pinned in the director's bpffs.
    #[must_use]
    pub fn pins(&self) -> Vec<String> {
        let dir = self.director.pin_dir();
        let entries = self.director.host().run(|| std::fs::read_dir(dir));
        let entries = entries.into_iter().flatten().flatten();
        entries
            .map(|it| it.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// The command line of a further daemon on the director, with its own state and socket.
    #[must_use]
    pub fn run_command(&self, name: &str, pin_dir: &Path) -> Command {
        let mut command = Command::new(program());
        command
            .arg("run")
            .arg("--config")
            .arg(self.director.config());
        command
            .arg("--socket")
            .arg(self.file(&format!("{name}.sock")));
        command.arg("--pin-dir").arg(pin_dir);
        command
            .arg("--state-dir")
            .arg(self.file(&format!("{name}.state")));
        command
    }

    /// Starts such a daemon and waits until it can be asked.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<Process> {
        let log = self.file(&format!("{name}.log"));
        let mut process = Process::start(self.director.host().namespace(), command, &log)?;
        wait_for("the daemon to listen", SOON, || {
            if let Some(status) = process.exited()? {
                bail!("the daemon ended: {status}; {}", process.log_tail());
            }
            Ok(std::fs::read_to_string(&log)?
                .contains("listening")
                .then_some(()))
        })?;
        Ok(process)
    }

    /// Runs a command on the director to its end.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        self.director.host().namespace().output(command)
    }

    /// A path in the lab's folder.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.lab.dir().join(name)
    }

    /// Sends SIGHUP to the daemon.
    pub fn hang_up(&self) -> Result<()> {
        let pid = self.director.pid().context("the daemon is stopped")?;
        let status = Command::new("sh")
            .args(["-c", "kill -HUP \"$0\"", &pid.to_string()])
            .status()?;
        ensure!(status.success(), "kill: {status}");
        Ok(())
    }

    /// One HTTP call over the daemon's socket; returns the status line with headers, and the body.
    pub fn call(&self, method: &str, path: &str, body: &str) -> Result<(String, String)> {
        let mut stream = UnixStream::connect(self.director.socket())?;
        stream.set_read_timeout(Some(SOON))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: xdp-lb\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("half an answer")?;
        Ok((head.to_owned(), body.to_owned()))
    }
}

/// Standard error of a command that ended, as text.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
