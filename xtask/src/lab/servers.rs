//! The backends' real servers: one nginx each, set up for what the tests want to know.
//!
//! | path | answer |
//! |---|---|
//! | `/` | `backend=<name> client=<address>` |
//! | `/healthz` | 200 |
//! | `/page` | [`PAGE_BYTES`] letters, and nothing in the log: for benchmarks |
//! | `/download?rate=512k` | [`DOWNLOAD_BYTES`] zeros, at `rate` bytes a second (default: unlimited) |
//! | `/upload` | takes a body of any size, and says how many bytes it has |
//!
//! Every answer has the header `X-Backend: <name>`.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::host::Host;
use super::process::{Process, wait_for};
use crate::setup::Tools;

/// The size of what `/download` answers.
pub const DOWNLOAD_BYTES: u64 = 64 * 1024 * 1024;

/// The size of what `/page` answers.
pub const PAGE_BYTES: usize = 1024;

const START_PATIENCE: Duration = Duration::from_secs(5);

/// An nginx on a host, on port 80 of all its addresses; killed when dropped.
#[derive(Debug)]
pub struct HttpServer {
    host: Arc<Host>,
    process: Process,
    access_log: PathBuf,
}

impl HttpServer {
    /// Starts nginx on `host`, its files below `lab_dir`, and waits until it accepts.
    pub(super) fn start(host: &Arc<Host>, lab_dir: &Path) -> Result<Self> {
        let dir = lab_dir.join(host.name());
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let site = lab_dir.join("www");
        make_site(&site).with_context(|| format!("cannot fill {}", site.display()))?;
        let config = dir.join("nginx.conf");
        fs::write(&config, nginx_config(host.name(), &dir, &site))
            .with_context(|| format!("cannot write {}", config.display()))?;

        let mut command = Tools::new()?.command("nginx")?;
        // -e: without it nginx tries its compiled-in log first, and complains.
        command
            .arg("-e")
            .arg("stderr")
            .arg("-p")
            .arg(&dir)
            .arg("-c")
            .arg(&config);
        let process = Process::start(host.namespace(), &mut command, &dir.join("nginx.log"))?;
        let mut server = Self {
            host: Arc::clone(host),
            process,
            access_log: dir.join("access.log"),
        };
        server.wait_until_it_accepts()?;
        Ok(server)
    }

    /// The host that it runs on.
    pub fn host(&self) -> &Arc<Host> {
        &self.host
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills the server; connections to it break.
    pub fn kill(mut self) -> Result<ExitStatus> {
        self.process.kill()
    }

    /// The requests finished so far, one line each: client, request URI, status, body bytes.
    ///
    /// `/healthz` and `/page` are left out.
    pub fn requests(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(&self.access_log)
            .with_context(|| format!("cannot read {}", self.access_log.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn wait_until_it_accepts(&mut self) -> Result<()> {
        let address = (self.host.v4(), 80).into();
        let what = format!("nginx on {} to accept connections", self.host.name());
        let host = Arc::clone(&self.host);
        wait_for(&what, START_PATIENCE, || {
            if let Some(status) = self.process.exited()? {
                bail!(
                    "nginx on {} ended ({status}); {}",
                    host.name(),
                    self.process.log_tail()
                );
            }
            let patience = Duration::from_secs(1);
            Ok(host
                .run(|| TcpStream::connect_timeout(&address, patience))
                .ok()
                .map(drop))
        })
    }
}

/// One file for all servers of a lab; it has a size but no blocks.
fn make_site(site: &Path) -> Result<()> {
    fs::create_dir_all(site)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(site.join("download"))?;
    Ok(file.set_len(DOWNLOAD_BYTES)?)
}

/// One process: it dies whole, and nothing of it runs under another user.
fn nginx_config(name: &str, dir: &Path, site: &Path) -> String {
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("    {kind}_temp_path {};\n", dir.join(kind).display()))
        .collect();
    format!(
        r#"daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 16384; }}
http {{
{temporary}
    default_type text/plain;
    keepalive_requests 1000000;
    log_format lab '$remote_addr $request_uri $status $body_bytes_sent';
    access_log {dir}/access.log lab;
    client_max_body_size 0;
    map $arg_rate $download_rate {{
        "" 0;
        default $arg_rate;
    }}
    server {{
        listen 0.0.0.0:80 backlog=4096;
        listen [::]:80 ipv6only=on backlog=4096;
        root {site};
        add_header X-Backend {name} always;
        location = / {{ return 200 "backend={name} client=$remote_addr\n"; }}
        location = /healthz {{
            access_log off;
            return 200 "ok\n";
        }}
        location = /page {{
            access_log off;
            return 200 "{page}";
        }}
        location = /download {{ limit_rate $download_rate; }}
        # Answering at once would be allowed; a proxy first takes in the whole body.
        location = /upload {{ proxy_pass http://127.0.0.1:8080; }}
    }}
    server {{
        listen 127.0.0.1:8080;
        access_log off;
        return 200 "$content_length";
    }}
}}
"#,
        dir = dir.display(),
        site = site.display(),
        page = "x".repeat(PAGE_BYTES),
    )
}
