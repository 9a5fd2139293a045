//! The fields that `defaults` and services have in common.

use std::time::Duration;

use super::duration;
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
];

/// Bounds of an idle timeout.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

const SCHEDULERS: &[(&str, Scheduler)] = &[
    (Scheduler::Maglev.name(), Scheduler::Maglev),
    (Scheduler::Ring.name(), Scheduler::Ring),
    (Scheduler::Modulo.name(), Scheduler::Modulo),
];

/// What `defaults` supplies, and each service may override.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) forwarding: Forwarding,
    pub(super) scheduler: Scheduler,
    pub(super) table_size: u32,
    pub(super) connection_tracking: ConnectionTracking,
    pub(super) idle_timeout: IdleTimeout,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            forwarding: Forwarding::default(),
            scheduler: Scheduler::default(),
            table_size: 65_537,
            connection_tracking: ConnectionTracking::default(),
            idle_timeout: IdleTimeout::default(),
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
    };
    // Whichever of the two is written here is the one to change.
    let written = fields.get("table_size").or(fields.get("scheduler"));
    if let Some(field) = written {
        check_table_size(field, options);
    }
    options
}

/// Maglev's permutations cover all slots only if their number is prime.
fn check_table_size(field: &Field<'_>, options: Options) {
    let size = options.table_size;
    if options.scheduler != Scheduler::Maglev || is_prime(size) {
        return;
    }
    let next = next_prime(size).unwrap_or(TABLE_SIZES.1);
    field.refuse::<()>(format_args!(
        "table_size {size} is not prime, as scheduler `maglev` needs it; the next prime is {next}"
    ));
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
            let duration = duration::parse(text).ok_or_else(|| {
                format!(
                    "`{text}` is not a duration; write a number and a unit: 500ms, 30s, 15m, 1h"
                )
            })?;
            if (SHORTEST..=LONGEST).contains(&duration) {
                return Ok(duration);
            }
            let (least, most) = (duration::format(SHORTEST), duration::format(LONGEST));
            Err(format!(
                "{text} is out of range; an idle timeout is from {least} to {most}"
            ))
        })
    })
}
