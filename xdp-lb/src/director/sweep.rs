//! Going through the flow table: what was found so far.
//!
//! The table may have a hundred million entries, so it is gone through in parts, each of them a request of its
//! own to the director's task, which meanwhile does other things as well. What a part is about (which index is
//! which backend, what time it is) is looked up anew for each.

use std::{
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::IpAddr,
    ops::Range,
    sync::Arc,
    time::Duration,
};

use xdp_lb_common::abi::Place;

use super::{
    ChangeError, Director,
    flows::{DEFAULT_LIMIT, FilterError, Flow, FlowFilter, FlowState, MAX_LIMIT},
    maps::PART,
    tables,
    view::{FlowCountView, FlowSumView, FlowView, FlowsView, ForgottenView, WhereaboutsView},
};
use crate::config::ConnectionTracking;

/// One flow that was found. They are listed in the order of the fields.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    service: Arc<str>,
    backend: IpAddr,
    /// In periods.
    silence: u32,
    place: Place,
    state: FlowState,
}

/// A flow that is looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) service: &'a Arc<str>,
    pub(super) backend: IpAddr,
    pub(super) state: FlowState,
    pub(super) silence: u32,
    pub(super) place: Place,
}

/// How many flows of a backend are in each state.
type Counts = [u64; FlowState::ALL.len()];

/// The flow table gone through, as far as that is.
#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) filter: FlowFilter,
    pub(super) flow: Option<Flow>,
    /// Flows are forgotten, not merely looked at.
    pub(super) forgets: bool,
    /// How many flows to keep for a list.
    limit: usize,
    /// The first bucket that was not looked at yet; None: that was all.
    next: Option<u32>,
    about: About,
    counts: BTreeMap<(Arc<str>, IpAddr), Counts>,
    /// The first ones in their order; the last of them on top.
    kept: BinaryHeap<Row>,
}

/// What else there is to say in an answer.
#[derive(Debug, Default)]
struct About {
    notes: Vec<String>,
    period: Duration,
    whereabouts: Option<WhereaboutsView>,
}

impl Sweep {
    /// To list flows.
    pub(super) fn to_list(filter: FlowFilter) -> Result<Self, FilterError> {
        let limit = filter.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(FilterError::Limit);
        }
        Self::new(filter, usize::try_from(limit).unwrap_or(usize::MAX))
    }

    /// To count them.
    pub(super) fn to_count(filter: FlowFilter) -> Result<Self, FilterError> {
        if filter.limit.is_some() {
            return Err(FilterError::Limit);
        }
        Self::new(filter, 0)
    }

    /// To forget them; without any filter, only if `all` are meant.
    pub(super) fn to_flush(filter: FlowFilter, all: bool) -> Result<Self, FilterError> {
        filter.check_flush(all)?;
        Ok(Self {
            forgets: true,
            ..Self::new(filter, 0)?
        })
    }

    fn new(filter: FlowFilter, limit: usize) -> Result<Self, FilterError> {
        Ok(Self {
            flow: filter.flow()?,
            filter,
            forgets: false,
            limit,
            next: Some(0),
            about: About::default(),
            counts: BTreeMap::new(),
            kept: BinaryHeap::new(),
        })
    }

    /// True if all was looked at.
    pub(super) fn is_done(&self) -> bool {
        self.next.is_none()
    }

    /// The buckets to look at next, of those in which there may be flows that are meant.
    pub(super) fn part(&mut self, all: Range<u32>) -> Range<u32> {
        let start = self.next.unwrap_or(u32::MAX).clamp(all.start, all.end);
        let end = start.saturating_add(PART).min(all.end);
        self.next = (end < all.end).then_some(end);
        start..end
    }

    /// Takes a flow in for the list, if it belongs there.
    pub(super) fn keep(&mut self, seen: &Seen<'_>) {
        if self.kept.len() >= self.limit {
            let order = (
                seen.service,
                seen.backend,
                seen.silence,
                seen.place,
                seen.state,
            );
            let is_before = |last: &Row| {
                order
                    < (
                        &last.service,
                        last.backend,
                        last.silence,
                        last.place,
                        last.state,
                    )
            };
            if !self.kept.peek().is_some_and(is_before) {
                return;
            }
            self.kept.pop();
        }
        self.kept.push(Row {
            service: Arc::clone(seen.service),
            backend: seen.backend,
            silence: seen.silence,
            place: seen.place,
            state: seen.state,
        });
    }

    /// Adds flows of a backend.
    pub(super) fn add(&mut self, service: &Arc<str>, backend: IpAddr, more: Counts) {
        let of = self.counts.entry((Arc::clone(service), backend));
        let counts = of.or_default();
        counts.iter_mut().zip(more).for_each(|(sum, n)| *sum += n);
    }

    fn total(&self) -> u64 {
        self.counts.values().flatten().sum()
    }

    /// The flows, as a list.
    pub(super) fn into_list(self) -> FlowsView {
        let period = self.about.period;
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        FlowsView {
            total: self.total(),
            period_milliseconds: milliseconds(period),
            whereabouts: self.about.whereabouts,
            notes: self.about.notes,
            flows: self
                .kept
                .into_sorted_vec()
                .into_iter()
                .map(|row| FlowView {
                    service: row.service.to_string(),
                    backend: row.backend,
                    state: row.state.name().into(),
                    silent_milliseconds: milliseconds(period * row.silence),
                    id: format!("{:06x}-{:07x}", row.place.bucket, row.place.fingerprint),
                })
                .collect(),
        }
    }

    /// How many there are.
    pub(super) fn into_counts(self) -> FlowCountView {
        let total = self.total();
        let rows = self.counts.into_iter();
        let backends = rows.map(
            |((service, backend), [open, opening, closing])| FlowSumView {
                service: service.to_string(),
                backend,
                open,
                opening,
                closing,
                total: open + opening + closing,
            },
        );
        FlowCountView {
            backends: backends.collect(),
            total,
            notes: self.about.notes,
        }
    }

    /// How many were forgotten.
    pub(super) fn into_forgotten(self) -> ForgottenView {
        ForgottenView {
            forgotten: self.total(),
        }
    }
}

