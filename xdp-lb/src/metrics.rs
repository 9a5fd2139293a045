//! The metrics, in the text format of Prometheus (`OpenMetrics` 1.0). docs/metrics.md lists them.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::{
    director::{
        ChangeError, DirectorHandle,
        view::{BackendView, FlowCountView, HealthView, ServiceView, StatsView, StatusView},
    },
    vrrp::view::VrrpView,
};

/// What the text is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    verdict: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Event {
    event: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Interface {
    interface: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Service {
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceFlows {
    service: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Backend {
    service: String,
    backend: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BackendState {
    service: String,
    backend: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Checked {
    service: String,
    backend: String,
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VirtualRouter {
    name: String,
    family: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VirtualRouterState {
    name: String,
    family: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Advertisements {
    name: String,
    family: String,
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HeldVip {
    name: String,
    vip: String,
}

/// Asks the director and writes what it says.
///
/// # Errors
///
/// If the director cannot tell.
pub async fn render(director: &DirectorHandle) -> Result<String, ChangeError> {
    let mut registry = Registry::with_prefix("xdp_lb");
    status(&mut registry, &director.status().await?);
    stats(&mut registry, &director.stats().await?);
    services(&mut registry, &director.services().await?);
    backends(&mut registry, &director.backends(None).await?);
    flows(&mut registry, &*director.flows_lately().await?);
    health(&mut registry, &director.health(None).await?);
    vrrp(&mut registry, &director.vrrp().views().await);
    let mut text = String::new();
    encode(&mut text, &registry)
        .map_err(|error| ChangeError::Refused(format!("metrics cannot be written: {error}")))?;
    Ok(text)
}

fn status(registry: &mut Registry, status: &StatusView) {
    let uptime: Gauge = Gauge::default();
    uptime.set(i64::try_from(status.uptime_seconds).unwrap_or(i64::MAX));
    registry.register("uptime_seconds", "Time since the daemon started", uptime);
    let ready: Gauge = Gauge::default();
    ready.set(i64::from(status.ready));
    registry.register(
        "ready",
        "1 once each backend is known to be able to serve or not, or given up",
        ready,
    );
    let attached = Family::<Interface, Gauge>::default();
    for interface in &status.interfaces {
        let label = Interface {
            interface: interface.name.clone(),
        };
        attached.get_or_create(&label).set(1);
    }
    for name in status.missing_interfaces.keys() {
        let label = Interface {
            interface: name.clone(),
        };
        attached.get_or_create(&label).set(0);
    }
    registry.register(
        "interface_attached",
        "1 where the program is attached to the interface of the config, else 0",
        attached,
    );
    let changes: Gauge = Gauge::default();
    changes.set(i64::try_from(status.runtime_changes).unwrap_or(i64::MAX));
    registry.register(
        "runtime_changes",
        "Backends that differ from the config file",
        changes,
    );
}

fn stats(registry: &mut Registry, stats: &StatsView) {
    let packets = Family::<Reason, Counter>::default();
    let bytes = Family::<Reason, Counter>::default();
    let events = Family::<Event, Counter>::default();
    for counter in &stats.counters {
        if counter.kind == "event" {
            let event = Event {
                event: counter.name.clone(),
            };
            events.get_or_create(&event).inc_by(counter.packets);
        } else {
            let reason = Reason {
                verdict: counter.kind.clone(),
                reason: counter.name.clone(),
            };
            packets.get_or_create(&reason).inc_by(counter.packets);
            bytes.get_or_create(&reason).inc_by(counter.bytes);
        }
    }
    registry.register("packets", "Packets by verdict and reason", packets);
    registry.register(
        "bytes",
        "Bytes of whole frames by verdict and reason",
        bytes,
    );
    registry.register("events", "What happened on packets' ways", events);
}

fn services(registry: &mut Registry, services: &[ServiceView]) {
    let packets = Family::<Service, Counter>::default();
    let bytes = Family::<Service, Counter>::default();
    let active = Family::<Service, Gauge>::default();
    let moving = Family::<Service, Gauge>::default();
    let mixed = Family::<Service, Gauge>::default();
    let at_rest = Family::<Service, Gauge>::default();
    let panic = Family::<Service, Gauge>::default();
    for view in services {
        let service = Service {
            service: view.name.clone(),
        };
        packets
            .get_or_create(&service)
            .inc_by(view.forwarded.packets);
        bytes.get_or_create(&service).inc_by(view.forwarded.bytes);
        let count = i64::try_from(view.active_backends).unwrap_or(i64::MAX);
        active.get_or_create(&service).set(count);
        moving
            .get_or_create(&service)
            .set(i64::from(view.moving_slots));
        mixed
            .get_or_create(&service)
            .set(i64::from(view.mixed_slots));
        at_rest.get_or_create(&service).set(i64::from(view.at_rest));
        panic.get_or_create(&service).set(i64::from(view.panic));
    }
    registry.register("service_packets", "Packets forwarded, by service", packets);
    registry.register("service_bytes", "Bytes forwarded, by service", bytes);
    registry.register(
        "service_active_backends",
        "Backends that get new connections",
        active,
    );
    registry.register(
        "service_moving_slots",
        "Slots that remember the backend they moved from",
        moving,
    );
    registry.register(
        "service_mixed_slots",
        "Slots that moved some time ago, and whose remembered flows may be elsewhere",
        mixed,
    );
    registry.register(
        "service_at_rest",
        "1 where every slot is settled and the table is read in its short form",
        at_rest,
    );
    registry.register(
        "service_panic",
        "1 where too many backends are down, so that all of them are used",
        panic,
    );
}

fn backends(registry: &mut Registry, backends: &[BackendView]) {
    let packets = Family::<Backend, Counter>::default();
    let bytes = Family::<Backend, Counter>::default();
    let weight = Family::<Backend, Gauge>::default();
    let slots = Family::<Backend, Gauge>::default();
    let states = Family::<BackendState, Gauge>::default();
    for view in backends {
        let backend = Backend {
            service: view.service.clone(),
            backend: view.address.to_string(),
        };
        packets
            .get_or_create(&backend)
            .inc_by(view.forwarded.packets);
        bytes.get_or_create(&backend).inc_by(view.forwarded.bytes);
        weight
            .get_or_create(&backend)
            .set(i64::from(view.weight_in_force));
        slots.get_or_create(&backend).set(i64::from(view.slots));
        for state in ["active", "draining", "down", "standby", "unreachable"] {
            let labels = BackendState {
                service: backend.service.clone(),
                backend: backend.backend.clone(),
                state: state.into(),
            };
            states
                .get_or_create(&labels)
                .set(i64::from(view.state == state));
        }
    }
    registry.register("backend_packets", "Packets forwarded, by backend", packets);
    registry.register("backend_bytes", "Bytes forwarded, by backend", bytes);
    registry.register("backend_weight", "Weight in force", weight);
    registry.register(
        "backend_slots",
        "Slots that send new connections to the backend",
        slots,
    );
    registry.register(
        "backend_state",
        "1 for the state that the backend is in",
        states,
    );
}

fn flows(registry: &mut Registry, counted: &FlowCountView) {
    let flows = Family::<ServiceFlows, Gauge>::default();
    for sum in &counted.backends {
        for (state, count) in [
            ("open", sum.open),
            ("opening", sum.opening),
            ("closing", sum.closing),
        ] {
            let labels = ServiceFlows {
                service: sum.service.clone(),
                state,
            };
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            flows.get_or_create(&labels).inc_by(count);
        }
    }
    registry.register(
        "service_flows",
        "Flows that are remembered and live, by state",
        flows,
    );
}

fn health(registry: &mut Registry, views: &[HealthView]) {
    let up = Family::<Backend, Gauge>::default();
    let latency = Family::<Backend, Gauge<f64, AtomicU64>>::default();
    let results = Family::<Checked, Counter>::default();
    for view in views {
        let backend = Backend {
            service: view.service.clone(),
            backend: view.backend.to_string(),
        };
        up.get_or_create(&backend)
            .set(i64::from(view.state == "up"));
        if let Some(last) = &view.last {
            let took = Duration::from_micros(last.took_microseconds);
            latency.get_or_create(&backend).set(took.as_secs_f64());
        }
        let passed = ("passed", view.passed);
        let failed = view
            .failed
            .iter()
            .map(|(kind, &count)| (kind.as_str(), count));
        for (result, count) in [passed].into_iter().chain(failed) {
            let checked = Checked {
                service: backend.service.clone(),
                backend: backend.backend.clone(),
                result: result.into(),
            };
            results.get_or_create(&checked).inc_by(count);
        }
    }
    registry.register(
        "health_up",
        "1 if the health check says that the backend can serve",
        up,
    );
    registry.register(
        "health_check_seconds",
        "How long the last health check took",
        latency,
    );
    registry.register("health_checks", "Health checks by their result", results);
}

fn vrrp(registry: &mut Registry, views: &[VrrpView]) {
    let states = Family::<VirtualRouterState, Gauge>::default();
    let priority = Family::<VirtualRouter, Gauge>::default();
    let transitions = Family::<VirtualRouter, Counter>::default();
    let packets = Family::<Advertisements, Counter>::default();
    let held = Family::<HeldVip, Gauge>::default();
    for view in views {
        let (name, family) = (view.name.clone(), view.family.clone());
        for state in ["initialize", "backup", "active"] {
            let labels = VirtualRouterState {
                name: name.clone(),
                family: family.clone(),
                state: state.into(),
            };
            states
                .get_or_create(&labels)
                .set(i64::from(view.state == state));
        }
        for counter in &view.counters {
            let labels = Advertisements {
                name: name.clone(),
                family: family.clone(),
                result: counter.name.clone(),
            };
            packets.get_or_create(&labels).inc_by(counter.packets);
        }
        for vip in &view.vips {
            let labels = HeldVip {
                name: name.clone(),
                vip: vip.address.clone(),
            };
            held.get_or_create(&labels).set(i64::from(vip.held));
        }
        let router = VirtualRouter { name, family };
        priority
            .get_or_create(&router)
            .set(i64::from(view.effective_priority));
        transitions.get_or_create(&router).inc_by(view.transitions);
    }
    registry.register(
        "vrrp_state",
        "1 for the state that the virtual router is in",
        states,
    );
    registry.register("vrrp_priority", "Priority in force", priority);
    registry.register("vrrp_transitions", "Changes of state", transitions);
    registry.register(
        "vrrp_advertisements",
        "Advertisements by what became of them",
        packets,
    );
    registry.register(
        "vrrp_vip_held",
        "1 if the VIP is on an interface of this director",
        held,
    );
}
