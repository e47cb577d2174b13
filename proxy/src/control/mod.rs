//! Control: the verbs of the admin contract, carried out.
//!
//! Reading order: `actor` (the one place that changes a phase), `book` (what is journalled),
//! `steps` (what a run does), `work` (the task that does it), `verbs` (what operators may ask),
//! `servers` (the databases as a seam) with `observer` behind it, `start` (the first moment),
//! `status` and `views` (what is shown). One [`Daemon`] serves all groups; each group has a desk of
//! its own and nothing is shared between them but the store.

#![warn(clippy::wildcard_enum_match_arm)]

mod actor;
mod book;
mod boot;
mod checks;
mod desk;
mod drains;
mod error;
mod events;
mod explain_http;
mod figures;
mod former;
mod hooks;
mod leftover;
mod line;
mod nearby;
mod observer;
mod plan;
mod preflight;
mod servers;
mod settings;
mod start;
mod status;
mod steps;
#[cfg(test)]
mod tests;
mod tripwire;
mod unknown;
mod verbs;
mod views;
mod work;

use std::sync::Arc;
use std::time::Duration;

use writefence_admin::api::{
    Abort, ApiError, Code, Drain, ExplainHttp, ExplainHttpRequest, ExplainSql, ExplainSqlRequest,
    FailoverRequest, OpenWrites, Preflight, PreflightRequest, Prepare, Promote, Reload,
    ReloadReport, Resume, Run, RunKind, RunProgress, SessionList, Status, SwitchoverRequest,
    Timestamp, UnknownAck, UnknownList, Verify, WatchDrain,
};
use writefence_admin::runbook::{Working, check_run};
use writefence_admin::{Actor, Answer, Call, Control, Wait};

use desk::Desk;
use error::refused;

pub use boot::{Boot, BootError, GroupParts, Opened, open};
pub use error::chain;
pub use figures::{Figures, RegionFigures};
pub use line::ObserverLogin;
pub use settings::Settings;

use crate::fleet::Store;

/// Reads the configuration again and applies it; `app` knows how.
pub type Reloader = Box<dyn Fn() -> Result<ReloadReport, ApiError> + Send + Sync>;

/// The daemon as its operators see it.
pub struct Daemon {
    desks: Vec<Arc<Desk>>,
    store: Arc<dyn Store>,
    started: Timestamp,
    reloader: Reloader,
}

impl Daemon {
    /// All groups, in the order of the configuration.
    #[must_use]
    pub fn new(opened: Vec<Opened>, store: Arc<dyn Store>, reloader: Reloader) -> Self {
        let desks = opened.into_iter().map(|opened| opened.0).collect();
        Self {
            desks,
            store,
            started: Timestamp::now(),
            reloader,
        }
    }

    /// The desks, for metrics and health.
    pub(crate) fn desks(&self) -> &[Arc<Desk>] {
        &self.desks
    }

    /// Reads the configuration again and applies what can change live.
    ///
    /// # Errors
    /// It has problems; nothing was applied.
    pub fn reload_now(&self) -> Answer<ReloadReport> {
        (self.reloader)()
    }

    /// Whether every group lets writes pass.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.desks.iter().all(|desk| !desk.actor.is_fenced())
    }

    fn desk(&self, group: &str) -> Answer<&Arc<Desk>> {
        self.desks
            .iter()
            .find(|desk| desk.group.name == group)
            .ok_or_else(|| {
                let names: Vec<&str> = self.desks.iter().map(|d| d.group.name.as_str()).collect();
                refused(Code::NoSuchGroup, format!("there is no group {group}"))
                    .hint(format!("configured are {}", names.join(", ")))
            })
    }

    /// A run that another one has followed: from its journal.
    async fn past(&self, run: &str) -> Answer<RunProgress> {
        let missing = || refused(Code::NoSuchRun, format!("no run {run} is known"));
        let store = Arc::clone(&self.store);
        let journals = tokio::task::spawn_blocking(move || store.journals()).await;
        let journals = journals.map_err(|e| error::internal(e.to_string()))?;
        let journals = journals.map_err(|e| error::storage(&e))?;
        let lines = journals
            .into_iter()
            .find(|(id, _)| id == run)
            .ok_or_else(missing)?
            .1;
        let (facts, records) = boot::read_journal(run, &lines).map_err(error::internal)?;
        let (seq, now) = (facts.seq, Timestamp::now());
        let events = records.iter().map(book::event).collect();
        Ok(RunProgress {
            run: facts.document(Working::No, now),
            seq,
            events,
            in_flight: None,
        })
    }
}

