//! The HTTP interface: JSON over a UNIX socket, and metrics there and, where configured, over TCP.
//!
//! It translates between HTTP and the [`director`](crate::director), and decides nothing.
//! docs/api.md lists the calls.

pub mod client;
mod listen;

use std::net::IpAddr;

use axum::{
    Json, Router,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use serde::{Deserialize, Serialize};

pub use self::listen::{ListenError, Socket, serve_tcp};
use crate::{
    dataplane::Removed,
    director::{
        Change, ChangeError, DirectorHandle, chain,
        flows::FlowFilter,
        view::{
            BackendView, ChangeView, CheckedView, ErrorView, FlowCountView, FlowsView,
            ForgottenView, HealthView, ServiceView, StatsView, StatusView,
        },
    },
    metrics,
    vrrp::{self, view::VrrpView},
};

/// Body of `POST /v1/services/{service}/backends`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddBackend {
    /// Address of the new backend.
    pub address: IpAddr,
    /// Its weight; missing: the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// Body of `PATCH /v1/services/{service}/backends/{address}`; one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeBackend {
    /// Another weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// True: no new connections; false: new ones again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
}

/// Body of `POST /v1/health/check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckHealth {
    /// Address of the backend.
    pub backend: IpAddr,
    /// The service whose check is meant; missing: those of all services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Run it at once, not when it is its turn.
    #[serde(default)]
    pub now: bool,
}

/// Body of `POST /v1/flows/flush`; one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetFlows {
    /// The flows that are meant.
    #[serde(default)]
    pub filter: FlowFilter,
    /// All flows are meant.
    #[serde(default)]
    pub all: bool,
}

/// Answer to `POST /v1/detach`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// How many pinned maps and links were removed.
    pub pins_removed: usize,
    /// What others have in the pin directory, which stays.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<String>,
}

impl From<Removed> for Detached {
    fn from(Removed { pins, left }: Removed) -> Self {
        let left = left.into_iter();
        Self {
            pins_removed: pins,
            left: left.map(|path| path.display().to_string()).collect(),
        }
    }
}

#[derive(Deserialize)]
struct BackendsOf {
    service: Option<String>,
}

/// All calls.
pub fn router(director: DirectorHandle) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/services", get(services))
        .route("/v1/backends", get(backends))
        .route("/v1/services/{service}/backends", post(add_backend))
        .route(
            "/v1/services/{service}/backends/{address}",
            patch(change_backend).delete(remove_backend),
        )
        .route("/v1/stats", get(stats))
        .route("/v1/health", get(health))
        .route("/v1/health/check", post(check_health))
        .route("/v1/flows", get(flows))
        .route("/v1/flows/count", get(count_flows))
        .route("/v1/flows/flush", post(forget_flows))
        .route("/v1/vrrp", get(vrrp))
        .route("/v1/vrrp/{name}", post(change_vrrp))
        .route("/v1/config/reload", post(reload))
        .route("/v1/detach", post(detach))
        .route("/metrics", get(metrics_text))
        .fallback(unknown)
        .with_state(director)
}

/// The metrics alone, for the TCP address: nothing there changes anything.
pub fn metrics_router(director: DirectorHandle) -> Router {
    Router::new()
        .route("/metrics", get(metrics_text))
        .with_state(director)
}

/// An answer that is not what was asked for.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorView { error: self.1 })).into_response()
    }
}

