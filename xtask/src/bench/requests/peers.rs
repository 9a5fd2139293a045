//! What the director runs: xdp-lb, or one of those that it is compared with.
//!
//! The others are set up as their own manuals have it for this job, and for as many processors as there are. All of
//! them share new connections out over all backends.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{PORT, Way, pinning};
use crate::lab::{Director, Forwarding, Host, Lab, Process};
use crate::setup::Tools;

/// What balances; ends when dropped.
#[derive(Debug)]
pub(super) enum Balancer {
    /// Nothing: clients ask the backends.
    Kernel,
    /// Our daemon, and its program in the kernel.
    XdpLb(Director),
    /// Rules in the kernel.
    Nftables,
    /// Programs that take connections, and make others to the backends.
    Proxies(Vec<Process>),
}

impl Balancer {
    /// Starts what a way takes; `program` is our daemon.
    pub(super) fn start(way: Way, lab: &Lab, program: &Path, processors: &[usize]) -> Result<Self> {
        Ok(match way {
            Way::Straight => Self::Kernel,
            Way::Routed => {
                route(lab)?;
                Self::Kernel
            }
            Way::XdpLb | Way::XdpLbNative => {
                let config = lab.director_config(Forwarding::L2);
                let config = attached_by(&config, way.mode())?;
                Self::XdpLb(lab.start_director(program, &config)?)
            }
            Way::Nftables => {
                translate(lab)?;
                Self::Nftables
            }
            Way::Haproxy => Self::Proxies(vec![haproxy(lab, processors)?]),
            Way::NginxStream => Self::Proxies(nginx_stream(lab, processors)?),
        })
    }

    /// Its processes.
    pub(super) fn processes(&self) -> Vec<u32> {
        match self {
            Self::Kernel | Self::Nftables => Vec::new(),
            Self::XdpLb(director) => director.pid().into_iter().collect(),
            Self::Proxies(all) => all.iter().map(Process::pid).collect(),
        }
    }
}

/// The config with its interfaces attached in a mode.
fn attached_by(config: &str, mode: Option<&str>) -> Result<String> {
    let (begin, rest) = config
        .split_once("interfaces: [")
        .context("no interfaces in the lab's config")?;
    let (interfaces, end) = rest.split_once(']').context("an open list")?;
    let mode = mode.unwrap_or("auto");
    let interfaces: Vec<_> = interfaces
        .split(", ")
        .map(|name| format!("{{ name: {name}, mode: {mode} }}"))
        .collect();
    Ok(format!(
        "{begin}interfaces: [{}]{end}",
        interfaces.join(", ")
    ))
}

/// The number of the rule's counter, which counts connections.
pub(super) fn translated(director: &Host) -> Result<u64> {
    let mut command = Tools::new()?.command("nft")?;
    command.args(["list", "counter", "ip", "lb", "taken"]);
    let text = director.namespace().check(&mut command)?;
    let mut words = text.split_whitespace();
    let count = words.find(|word| *word == "packets").and(words.next());
    let count = count.and_then(|word| word.parse().ok());
    count.with_context(|| format!("nft printed no counter: {text}"))
}

/// Has the director's kernel route to the backends, which answer past it.
fn route(lab: &Lab) -> Result<()> {
    let director = lab.host("director");
    director.sysctl("net/ipv4/ip_forward", "1")?;
    let gateway = director.v4().to_string();
    for backend in lab.backends() {
        let backend = backend.v4().to_string();
        let route = ["route", "add", &backend, "via", &gateway];
        lab.host("router").ip(&route)?;
    }
    Ok(())
}

/// Has the director's kernel translate addresses, and the answers come back through it.
fn translate(lab: &Lab) -> Result<()> {
    let director = lab.host("director");
    director.sysctl("net/ipv4/ip_forward", "1")?;
    let file = lab.dir().join("lb.nft");
    fs::write(&file, rules(&vips(), &backends(lab)))?;
    let mut command = Tools::new()?.command("nft")?;
    director
        .namespace()
        .check(command.arg("--file").arg(&file))?;
    let gateway = director.interfaces().last();
    let gateway = gateway.context("the director has no interface")?;
    let gateway = gateway.v4.to_string();
    for backend in lab.backends() {
        backend.ip(&["route", "replace", "default", "via", &gateway])?;
    }
    Ok(())
}

fn rules(vips: &[String], backends: &[String]) -> String {
    let map: Vec<_> = (0..)
        .zip(backends)
        .map(|(number, address): (usize, _)| format!("{number} : {address}"))
        .collect();
    format!(
        "table ip lb {{\n  counter taken {{ }}\n  chain prerouting {{\n    \
         type nat hook prerouting priority dstnat; policy accept;\n    \
         ip daddr {{ {} }} tcp dport {PORT} counter name taken dnat to numgen inc mod {} map {{ {} }}\n  }}\n}}\n",
        vips.join(", "),
        backends.len(),
        map.join(", ")
    )
}

/// One process with a thread for each processor.
fn haproxy(lab: &Lab, processors: &[usize]) -> Result<Process> {
    let dir = lab.dir();
    let file = dir.join("haproxy.cfg");
    let text = haproxy_config(&vips(), &backends(lab), processors);
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let mut command = Tools::new()?.command("haproxy")?;
    // In the foreground, and in one process: it dies whole.
    command.arg("-db").arg("-f").arg(&file);
    let director = lab.host("director");
    Process::start(director.namespace(), &mut command, &dir.join("haproxy.log"))
}