impl Director {
    /// Goes on through the flow table, by one part.
    pub(super) fn sweep_flows(&mut self, mut sweep: Box<Sweep>) -> Result<Box<Sweep>, ChangeError> {
        if sweep.next == Some(0) {
            self.prepare(&mut sweep)?;
        }
        self.tables.sweep_flows(&mut self.dataplane, &mut sweep);
        Ok(sweep)
    }

    /// Checks that there is what is asked for, and notes what else to say of it.
    fn prepare(&self, sweep: &mut Sweep) -> Result<(), ChangeError> {
        sweep.about.period = tables::flow_period(&self.dataplane);
        if let Some(flow) = sweep.flow {
            let found = self.tables.whereabouts(&self.dataplane, &flow);
            let mut found = found.ok_or(ChangeError::NoServiceAt {
                protocol: flow.protocol,
                destination: flow.destination,
            })?;
            let service = self.find_service(&found.service)?;
            found.connection_tracking = service.connection_tracking.name().into();
            sweep.about.whereabouts = Some(found);
            return Ok(());
        }
        let FlowFilter {
            service, backend, ..
        } = &sweep.filter;
        if let Some(name) = service {
            self.find_service(name)?;
        }
        let members = self.tables.members(&sweep.filter);
        if let (Some(address), true) = (*backend, members.is_empty()) {
            return Err(match service.clone() {
                Some(service) => ChangeError::NoBackend { service, address },
                None => ChangeError::NoBackendAnywhere { address },
            });
        }
        sweep.about.notes = self.notes(&members);
        // A backend without flows has its row as well.
        for (service, address) in &members {
            sweep.add(service, *address, Counts::default());
        }
        Ok(())
    }

    /// What to know of services whose flows are not all remembered.
    fn notes(&self, members: &[(Arc<str>, IpAddr)]) -> Vec<String> {
        let names: BTreeSet<&str> = members.iter().map(|(name, _)| &**name).collect();
        let services = self.config.services.iter();
        let services = services.filter(|service| names.contains(service.name.as_str()));
        let kinds: Vec<_> = services
            .map(|service| service.connection_tracking)
            .collect();
        let mut notes = Vec::new();
        if kinds.contains(&ConnectionTracking::Adaptive) {
            notes.push(
                "services with `connection_tracking: adaptive` remember no flows on settled slots: those are not here"
                    .into(),
            );
        }
        if kinds.contains(&ConnectionTracking::Off) {
            notes.push("services with `connection_tracking: off` remember no flows".into());
        }
        notes
    }
}
