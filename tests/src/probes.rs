//! Probes of health checks, run in a network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use xdp_lb::config::{HealthCheck, Judgement, Pace, Probe, Start, Via, WhenDown};
use xdp_lb::health::probe::{self, Target};
use xdp_lb::health::{Cause, Kind};
use xtask::lab::Namespace;
use xtask::setup::Tools;

use crate::lab::SOON;

/// The timeout of checks that are to end by themselves: enough on a busy machine.
pub const PATIENT: Duration = Duration::from_secs(20);

/// The timeout of checks that are to run into it.
pub const HASTY: Duration = Duration::from_millis(400);

/// 127.0.0.1 and `::1`.
pub const LOOPBACKS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// A namespace with a loopback, and no other way out.
pub fn loopback() -> Result<Namespace> {
    let namespace = Namespace::new("loopback")?;
    let mut command = Tools::new()?.command("ip")?;
    namespace.check(command.args(["link", "set", "lo", "up"]))?;
    Ok(namespace)
}

/// A check that asks once, for no longer than `timeout`.
#[must_use]
pub fn check(probe: Probe, timeout: Duration) -> HealthCheck {
    HealthCheck {
        probe,
        port: 0,
        via: Via::Backend,
        vips: [None; 2],
        full_size: false,
        pace: Pace {
            interval: timeout,
            fast_interval: timeout,
            timeout,
            jitter: 0,
        },
        judgement: Judgement {
            rise: 1,
            fall: 1,
            start: Start::Down,
            damping: None,
        },
        when_down: WhenDown::Keep,
    }
}

/// Somebody to ask, by the address itself.
#[must_use]
pub fn target(address: impl Into<SocketAddr>) -> Target {
    Target {
        address: address.into(),
        vip: None,
        mark: None,
        source: None,
        mtu: None,
    }
}

/// Asks once, in a namespace.
pub fn ask(namespace: &Namespace, check: &HealthCheck, target: &Target) -> Result<(), Cause> {
    let mut results = ask_all(namespace, &[(check.clone(), target.clone())]);
    results.pop().expect("one question has one result")
}

/// Asks all at once, in a namespace and on one thread, as the daemon does.
///
/// # Panics
///
/// If a probe does, which would end the daemon.
pub fn ask_all(namespace: &Namespace, checks: &[(HealthCheck, Target)]) -> Vec<Result<(), Cause>> {
    ask_until(namespace, checks, || true).0
}

/// As [`ask_all`], and goes on with what the probes may have left behind until `is_over`, but not for ever.
/// Returns the results, and whether it was over.
///
/// # Panics
///
/// If a probe does.
pub fn ask_until(
    namespace: &Namespace,
    checks: &[(HealthCheck, Target)],
    is_over: impl Fn() -> bool + Send + Sync,
) -> (Vec<Result<(), Cause>>, bool) {
    let ask = async || {
        let ask = |(check, target): (HealthCheck, Target)| async move {
            probe::run_in_time(&check, &target).await.0
        };
        let asked: Vec<_> = checks
            .iter()
            .cloned()
            .map(|pair| tokio::spawn(ask(pair)))
            .collect();
        let mut results = Vec::with_capacity(asked.len());
        for task in asked {
            results.push(task.await.expect("probes do not panic"));
        }
        let until = async {
            while !is_over() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let was_over = tokio::time::timeout(SOON, until).await.is_ok();
        (results, was_over)
    };
    namespace.run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(ask())
    })
}

/// Asserts that a check failed, and how.
///
/// # Panics
///
/// If it did not, or in another way.
#[track_caller]
pub fn assert_failed(result: &Result<(), Cause>, kind: Kind, text: &str) {
    let cause = result.as_ref().expect_err("the check passed");
    assert_eq!((cause.kind, &*cause.text), (kind, text));
}
