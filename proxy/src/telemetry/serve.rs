//! `[admin] listen`: metrics and health over plain HTTP, to look at and not to act.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{health, metrics};
use crate::control::Daemon;
use crate::shutdown::Shutdown;

/// Whether traffic may come: true between start and stop, whatever the fence does.
#[derive(Clone, Debug)]
pub struct Ready {
    /// All listeners are bound.
    pub started: Arc<std::sync::atomic::AtomicBool>,
    /// The end has begun.
    pub stop: Shutdown,
}

#[derive(Clone)]
struct Shown {
    daemon: Arc<Daemon>,
    ready: Ready,
}

/// The four paths.
pub fn router(daemon: Arc<Daemon>, ready: Ready) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/writable", get(writable))
        .with_state(Shown { daemon, ready })
}

async fn scrape(State(shown): State<Shown>) -> Response {
    match metrics::render(&shown.daemon) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn healthz(State(shown): State<Shown>) -> Response {
    axum::Json(health::health(&shown.daemon)).into_response()
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let started = shown
        .ready
        .started
        .load(std::sync::atomic::Ordering::Relaxed);
    answer(
        started && !shown.ready.stop.is_stopping(),
        "ready",
        "starting or stopping",
    )
}

async fn writable(State(shown): State<Shown>) -> Response {
    let why = shown.daemon.unwritable();
    answer(why.is_none(), "writable", why.unwrap_or_default())
}

fn answer(holds: bool, yes: &'static str, no: &'static str) -> Response {
    let status = if holds {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let cache = [(header::CACHE_CONTROL, "no-store")];
    (status, cache, if holds { yes } else { no }).into_response()
}
