//! One virtual machine under software emulation: from its start to what its tests end with.
//!
//! The kernel's console goes to a file. The tests have the second serial port, which is relayed line
//! by line, between two marks that the machine's first script prints.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{child, test};

/// In front of the kernel's release, when the tests begin.
pub(super) const BEGIN: &str = "xdp-lb-vm: begin ";
/// In front of the tests' exit code.
pub(super) const EXIT: &str = "xdp-lb-vm: exit ";

/// How long a kernel may take to come up. It takes a few seconds; a busy machine takes longer.
const COMING_UP: Duration = Duration::from_secs(40);
/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(1200);
/// How often a kernel that does not come up is started again: under emulation one boot in ten of
/// Debian's 6.12 dies early.
const ATTEMPTS: usize = 3;
/// How much of the console is shown when a machine dies.
const TAIL_LINES: usize = 15;

/// What to start.
pub(super) struct Machine<'a> {
    /// What lines about it begin with.
    pub(super) name: &'a str,
    /// The words of a command that runs qemu.
    pub(super) qemu: Vec<OsString>,
    /// The kernel.
    pub(super) image: PathBuf,
    /// Its file system.
    pub(super) initramfs: &'a Path,
    /// Where to write what the kernel says.
    pub(super) console: &'a Path,
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The tests ended with this exit code.
    Exit(i32),
    /// The machine ended, or its time did; why, and the line that was being written.
    Died { why: String, line: String },
    /// It did not come up; why.
    NotUp(String),
}

impl Machine<'_> {
    /// Runs the machine, and once more where it does not come up; hands on each line of the tests.
    pub(super) fn run(&self, mut take: impl FnMut(&str)) -> Result<End> {
        let mut attempt = 1;
        loop {
            let end = self.boot(&mut take)?;
            let End::NotUp(why) = &end else {
                return Ok(end);
            };
            println!("{}: {why} (attempt {attempt} of {ATTEMPTS})", self.name);
            if attempt == ATTEMPTS {
                return Ok(end);
            }
            attempt += 1;
        }
    }

    /// The last lines that the kernel wrote; all of them are in the file.
    pub(super) fn last_words(&self) -> String {
        let text = fs::read(self.console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).replace('\r', "");
        let lines: Vec<&str> = text.trim_end().lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn boot(&self, take: &mut impl FnMut(&str)) -> Result<End> {
        // An old console would mislead.
        File::create(self.console)
            .with_context(|| format!("cannot write {}", self.console.display()))?;
        let mut running = Running::start(&mut self.command()?)?;
        let end = follow(self.name, &running.lines, Instant::now(), take);
        running.kill();
        Ok(match end {
            // The name of the test that was running may have had no end of line until now.
            End::Died { why, line } => End::Died {
                why,
                line: running.lines.iter().last().unwrap_or(line),
            },
            end => end,
        })
    }

    fn command(&self) -> Result<Command> {
        let (program, words) = self.qemu.split_first().context("no command for qemu")?;
        let mut command = Command::new(program);
        command
            .args(words)
            .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-smp", "2", "-m", "512"])
            .args(["-nodefaults", "-no-reboot", "-display", "none"])
            .arg("-serial")
            .arg(format!("file:{}", self.console.display()))
            .args(["-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(self.initramfs)
            // A kernel that panics reboots at once, which ends qemu. Tests wait for grace periods often.
            .arg("-append")
            .arg("console=ttyS0 quiet panic=-1 mitigations=off rcupdate.rcu_expedited=1");
        Ok(command)
    }
}

/// A qemu, killed when dropped, and by the kernel when the thread ends that started it.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        child::die_with_parent(command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let lines = test::lines(&mut child)?;
        Ok(Self { child, lines })
    }

    fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A line that the machine's script prints about the tests.
#[derive(Debug, PartialEq, Eq)]
enum Mark<'a> {
    Begin(&'a str),
    Exit(i32),
}

impl<'a> Mark<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let exit = || line.strip_prefix(EXIT)?.parse().ok().map(Self::Exit);
        line.strip_prefix(BEGIN).map(Self::Begin).or_else(exit)
    }
}

