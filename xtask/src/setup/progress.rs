//! Says what setup does: a live line on a terminal, plain lines elsewhere.

use std::fs::{self, File};
use std::io::{IsTerminal, stderr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// How much of a failed command's output is shown; the log has the rest.
const TAIL_LINES: usize = 15;

/// One thing that setup does, from its start until [`Step::done`].
pub(super) struct Step {
    name: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Says that it begins.
    pub(super) fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(name.clone());
            bar.set_style(style("{spinner} {msg} ({elapsed})"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        if bar.is_none() {
            eprintln!("{name} …");
        }
        Self {
            name,
            started: Instant::now(),
            bar,
        }
    }

    /// Shows how far a download has come.
    pub(super) fn bytes(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            if bar.length() != Some(total) {
                bar.set_length(total);
                bar.set_style(style(
                    "{spinner} {msg} {bar:30} {bytes}/{total_bytes} ({elapsed})",
                ));
            }
            bar.set_position(done);
        }
    }

    /// Says that it is over.
    pub(super) fn done(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        eprintln!(
            "{}: done in {:.1} s",
            self.name,
            self.started.elapsed().as_secs_f32()
        );
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        // An error message must not be painted over.
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// "117 MB", for messages.
pub(super) fn size(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// Runs a command with its output in the file `log`, whose end is in the error when it fails; `tick`
/// is called several times a second meanwhile.
pub(super) fn run(command: &mut Command, log: &Path, mut tick: impl FnMut()) -> Result<()> {
    let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        tick();
        std::thread::sleep(Duration::from_millis(50));
    };
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        bail!(
            "{command:?} failed ({status}); its last lines, all of them in {}:\n{}",
            log.display(),
            tail(&text)
        );
    }
    Ok(())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
