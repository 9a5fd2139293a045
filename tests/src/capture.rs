//! What is on an interface of a lab, as tshark decodes it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::lab::{Host, Process, wait_for};
use xtask::setup::Tools;

/// How long tshark may take to begin, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Captures on an interface of a host.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

impl Capture {
    /// Captures what a filter lets through (as tcpdump has them) until it is stopped; returns when it has begun. Its
    /// files are in `dir`, under the names of host and interface.
    pub fn start(host: &Host, interface: &str, filter: &str, dir: &Path) -> Result<Self> {
        let file = dir.join(format!("{}-{interface}.pcapng", host.name()));
        let log = file.with_extension("log");
        let mut command = Tools::new()?.command("tshark")?;
        command.args(["-i", interface, "-f", filter, "-w"]);
        command.arg(&file);
        let process = Process::start(host.namespace(), &mut command, &log)?;
        wait_for("tshark to capture", PATIENCE, || {
            // The file is made once the interface is open.
            Ok(file.exists().then_some(()))
        })
        .with_context(|| process.log_tail())?;
        Ok(Self { process, file })
    }

    /// Ends the capture: all that has come until now is in the file.
    pub fn stop(&mut self) -> Result<()> {
        self.process.terminate(PATIENCE)?;
        Ok(())
    }

    /// The layers of each packet that was captured, decoded with tshark's `options`. While it captures, the newest
    /// may be missing, and it is an error if one is half written.
    pub fn packets(&self, options: &[&str]) -> Result<Vec<Value>> {
        let mut command = Tools::new()?.command("tshark")?;
        command.args(options);
        command.args(["-T", "json", "--no-duplicate-keys", "-r"]);
        let output = command.arg(&self.file).output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let packets: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        let layers = packets
            .into_iter()
            .map(|it| it["_source"]["layers"].clone());
        Ok(layers.collect())
    }
}
