//! Network namespaces without a name: each lives as long as one thread of this process.
//!
//! The thread unshares the network and the mount namespace, mounts a `/sys` that shows its own
//! interfaces and a private bpffs on `/sys/fs/bpf`, and then does whatever [`Namespace::run`]
//! hands it. Nothing is bound anywhere in the file system, so the kernel takes the namespace, its
//! interfaces and its mounts away when the thread ends, however it ends.
//!
//! Knows nothing about hosts, addresses or servers.

use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};

use crate::child;

type Job = Box<dyn FnOnce() + Send>;

/// A network namespace with a mount namespace to go with it, held by a thread of its own.
///
/// Dropping it ends the thread, kills what was started with [`Namespace::spawn`] and frees the
/// namespace once the last thread and process in it are gone.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    tid: Pid,
    /// `None` only while dropping.
    jobs: Option<mpsc::Sender<Job>>,
    /// `None` only while dropping.
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// Makes a namespace with nothing in it but a loopback that is still down.
    ///
    /// `name` appears in errors and as the thread's name. Needs root.
    pub fn new(name: &str) -> Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (ready, entered) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // A failed send means that `new` is gone, and with it the job channel.
                let _ = ready.send(enter().map(|()| gettid()));
                for job in inbox {
                    job();
                }
            })
            .with_context(|| format!("cannot start the thread of namespace {name}"))?;
        let tid = entered
            .recv()
            .with_context(|| format!("the thread of namespace {name} ended early"))?
            .with_context(|| format!("cannot make namespace {name}; it takes root"))?;
        Ok(Self {
            name: name.to_owned(),
            tid,
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// The name given to [`Namespace::new`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The kernel's id of the thread that holds the namespace.
    pub fn tid(&self) -> i32 {
        self.tid.as_raw()
    }

    /// A path that leads to the network namespace for as long as it lives, from any process.
    pub fn net_path(&self) -> PathBuf {
        ns_path(Pid::this().as_raw(), self.tid(), "net")
    }

    /// Runs `work` on the namespace's thread and waits for its value.
    ///
    /// Sockets opened, files below `/sys` or `/proc/sys` read and threads started in `work`
    /// belong to the namespace. Jobs run one after another: what takes long belongs on a
    /// [`Namespace::thread`]. A panic in `work` goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        if gettid() == self.tid {
            return work();
        }
        let (reply, answer) = mpsc::sync_channel(1);
        let job: Box<dyn FnOnce() + Send + '_> = Box::new(move || {
            let outcome = panic::catch_unwind(AssertUnwindSafe(work));
            // The receiver waits below until this is sent.
            let _ = reply.send(outcome);
        });
        // SAFETY: only the lifetime changes. What the job borrows outlives it, because this
        // function does not return before the job has either sent its outcome, after consuming
        // `work`, or been dropped, which closes the channel.
        let job = unsafe { std::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Job>(job) };
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        match answer.recv() {
            Ok(Ok(value)) => value,
            Ok(Err(payload)) => panic::resume_unwind(payload),
            Err(_) => panic!(
                "the thread of namespace {} is gone (job sent: {sent})",
                self.name
            ),
        }
    }

    /// Starts a further thread in the namespace, for work that takes long.
    ///
    /// The namespace lives until that thread has ended, too.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<JoinHandle<T>> {
        self.run(|| thread::Builder::new().name(name.to_owned()).spawn(work))
            .with_context(|| format!("cannot start thread {name} in namespace {}", self.name))
    }

    /// Starts a process in the namespace; the kernel kills it when the namespace's thread ends.
    ///
    /// Use a command once: each call adds to what it does between fork and exec.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        child::die_with_parent(command);
        self.run(|| command.spawn()).with_context(|| {
            let program = command.get_program().display();
            format!("cannot start {program} in namespace {}", self.name)
        })
    }

    /// Runs a process in the namespace to its end and returns what it wrote; stdin is empty.
    pub fn output(&self, command: &mut Command) -> Result<Output> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let program = command.get_program().to_owned();
        self.spawn(command)?
            .wait_with_output()
            .with_context(|| format!("cannot read the output of {}", program.display()))
    }

    /// As [`Namespace::output`], for a process that must succeed; returns its stdout.
    pub fn check(&self, command: &mut Command) -> Result<String> {
        let output = self.output(command)?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{command:?} in namespace {}: {}: {}",
                self.name,
                output.status,
                stderr.trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        // The last owner may be the namespace's own thread, which cannot wait for itself.
        if thread.thread().id() != thread::current().id() {
            let _ = thread.join();
        }
    }
}

/// The path of one namespace (`net`, `mnt`) of the thread `tid` of process `pid`.
pub fn ns_path(pid: i32, tid: i32, kind: &str) -> PathBuf {
    format!("/proc/{pid}/task/{tid}/ns/{kind}").into()
}

/// Moves the calling thread into new namespaces.
fn enter() -> Result<()> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)
        .context("unshare")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make the mounts private")?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("sysfs"), "/sys", Some("sysfs"), quiet, none).context("cannot mount sysfs")?;
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), quiet, none)
        .context("cannot mount a bpffs on /sys/fs/bpf")
}
