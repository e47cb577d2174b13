//! The verbs that act: a request read whole, then one method of [`Control`].

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::Uri;
use axum::response::Response;

use super::answer::{document, no_such_path, wrong_method};
use super::body;
use super::routes::{App, PathOf, Shared, from_path, refuse};
use crate::api::{Reload, Request, Verb};
use crate::{Actor, Answer, Call, Control};

/// `POST /v1/groups/{group}/{verb}`
pub(super) async fn act<C: Control>(
    State(app): Shared<C>,
    Extension(actor): Extension<Actor>,
    path: PathOf<(String, String)>,
    uri: Uri,
    body: Body,
) -> Response {
    let (group, verb) = match from_path(path) {
        Ok(found) => found,
        Err(error) => return refuse(error),
    };
    let Some(verb) = Verb::parse(&verb) else {
        return refuse(no_such_path(uri.path()));
    };
    let to = Addressed {
        app,
        actor,
        group,
        body,
    };
    match verb {
        Verb::Preflight => {
            to.call(|c, k, r| async move { c.preflight(k, r).await })
                .await
        }
        Verb::Prepare => {
            to.call(|c, k, r| async move { c.prepare(k, r).await })
                .await
        }
        Verb::WatchDrain => {
            to.call(|c, k, r| async move { c.watch_drain(k, r).await })
                .await
        }
        Verb::Promote => {
            to.call(|c, k, r| async move { c.promote(k, r).await })
                .await
        }
        Verb::OpenWrites => {
            to.call(|c, k, r| async move { c.open_writes(k, r).await })
                .await
        }
        Verb::Verify => to.call(|c, k, r| async move { c.verify(k, r).await }).await,
        Verb::Switchover => {
            to.call(|c, k, r| async move { c.switchover(k, r).await })
                .await
        }
        Verb::Failover => {
            to.call(|c, k, r| async move { c.failover(k, r).await })
                .await
        }
        Verb::Drill => to.call(|c, k, r| async move { c.drill(k, r).await }).await,
        Verb::Abort => to.call(|c, k, r| async move { c.abort(k, r).await }).await,
        Verb::Resume => to.call(|c, k, r| async move { c.resume(k, r).await }).await,
        Verb::ExplainSql => {
            to.call(|c, k, r| async move { c.explain_sql(k, r).await })
                .await
        }
        Verb::ExplainHttp => {
            to.call(|c, k, r| async move { c.explain_http(k, r).await })
                .await
        }
        Verb::Unknown => {
            to.call(|c, k, r| async move { c.unknown_ack(k, r).await })
                .await
        }
        Verb::Sessions | Verb::Reload | Verb::Report | Verb::Audit => {
            refuse(wrong_method("POST", uri.path()))
        }
    }
}

/// `POST /v1/reload`: concerns no single group, so there is nothing to compare either.
pub(super) async fn reload<C: Control>(
    State(app): Shared<C>,
    Extension(actor): Extension<Actor>,
    body: Body,
) -> Response {
    let request = match body::read::<Reload>(body).await {
        Ok((_, request)) => request,
        Err(error) => return refuse(error),
    };
    let control = Arc::clone(&app.control);
    document(
        app.calls
            .act(async move { control.reload(actor, request).await })
            .await,
    )
}

/// A call whose body is still to be read.
struct Addressed<C> {
    app: Arc<App<C>>,
    actor: Actor,
    group: String,
    body: Body,
}

impl<C: Control> Addressed<C> {
    async fn call<R, F>(self, method: impl FnOnce(Arc<C>, Call, R) -> F) -> Response
    where
        R: Request,
        F: Future<Output = Answer<R::Answer>> + Send + 'static,
    {
        let (expect, request) = match body::read(self.body).await {
            Ok(read) => read,
            Err(error) => return refuse(error),
        };
        let call = Call {
            actor: self.actor,
            group: self.group,
            expect,
        };
        let running = method(Arc::clone(&self.app.control), call, request);
        document(self.app.calls.act(running).await)
    }
}
