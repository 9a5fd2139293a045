//! A program ends with status 0.

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, killpg},
    },
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command as Process},
    sync::{Semaphore, SemaphorePermit},
};

use super::{Target, grpc::short};
use crate::{
    config::{Command, HealthCheck, format_duration},
    health::{Cause, Kind},
};

/// Programs that run at once at most.
static ROOM: Semaphore = Semaphore::const_new(16);

/// Bytes of output that are kept, for the cause.
const OUTPUT: usize = 4096;

/// How long output is waited for when the program has ended.
const LATE_OUTPUT: Duration = Duration::from_millis(50);

/// Bytes of memory that a program may map.
const MEMORY: u64 = 1 << 30;

/// Files that a program may have open.
const FILES: u64 = 256;

/// Waits until a program may run: for `limit` at most.
///
/// # Errors
///
/// If others take the room for longer, which tells nothing about the backend.
pub(super) async fn room(limit: Duration) -> Result<SemaphorePermit<'static>, Cause> {
    match tokio::time::timeout(limit, ROOM.acquire()).await {
        Ok(Ok(permit)) => Ok(permit),
        // Nobody closes it.
        Ok(Err(_)) | Err(_) => {
            let limit = format_duration(limit);
            let text = format!("command: too many others ran for {limit}");
            Err(Cause::new(Kind::Local, text))
        }
    }
}

/// Runs a program, for which there is [`room`]. It and all that it has started are killed when this ends or
/// is dropped.
pub(super) async fn run(
    check: &HealthCheck,
    command: &Command,
    target: &Target,
) -> Result<(), Cause> {
    let mut group = start(check, command, target)?;
    let stdout = group.child.stdout.take();
    let stderr = group.child.stderr.take();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let status = {
        let reading = async {
            tokio::join!(read(stdout, &mut out), read(stderr, &mut err));
        };
        tokio::pin!(reading);
        let mut is_read = false;
        let status = loop {
            tokio::select! {
                status = group.child.wait() => break status,
                () = &mut reading, if !is_read => is_read = true,
            }
        };
        if !is_read {
            // What it has left behind may keep its output open.
            group.kill();
            let _ = tokio::time::timeout(LATE_OUTPUT, reading).await;
        }
        status
    };
    let status = status.map_err(|error| Cause::io("command", &error))?;
    if status.success() {
        return Ok(());
    }
    let said = if err.is_empty() { &out } else { &err };
    Err(Cause::new(Kind::Answer, ended(status, said)))
}

/// "exit status 2: disk full".
fn ended(status: ExitStatus, said: &[u8]) -> String {
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    };
    let said = short(String::from_utf8_lossy(said).trim_start());
    if said.is_empty() {
        how
    } else {
        format!("{how}: {said}")
    }
}

/// A program and all that it starts.
struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Group {
    fn kill(&self) {
        if let Some(leader) = self.leader {
            // They may be gone already.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(check: &HealthCheck, command: &Command, target: &Target) -> Result<Group, Cause> {
    let Some((program, arguments)) = command.words.split_first() else {
        return Err(Cause::new(Kind::Local, "command: there is none"));
    };
    let seconds = check.pace.timeout.as_secs() + 2;
    let mut process = Process::new(program);
    process
        .args(arguments)
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("LANG", "C.UTF-8")
        .env("XDP_LB_BACKEND", target.address.ip().to_string())
        .env("XDP_LB_PORT", check.port.to_string())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(vip) = check.vips[usize::from(target.address.is_ipv6())] {
        process.env("XDP_LB_VIP", vip.to_string());
    }
    // SAFETY: between fork and exec it makes system calls alone.
    unsafe {
        process.pre_exec(move || {
            for (resource, limit) in [
                (Resource::RLIMIT_CPU, seconds),
                (Resource::RLIMIT_AS, MEMORY),
                (Resource::RLIMIT_NOFILE, FILES),
                (Resource::RLIMIT_CORE, 0),
            ] {
                // Raising one takes a capability that the daemon may lack.
                let (_, hard) = getrlimit(resource)?;
                let limit = limit.min(hard);
                setrlimit(resource, limit, limit)?;
            }
            Ok(())
        });
    }
    let child = process.spawn().map_err(|error| match error.kind() {
        // The operator is to see it: without the program no backend can be used.
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            Cause::new(Kind::Answer, format!("command: {program}: {error}"))
        }
        _ => Cause::io("command", &error),
    })?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok());
    Ok(Group {
        child,
        leader: leader.map(Pid::from_raw),
    })
}

/// Reads to the end, and keeps the beginning.
async fn read(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else {
        return;
    };
    let mut buffer = [0; OUTPUT];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let room = OUTPUT - kept.len();
        kept.extend_from_slice(&buffer[..length.min(room)]);
    }
}