impl Control for Daemon {
    async fn status(&self) -> Answer<Status> {
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started: self.started,
            groups: self.desks.iter().map(|desk| status::group(desk)).collect(),
        })
    }

    async fn sessions(&self, group: &str) -> Answer<SessionList> {
        Ok(views::sessions(self.desk(group)?).await)
    }

    async fn unknown_list(&self, group: &str) -> Answer<UnknownList> {
        Ok(views::unknown(self.desk(group)?))
    }

    async fn progress(&self, run: &str, wait: Wait) -> Answer<RunProgress> {
        let of = |desk: &&Arc<Desk>| desk.book.facts().is_some_and(|facts| facts.run == run);
        let Some(desk) = self.desks.iter().find(of) else {
            return self.past(run).await;
        };
        let mut progress = match desk.book.progress(wait.after, wait.at_most).await {
            Some(progress) if progress.run.id == run => progress,
            // Another run has begun while this call waited.
            Some(_) | None => return self.past(run).await,
        };
        if let Some(shown) = desk.run().filter(|shown| shown.id == run) {
            progress.run = shown;
        }
        progress.in_flight = Some(status::in_flight(desk));
        Ok(progress)
    }

    async fn drain(&self, group: &str, id: &str, at_most: Duration) -> Answer<Drain> {
        let desk = self.desk(group)?;
        let found = desk.drains.find(id);
        let draining = found.ok_or_else(|| {
            refused(
                Code::NoSuchDrain,
                format!("group {group} has no drain {id}"),
            )
        })?;
        draining.ended_within(at_most).await;
        Ok(desk.drains.document(&draining))
    }

    async fn preflight(&self, call: Call, request: PreflightRequest) -> Answer<Preflight> {
        let desk = self.desk(&call.group)?;
        let live = desk.book.live().map(|facts| facts.run);
        check_run(&call.expect, live.as_deref(), desk.actor.epoch().value())?;
        let to = desk.region(&request.to)?;
        let from = desk.accepted();
        if to == from {
            return Err(refused(
                Code::WrongRegion,
                format!("{to} is the primary already"),
            ));
        }
        let sides = preflight::Sides::ask(desk, &from, &to).await;
        let findings = match request.plan {
            Some(RunKind::Failover) => preflight::for_failover(desk, &to).await,
            _ => preflight::findings_of(desk, &sides).await,
        };
        let plan = request.plan.map(|kind| plan::plan(desk, kind, &sides));
        let (from, to) = (from.to_string(), to.to_string());
        Ok(Preflight {
            plan,
            ..Preflight::new(call.group, Some(from), to, findings)
        })
    }

    async fn explain_sql(&self, call: Call, request: ExplainSqlRequest) -> Answer<ExplainSql> {
        Ok(views::explain(self.desk(&call.group)?, &request).await)
    }

    async fn explain_http(&self, call: Call, request: ExplainHttpRequest) -> Answer<ExplainHttp> {
        explain_http::explain(self.desk(&call.group)?, &request)
    }

    async fn prepare(&self, call: Call, request: Prepare) -> Answer<Run> {
        verbs::prepare(self.desk(&call.group)?, call, request).await
    }

    async fn watch_drain(&self, call: Call, request: WatchDrain) -> Answer<Drain> {
        let desk = self.desk(&call.group)?;
        let draining = verbs::watch_drain(desk, call, request).await?;
        Ok(desk.drains.document(&draining))
    }

    async fn promote(&self, call: Call, request: Promote) -> Answer<Run> {
        verbs::promote(self.desk(&call.group)?, call, request).await
    }

    async fn open_writes(&self, call: Call, request: OpenWrites) -> Answer<Run> {
        verbs::open_writes(self.desk(&call.group)?, call, request).await
    }

    async fn verify(&self, call: Call, request: Verify) -> Answer<Run> {
        verbs::verify(self.desk(&call.group)?, call, request).await
    }

    async fn switchover(&self, call: Call, request: SwitchoverRequest) -> Answer<Run> {
        verbs::switchover(self.desk(&call.group)?, call, request).await
    }

    async fn failover(&self, call: Call, request: FailoverRequest) -> Answer<Run> {
        verbs::failover(self.desk(&call.group)?, call, request).await
    }

    async fn abort(&self, call: Call, _request: Abort) -> Answer<Run> {
        verbs::abort(self.desk(&call.group)?, call).await
    }

    async fn resume(&self, call: Call, _request: Resume) -> Answer<Run> {
        verbs::resume(self.desk(&call.group)?, call).await
    }

    async fn unknown_ack(&self, call: Call, request: UnknownAck) -> Answer<UnknownList> {
        let desk = self.desk(&call.group)?;
        let live = desk.book.live().map(|facts| facts.run);
        check_run(&call.expect, live.as_deref(), desk.actor.epoch().value())?;
        views::acknowledge(desk, &call.actor.to_string(), &request)?;
        Ok(views::unknown(desk))
    }

    async fn reload(&self, actor: Actor, _request: Reload) -> Answer<ReloadReport> {
        tracing::info!(%actor, "reload");
        (self.reloader)()
    }
}