impl From<ChangeError> for Failure {
    fn from(error: ChangeError) -> Self {
        let status = match &error {
            ChangeError::NoService { .. }
            | ChangeError::NoBackend { .. }
            | ChangeError::NoBackendAnywhere { .. }
            | ChangeError::NoServiceAt { .. }
            | ChangeError::NoCheck { .. }
            | ChangeError::NoVirtualRouter { .. } => StatusCode::NOT_FOUND,
            ChangeError::Filter(_) => StatusCode::BAD_REQUEST,
            ChangeError::Exists { .. } => StatusCode::CONFLICT,
            ChangeError::Refused(_)
            | ChangeError::Config(_)
            | ChangeError::NoSlots { .. }
            | ChangeError::TooMany { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            ChangeError::State { .. } | ChangeError::Steering(_) | ChangeError::Dataplane(_) => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self(status, chain(&error))
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        Self(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

type Answer<T> = Result<Json<T>, Failure>;
type Body<T> = Result<Json<T>, JsonRejection>;

async fn status(State(director): State<DirectorHandle>) -> Answer<StatusView> {
    Ok(Json(director.status().await?))
}

async fn services(State(director): State<DirectorHandle>) -> Answer<Vec<ServiceView>> {
    Ok(Json(director.services().await?))
}

async fn backends(
    State(director): State<DirectorHandle>,
    Query(of): Query<BackendsOf>,
) -> Answer<Vec<BackendView>> {
    Ok(Json(director.backends(of.service).await?))
}

async fn stats(State(director): State<DirectorHandle>) -> Answer<StatsView> {
    Ok(Json(director.stats().await?))
}

async fn health(
    State(director): State<DirectorHandle>,
    Query(of): Query<BackendsOf>,
) -> Answer<Vec<HealthView>> {
    Ok(Json(director.health(of.service).await?))
}

async fn check_health(
    State(director): State<DirectorHandle>,
    body: Body<CheckHealth>,
) -> Answer<Vec<CheckedView>> {
    let Json(CheckHealth {
        backend,
        service,
        now,
    }) = body?;
    Ok(Json(director.check_health(service, backend, now).await?))
}

async fn flows(
    State(director): State<DirectorHandle>,
    filter: Result<Query<FlowFilter>, QueryRejection>,
) -> Answer<FlowsView> {
    let Query(filter) = filter?;
    Ok(Json(director.flows(filter).await?))
}

async fn count_flows(
    State(director): State<DirectorHandle>,
    filter: Result<Query<FlowFilter>, QueryRejection>,
) -> Answer<FlowCountView> {
    let Query(filter) = filter?;
    Ok(Json(director.count_flows(filter).await?))
}

async fn forget_flows(
    State(director): State<DirectorHandle>,
    body: Body<ForgetFlows>,
) -> Answer<ForgottenView> {
    let Json(ForgetFlows { filter, all }) = body?;
    Ok(Json(director.forget_flows(filter, all).await?))
}

async fn add_backend(
    State(director): State<DirectorHandle>,
    Path(service): Path<String>,
    body: Body<AddBackend>,
) -> Answer<ChangeView> {
    let Json(AddBackend { address, weight }) = body?;
    Ok(Json(
        director
            .change(service, address, Change::Add { weight })
            .await?,
    ))
}

async fn change_backend(
    State(director): State<DirectorHandle>,
    Path((service, address)): Path<(String, IpAddr)>,
    body: Body<ChangeBackend>,
) -> Answer<ChangeView> {
    let change = match body?.0 {
        ChangeBackend {
            weight: Some(weight),
            draining: None,
        } => Change::SetWeight(weight),
        ChangeBackend {
            weight: None,
            draining: Some(true),
        } => Change::Drain,
        ChangeBackend {
            weight: None,
            draining: Some(false),
        } => Change::Enable,
        _ => {
            let reason = "give either `weight` or `draining`".into();
            return Err(Failure(StatusCode::BAD_REQUEST, reason));
        }
    };
    Ok(Json(director.change(service, address, change).await?))
}

async fn remove_backend(
    State(director): State<DirectorHandle>,
    Path((service, address)): Path<(String, IpAddr)>,
) -> Answer<ChangeView> {
    Ok(Json(
        director.change(service, address, Change::Remove).await?,
    ))
}

async fn vrrp(State(director): State<DirectorHandle>) -> Answer<Vec<VrrpView>> {
    Ok(Json(director.vrrp().views().await))
}

async fn change_vrrp(
    State(director): State<DirectorHandle>,
    Path(name): Path<String>,
    body: Body<vrrp::Change>,
) -> Answer<Vec<VrrpView>> {
    director.vrrp().change(name.clone(), body?.0).await?;
    let mut views = director.vrrp().views().await;
    views.retain(|view| view.name == name);
    Ok(Json(views))
}

async fn reload(State(director): State<DirectorHandle>) -> Answer<ChangeView> {
    Ok(Json(director.reload().await?))
}

async fn detach(State(director): State<DirectorHandle>) -> Answer<Detached> {
    Ok(Json(director.detach().await?.into()))
}

async fn metrics_text(State(director): State<DirectorHandle>) -> Result<Response, Failure> {
    let text = metrics::render(&director).await?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

async fn unknown() -> Failure {
    Failure(
        StatusCode::NOT_FOUND,
        "no such call; docs/api.md lists them".into(),
    )
}
