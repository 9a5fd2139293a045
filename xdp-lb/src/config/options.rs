//! The fields that `defaults` and services have in common.

use std::time::Duration;

use super::duration;
use super::health_check::{self, Draft as HealthCheckDraft};
use super::reader::{Field, Fields};
use super::types::{ConnectionTracking, Forwarding, IdleTimeout};
use crate::lookup::{Scheduler, is_prime, next_prime};

/// The smallest and the largest lookup table.
pub(super) const TABLE_SIZES: (u32, u32) = (7, 5_000_011);

/// Their names.
pub(super) const OPTIONS: &[&str] = &[
    "forwarding",
    "scheduler",
    "table_size",
    "connection_tracking",
    "idle_timeout",
    "health_check",
    "panic_threshold",
    "tier_minimum",
    "slow_start",
];

/// Bounds of an idle timeout.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const SCHEDULERS: &[(&str, Scheduler)] = &[
    (Scheduler::Maglev.name(), Scheduler::Maglev),
    (Scheduler::Ring.name(), Scheduler::Ring),
    (Scheduler::Modulo.name(), Scheduler::Modulo),
];

/// Bounds of a slow start that is one.
const SLOW_STARTS: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(60 * 60));

/// What `defaults` supplies, and each service may override.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) forwarding: Forwarding,
    pub(super) scheduler: Scheduler,
    pub(super) table_size: u32,
    pub(super) connection_tracking: ConnectionTracking,
    pub(super) idle_timeout: IdleTimeout,
    pub(super) health_check: Option<HealthCheckDraft>,
    pub(super) panic_threshold: Option<u8>,
    pub(super) tier_minimums: Vec<u32>,
    pub(super) slow_start: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            forwarding: Forwarding::default(),
            scheduler: Scheduler::default(),
            table_size: 65_537,
            connection_tracking: ConnectionTracking::default(),
            idle_timeout: IdleTimeout::default(),
            health_check: None,
            panic_threshold: None,
            tier_minimums: vec![1],
            slow_start: Duration::ZERO,
        }
    }
}

/// Reads the fields that `defaults` and services have in common.
pub(super) fn read(fields: &Fields<'_>, inherited: &Options) -> Options {
    let options = Options {
        forwarding: fields.get_or("forwarding", inherited.forwarding, |field| {
            field.word(Forwarding::WORDS)
        }),
        scheduler: fields.get_or("scheduler", inherited.scheduler, |field| {
            field.word(SCHEDULERS)
        }),
        table_size: fields.get_or("table_size", inherited.table_size, |field| {
            field.number("a table size", TABLE_SIZES.0..=TABLE_SIZES.1)
        }),
        connection_tracking: fields.get_or(
            "connection_tracking",
            inherited.connection_tracking,
            |field| field.word(ConnectionTracking::WORDS),
        ),
        idle_timeout: fields.get_or("idle_timeout", inherited.idle_timeout, |field| {
            idle_timeout(field, inherited.idle_timeout)
        }),
        health_check: fields.get_or(
            "health_check",
            inherited.health_check.clone(),
            health_check::read,
        ),
        panic_threshold: fields.get_or(
            "panic_threshold",
            inherited.panic_threshold,
            panic_threshold,
        ),
        tier_minimums: fields.get_or(
            "tier_minimum",
            inherited.tier_minimums.clone(),
            tier_minimums,
        ),
        slow_start: fields.get_or("slow_start", inherited.slow_start, |field| {
            field.parse("a duration", |text| {
                duration::within(text, "a slow start", SLOW_STARTS)
            })
        }),
    };
    // Whichever of the two is written here is the one to change.
    let written = fields.get("table_size").or(fields.get("scheduler"));
    if let Some(field) = written {
        check_table_size(field, &options);
    }
    options
}

/// Maglev's permutations cover all slots only if their number is prime.
fn check_table_size(field: &Field<'_>, options: &Options) {
    let size = options.table_size;
    if options.scheduler != Scheduler::Maglev || is_prime(size) {
        return;
    }
    let next = next_prime(size).unwrap_or(TABLE_SIZES.1);
    field.refuse::<()>(format_args!(
        "table_size {size} is not prime, as scheduler `maglev` needs it; the next prime is {next}"
    ));
}

/// A percentage, or `off`.
fn panic_threshold(field: &Field<'_>) -> Option<Option<u8>> {
    field.parse("a percentage", |text| {
        if text == "off" {
            return Ok(None);
        }
        health_check::percentage(text, 99).map(Some)
    })
}

/// One number, or one for each tier.
fn tier_minimums(field: &Field<'_>) -> Option<Vec<u32>> {
    let items = field.one_or_more()?;
    let numbers = items
        .iter()
        .map(|item| item.number("a number of backends", 1..=65_534));
    // All of them first, so that each problem is noted.
    let numbers: Vec<_> = numbers.collect();
    numbers.into_iter().collect()
}

/// `{ tcp: 15m, udp: 2m }`; what is not there is as in `default`.
fn idle_timeout(field: &Field<'_>, default: IdleTimeout) -> Option<IdleTimeout> {
    let fields = field.mapping(&["tcp", "udp"])?;
    Some(IdleTimeout {
        tcp: timeout(&fields, "tcp", default.tcp),
        udp: timeout(&fields, "udp", default.udp),
    })
}

fn timeout(fields: &Fields<'_>, name: &str, default: Duration) -> Duration {
    fields.get_or(name, default, |field| {
        field.parse("a duration", |text| {
            duration::within(text, "an idle timeout", (SHORTEST, LONGEST))
        })
    })
}