/// Hands lines on until the second mark, the end of the machine or that of its time.
fn follow(
    name: &str,
    lines: &Receiver<String>,
    started: Instant,
    take: &mut impl FnMut(&str),
) -> End {
    let mut up = false;
    let mut last = String::new();
    loop {
        let limit = if up { LIMIT } else { COMING_UP };
        let left = limit.saturating_sub(started.elapsed());
        let why = match lines.recv_timeout(left) {
            Ok(line) => {
                // The serial port is a terminal to the machine.
                let line = line.trim_end_matches('\r');
                match Mark::parse(line) {
                    Some(Mark::Begin(release)) => {
                        up = true;
                        let time = started.elapsed().as_secs_f32();
                        println!("{name}: Linux {release} came up in {time:.1} s");
                    }
                    Some(Mark::Exit(code)) => return End::Exit(code),
                    None if up => {
                        take(line);
                        line.clone_into(&mut last);
                    }
                    None => {}
                }
                continue;
            }
            Err(RecvTimeoutError::Timeout) if up => {
                format!("the tests did not end within {} s", limit.as_secs())
            }
            Err(RecvTimeoutError::Timeout) => {
                format!("the kernel did not come up within {} s", limit.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) if up => {
                "the machine ended before its tests did".to_owned()
            }
            Err(RecvTimeoutError::Disconnected) => "the machine ended before it came up".to_owned(),
        };
        return if up {
            End::Died { why, line: last }
        } else {
            End::NotUp(why)
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// What is handed on of these lines, and how it ends when the machine ends after them.
    fn read(lines: &[&str]) -> (Vec<String>, End) {
        let (sender, receiver) = mpsc::channel();
        for &line in lines {
            sender.send(line.to_owned()).unwrap();
        }
        drop(sender);
        let mut taken = Vec::new();
        let end = follow("6.1", &receiver, Instant::now(), &mut |line: &str| {
            taken.push(line.to_owned());
        });
        (taken, end)
    }

    #[test]
    fn lines_between_the_marks_are_handed_on() {
        let begin = "xdp-lb-vm: begin 5.10.0-46\r";
        let (taken, end) = read(&[
            "SeaBIOS",
            begin,
            "test a ... ok\r",
            "",
            "xdp-lb-vm: exit 101\r",
            "late",
        ]);
        assert_eq!(taken, ["test a ... ok", ""]);
        assert_eq!(end, End::Exit(101));
    }

    /// Runs a shell script in the place of qemu, with `$0` for a file of its own.
    fn run_script(name: &str, script: &str) -> (Vec<String>, End) {
        let folder = std::env::temp_dir().join(format!("xtask-vm-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let own = folder.join("own").into_os_string();
        let machine = Machine {
            name,
            qemu: vec!["sh".into(), "-c".into(), script.into(), own],
            image: "vmlinuz".into(),
            initramfs: Path::new("cpio"),
            console: &folder.join("console"),
        };
        let mut taken = Vec::new();
        let end = machine.run(|line| taken.push(line.to_owned())).unwrap();
        fs::remove_dir_all(folder).unwrap();
        (taken, end)
    }

    #[test]
    fn a_kernel_that_does_not_come_up_is_started_again() {
        let (taken, end) = run_script(
            "again",
            "echo x >>\"$0\"; [ $(wc -l <\"$0\") -lt 3 ] && exit 1\n\
             echo 'xdp-lb-vm: begin 6.12'; echo 'test a ... ok'; echo 'xdp-lb-vm: exit 0'\n",
        );
        assert_eq!(
            (taken, end),
            (vec!["test a ... ok".to_owned()], End::Exit(0))
        );
        let (taken, end) = run_script("never", "exit 1\n");
        assert!(taken.is_empty() && matches!(end, End::NotUp(_)), "{end:?}");
    }

    #[test]
    fn a_machine_that_dies_names_the_test_that_was_running() {
        let (_, end) = run_script(
            "dies",
            "echo 'xdp-lb-vm: begin 6.12'; printf 'test a::b ... '\n",
        );
        assert!(
            matches!(&end, End::Died { line, .. } if line == "test a::b ... "),
            "{end:?}"
        );
    }

    #[test]
    fn a_machine_without_its_second_mark_has_died_and_one_without_the_first_is_not_up() {
        let (taken, end) = read(&["xdp-lb-vm: begin 6.1.0-56", "test a ... ok"]);
        assert_eq!(taken, ["test a ... ok"]);
        assert!(matches!(end, End::Died { .. }), "{end:?}");
        let (taken, end) = read(&["some firmware", "xdp-lb-vm: exit many"]);
        assert!(taken.is_empty());
        assert!(matches!(end, End::NotUp(_)), "{end:?}");
    }
}
