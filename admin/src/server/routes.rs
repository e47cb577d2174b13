//! Which path leads to which looking method of [`Control`]; nothing is decided here.
//! The verbs that act are in `acts.rs`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::{Method, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;

use super::acts::{act, reload};
use super::answer::{document, no_such_path, wrong_method};
use super::calls::Calls;
use crate::api::{ApiError, Code, Verb};
use crate::{Control, Wait};

/// The longest wait of a looking call: shorter than the idle limits of what may stand between.
const MAX_WAIT: Duration = Duration::from_secs(30);

pub(super) struct App<C> {
    pub(super) control: Arc<C>,
    pub(super) calls: Arc<Calls>,
}

pub(super) type Shared<C> = State<Arc<App<C>>>;
pub(super) type PathOf<T> = Result<Path<T>, PathRejection>;

/// `?after=…&wait_ms=…`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WaitQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait_ms: u64,
}

/// `?after=…&limit=…`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PageQuery {
    #[serde(default)]
    after: u64,
    #[serde(default = "a_page")]
    limit: usize,
}

/// Records of the audit in an answer unless asked for otherwise: some hundred KiB.
const fn a_page() -> usize {
    500
}

pub(super) fn router<C: Control>(control: Arc<C>, calls: Arc<Calls>) -> Router {
    Router::new()
        .route("/v1/status", get(status::<C>))
        .route("/v1/runs/{id}", get(progress::<C>))
        .route("/v1/runs/{id}/report", get(report::<C>))
        .route("/v1/audit", get(audit::<C>))
        .route("/v1/groups/{group}/drains/{id}", get(drain::<C>))
        .route("/v1/groups/{group}/{verb}", get(look::<C>).post(act::<C>))
        .route("/v1/reload", post(reload::<C>))
        .fallback(async |uri: Uri| refuse(no_such_path(uri.path())))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            refuse(wrong_method(method.as_str(), uri.path()))
        })
        .with_state(Arc::new(App { control, calls }))
}

pub(super) fn refuse(error: ApiError) -> Response {
    document::<()>(Err(error))
}

async fn status<C: Control>(State(app): Shared<C>) -> Response {
    let control = Arc::clone(&app.control);
    document(app.calls.look(async move { control.status().await }).await)
}

async fn progress<C: Control>(State(app): Shared<C>, path: PathOf<String>, uri: Uri) -> Response {
    let call = async {
        let run = from_path(path)?;
        let wait = waiting(&uri)?;
        let control = Arc::clone(&app.control);
        app.calls
            .look(async move { control.progress(&run, wait).await })
            .await
    };
    document(call.await)
}

async fn report<C: Control>(State(app): Shared<C>, path: PathOf<String>) -> Response {
    let call = async {
        let run = from_path(path)?;
        let control = Arc::clone(&app.control);
        app.calls
            .look(async move { control.report(&run).await })
            .await
    };
    document(call.await)
}

async fn audit<C: Control>(State(app): Shared<C>, uri: Uri) -> Response {
    let call = async {
        let PageQuery { after, limit } = paging(&uri)?;
        let control = Arc::clone(&app.control);
        app.calls
            .look(async move { control.audit(after, limit).await })
            .await
    };
    document(call.await)
}

async fn drain<C: Control>(
    State(app): Shared<C>,
    path: PathOf<(String, String)>,
    uri: Uri,
) -> Response {
    let call = async {
        let (group, id) = from_path(path)?;
        let wait = waiting(&uri)?;
        let control = Arc::clone(&app.control);
        app.calls
            .look(async move { control.drain(&group, &id, wait.at_most).await })
            .await
    };
    document(call.await)
}

/// `GET /v1/groups/{group}/{sessions|unknown}`
async fn look<C: Control>(
    State(app): Shared<C>,
    path: PathOf<(String, String)>,
    uri: Uri,
) -> Response {
    let (group, verb) = match from_path(path) {
        Ok(found) => found,
        Err(error) => return refuse(error),
    };
    let control = Arc::clone(&app.control);
    match Verb::parse(&verb) {
        Some(Verb::Sessions) => document(
            app.calls
                .look(async move { control.sessions(&group).await })
                .await,
        ),
        Some(Verb::Unknown) => document(
            app.calls
                .look(async move { control.unknown_list(&group).await })
                .await,
        ),
        Some(_) => refuse(wrong_method("GET", uri.path())),
        None => refuse(no_such_path(uri.path())),
    }
}

pub(super) fn from_path<T>(path: PathOf<T>) -> Result<T, ApiError> {
    path.map(|Path(found)| found).map_err(|error| {
        ApiError::new(
            Code::NoSuchPath,
            format!("the path cannot be read: {error}"),
        )
    })
}

fn paging(uri: &Uri) -> Result<PageQuery, ApiError> {
    let query = Query::<PageQuery>::try_from_uri(uri).map_err(|error| {
        let message = format!("the query of {uri} cannot be used: {error}");
        ApiError::new(Code::BadRequest, message)
            .hint("`after` and `limit`, both whole numbers, are accepted")
    })?;
    Ok(query.0)
}

fn waiting(uri: &Uri) -> Result<Wait, ApiError> {
    let Query(query) = Query::<WaitQuery>::try_from_uri(uri).map_err(|error| {
        let message = format!("the query of {uri} cannot be used: {error}");
        ApiError::new(Code::BadRequest, message)
            .hint("`after` and `wait_ms`, both whole numbers, are accepted")
    })?;
    let at_most = Duration::from_millis(query.wait_ms).min(MAX_WAIT);
    Ok(Wait {
        after: query.after,
        at_most,
    })
}