fn haproxy_config(vips: &[String], backends: &[String], processors: &[usize]) -> String {
    let threads = processors.len();
    let processors: Vec<_> = processors.iter().map(usize::to_string).collect();
    let mut text = format!(
        "global\n  maxconn 4096\n  nbthread {threads}\n  cpu-map auto:1/1-{threads} {}\n\
         defaults\n  mode tcp\n  timeout connect 20s\n  timeout client 60s\n  timeout server 60s\n\
         listen web\n  balance roundrobin\n",
        processors.join(" ")
    );
    for vip in vips {
        let _ = writeln!(text, "  bind {vip}:{PORT} backlog 4096");
    }
    for (number, backend) in (1..).zip(backends) {
        let number: usize = number;
        let _ = writeln!(text, "  server backend{number} {backend}:{PORT}");
    }
    text
}

/// A process for each processor, as nginx's workers would be, with a listening socket each. Workers would not
/// die with their master if that is killed; these die with us.
fn nginx_stream(lab: &Lab, processors: &[usize]) -> Result<Vec<Process>> {
    let tools = Tools::new()?;
    let director = lab.host("director");
    let module = stream_module(&tools, &nginx_build()?)?;
    let mut processes = Vec::new();
    for &processor in processors {
        let dir = lab.dir().join(format!("stream{processor}"));
        fs::create_dir_all(&dir)?;
        let file = dir.join("nginx.conf");
        let text = format!("{module}{}", stream_config(&vips(), &backends(lab), &dir));
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = tools.command("nginx")?;
        command.arg("-e").arg("stderr").arg("-p").arg(&dir);
        command.arg("-c").arg(&file);
        pinning::pin_host(director, &[processor])?;
        let log = dir.join("nginx.log");
        let process = Process::start(director.namespace(), &mut command, &log)?;
        processes.push(process);
    }
    pinning::pin_host(director, processors)?;
    Ok(processes)
}

/// How nginx was built, and its version.
pub(super) fn nginx_build() -> Result<String> {
    let output = Tools::new()?.command("nginx")?.arg("-V").output()?;
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The line that loads the module, unless nginx was built with it.
fn stream_module(tools: &Tools, build: &str) -> Result<String> {
    if build.split_whitespace().any(|word| word == "--with-stream") {
        return Ok(String::new());
    }
    let module = tools
        .path("ngx_stream_module.so")
        .context("nginx's stream module is not on this machine; `cargo xtask setup` brings it")?;
    Ok(format!("load_module {};\n", module.display()))
}

fn stream_config(vips: &[String], backends: &[String], dir: &Path) -> String {
    let listen = vips
        .iter()
        .map(|vip| format!("    listen {vip}:{PORT} reuseport backlog=4096;\n"));
    let servers = backends
        .iter()
        .map(|backend| format!("    server {backend}:{PORT};\n"));
    format!(
        "daemon off;\nmaster_process off;\npid {}/nginx.pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 16384; }}\nstream {{\n  upstream web {{\n{}  }}\n  server {{\n{}    \
         proxy_pass web;\n  }}\n}}\n",
        dir.display(),
        servers.collect::<String>(),
        listen.collect::<String>()
    )
}

fn vips() -> Vec<String> {
    super::VIPS.iter().map(ToString::to_string).collect()
}

fn backends(lab: &Lab) -> Vec<String> {
    lab.backends().map(|it| it.v4().to_string()).collect()
}

/// The first version number in what a program says of itself.
pub(super) fn version_in(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || c == '/');
    let mut numbers = words.filter_map(|word| {
        let number = word.strip_prefix('v').unwrap_or(word);
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.');
        let number = &number[..end.unwrap_or(number.len())];
        (number.starts_with(|c: char| c.is_ascii_digit()) && number.contains('.'))
            .then(|| number.to_owned())
    });
    numbers.next()
}

/// What a program says when asked for its version, on either stream and whatever its exit code.
pub(super) fn version_of(program: &str, option: &str) -> Result<String> {
    let mut command: Command = Tools::new()?.command(program)?;
    let output = command.arg(option).output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    version_in(&text).with_context(|| format!("{program} {option} tells no version: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_print() {
        for (text, version) in [
            (
                "HAProxy version 2.6.12-1+deb12u4 2026/01/02 - https://haproxy.org/",
                "2.6.12",
            ),
            (
                "nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.17",
                "1.22.1",
            ),
            ("nftables v1.0.6 (Lester Gooch #5)", "1.0.6"),
            (
                "wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer",
                "4.1.0",
            ),
        ] {
            assert_eq!(version_in(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(version_in("no number, but 2026"), None);
    }

    #[test]
    fn the_module_is_loaded_unless_nginx_has_it() {
        let tools = Tools::new().unwrap();
        let built_in = "configure arguments: --with-stream --with-stream_ssl_module";
        assert_eq!(stream_module(&tools, built_in).unwrap(), "");
    }

    #[test]
    fn every_backend_is_in_the_map_of_addresses() {
        let text = rules(
            &["192.0.2.10".to_owned()],
            &["10.0.0.11".to_owned(), "10.0.0.12".to_owned()],
        );
        assert!(
            text.contains("numgen inc mod 2 map { 0 : 10.0.0.11, 1 : 10.0.0.12 }"),
            "{text}"
        );
        assert!(
            text.contains("ip daddr { 192.0.2.10 } tcp dport 80"),
            "{text}"
        );
    }
}
