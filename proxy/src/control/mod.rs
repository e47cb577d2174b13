//! Control: the verbs of the admin contract, carried out.
//!
//! Reading order: `actor` (the one place that changes a phase), `book` (what is journalled),
//! `steps` (what a run does), `work` (the task that does it), `verbs` (what operators may ask),
//! `console` (what PgBouncer's may ask), `servers` (the databases as a seam) with `observer` behind it, `start` (the first moment),
//! `status` and `views` (what is shown). One [`Daemon`] serves all groups; each group has a desk of
//! its own and nothing is shared between them but the store.

#![warn(clippy::wildcard_enum_match_arm)]

mod actor;
mod book;
mod boot;
mod checks;
mod console;
mod desk;
mod drains;
mod error;
mod explain_http;
mod figures;
mod former;
mod hooks;
mod leftover;
mod line;
mod loss;
mod measure;
mod nearby;
mod observer;
mod origins;
mod plan;
mod preflight;
mod servers;
mod settings;
mod start;
mod status;
mod steps;
#[cfg(test)]
mod tests;
mod trail;
mod tripwire;
mod unknown;
mod verbs;
mod views;
mod work;

use std::sync::Arc;
use std::time::Duration;

use writefence_admin::api::{
    Abort, ApiError, AuditPage, Code, Drain, DrillRequest, ExplainHttp, ExplainHttpRequest,
    ExplainSql, ExplainSqlRequest, FailoverRequest, OpenWrites, Preflight, PreflightRequest,
    Prepare, Promote, Reload, ReloadReport, Resume, Run, RunKind, RunProgress, SessionList, Status,
    SwitchoverRequest, Timestamp, UnknownAck, UnknownList, UnknownWrite, Verb, Verify, WatchDrain,
};
use writefence_admin::audit::{Entry, Event};
use writefence_admin::report::{Audited, Report, build};
use writefence_admin::runbook::{Record, RunFacts, Working, check_run, events};
use writefence_admin::{Actor, Answer, Call, Control, Wait};

use desk::Desk;
use error::refused;
use trail::Used;

pub use boot::{Boot, BootError, GroupParts, Opened, open, open_origins};
pub use console::{Listing, serve_consoles};
pub use error::chain;
pub use figures::{Figures, RegionFigures};
pub use line::ObserverLogin;
pub use origins::OriginsPlan;
pub use settings::Settings;
pub use trail::Trail;

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
        self.reload_as("writefence, by a signal")
    }

    fn reload_as(&self, actor: &str) -> Answer<ReloadReport> {
        let answer = (self.reloader)();
        let mut entry = match &answer {
            Ok(report) => Entry::new(Event::Reload, "applied")
                .fact("applied", report.applied.join(" "))
                .fact("needs_restart", report.needs_restart.join(" ")),
            Err(error) => Entry::new(Event::Reload, format!("refused: {}", error.code))
                .fact("why", &error.message),
        };
        entry.actor = actor.to_owned();
        entry.verb = Some(Verb::Reload);
        let trail = self.trail();
        trail.append(entry);
        trail.sync_soon();
        answer
    }

    /// The audit; every group writes into the same.
    fn trail(&self) -> Trail {
        let first = self.desks.first();
        first.map_or_else(Trail::default, |desk| desk.book.trail().clone())
    }

    /// Carries out a verb that changes something, and records how it was answered.
    async fn used<T>(
        &self,
        call: &Call,
        verb: Verb,
        reason: Option<&str>,
        work: impl Future<Output = Answer<T>>,
    ) -> Answer<T> {
        let used = Used {
            actor: call.actor,
            verb,
            group: Some(call.group.clone()),
            reason: reason.map(str::to_owned),
        };
        let answer = work.await;
        self.trail().answered(used, &answer);
        answer
    }

    /// Why writes do not pass in some group; `None` where they pass in all.
    #[must_use]
    pub fn unwritable(&self) -> Option<&'static str> {
        if self.desks.iter().any(|desk| desk.actor.is_fenced()) {
            return Some("fenced");
        }
        let is_silent = |desk: &Arc<Desk>| {
            let seen = desk.servers.seen(&desk.accepted());
            seen.is_some_and(|seen| seen.known().is_none())
        };
        let silent = self.desks.iter().any(is_silent);
        silent.then_some("the primary does not answer")
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

    /// A run's journal, also of one that others have followed.
    async fn journal(&self, run: &str) -> Answer<(RunFacts, Vec<Record>)> {
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
        boot::read_journal(run, &lines).map_err(error::internal)
    }

    /// A run that another one has followed: from its journal.
    async fn past(&self, run: &str) -> Answer<RunProgress> {
        let (facts, records) = self.journal(run).await?;
        let (seq, now) = (facts.seq, Timestamp::now());
        let events = events(&records);
        Ok(RunProgress {
            run: facts.document(Working::No, now),
            seq,
            events,
            in_flight: None,
            left: None,
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

    async fn report(&self, run: &str) -> Answer<Report> {
        let (facts, records) = self.journal(run).await?;
        let trail = self.trail();
        let audit = trail.signed().await.and_then(|at| {
            let key = trail.log()?.verifier().to_string();
            Some(Audited {
                key,
                size: at.size,
                checkpoint: at.checkpoint,
            })
        });
        let group = &facts.started.group;
        let desk = self.desks.iter().find(|desk| desk.group.name == *group);
        let mut unknown = desk.map_or_else(Vec::new, |desk| views::unknown(desk).writes);
        unknown.retain(|write| is_of(&facts, write));
        Ok(build(&facts, &records, unknown, audit, Timestamp::now()))
    }

    async fn audit(&self, after: u64, limit: usize) -> Answer<AuditPage> {
        let trail = self.trail();
        let at = trail.signed().await;
        let read = tokio::task::spawn_blocking(move || {
            let log = trail.log()?;
            Some((log.verifier(), log.read(after, limit), log.broken()))
        });
        let read = read.await.map_err(|e| error::internal(e.to_string()))?;
        let missing = || refused(Code::Precondition, "this daemon keeps no audit");
        let (key, page, broken) = read.ok_or_else(missing)?;
        let page = page.map_err(|e| ApiError::new(Code::Storage, chain(&e)))?;
        let at = at.ok_or_else(missing)?;
        Ok(AuditPage {
            key: key.to_string(),
            size: at.size,
            checkpoint: at.checkpoint,
            lines: page.lines,
            last: page.last,
            end: page.end,
            broken,
        })
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
        let reason = request.reason.clone();
        let work = async { verbs::prepare(self.desk(&call.group)?, call.clone(), request).await };
        self.used(&call, Verb::Prepare, Some(&reason), work).await
    }

    async fn watch_drain(&self, call: Call, request: WatchDrain) -> Answer<Drain> {
        let work = async {
            let desk = self.desk(&call.group)?;
            let draining = verbs::watch_drain(desk, call.clone(), request).await?;
            Ok(desk.drains.document(&draining))
        };
        self.used(&call, Verb::WatchDrain, None, work).await
    }

    async fn promote(&self, call: Call, request: Promote) -> Answer<Run> {
        let work = async { verbs::promote(self.desk(&call.group)?, call.clone(), request).await };
        self.used(&call, Verb::Promote, None, work).await
    }

    async fn open_writes(&self, call: Call, request: OpenWrites) -> Answer<Run> {
        let work =
            async { verbs::open_writes(self.desk(&call.group)?, call.clone(), request).await };
        self.used(&call, Verb::OpenWrites, None, work).await
    }

    async fn verify(&self, call: Call, request: Verify) -> Answer<Run> {
        let work = async { verbs::verify(self.desk(&call.group)?, call.clone(), request).await };
        self.used(&call, Verb::Verify, None, work).await
    }

    async fn switchover(&self, call: Call, request: SwitchoverRequest) -> Answer<Run> {
        let reason = request.reason.clone();
        let work =
            async { verbs::switchover(self.desk(&call.group)?, call.clone(), request).await };
        self.used(&call, Verb::Switchover, Some(&reason), work)
            .await
    }

    async fn failover(&self, call: Call, request: FailoverRequest) -> Answer<Run> {
        let reason = request.reason.clone();
        let work = async { verbs::failover(self.desk(&call.group)?, call.clone(), request).await };
        self.used(&call, Verb::Failover, Some(&reason), work).await
    }

    async fn drill(&self, call: Call, request: DrillRequest) -> Answer<Run> {
        let reason = request.reason.clone();
        let work = async { verbs::drill(self.desk(&call.group)?, call.clone(), request).await };
        self.used(&call, Verb::Drill, Some(&reason), work).await
    }

    async fn abort(&self, call: Call, _request: Abort) -> Answer<Run> {
        let work = async { verbs::abort(self.desk(&call.group)?, call.clone()).await };
        self.used(&call, Verb::Abort, None, work).await
    }

    async fn resume(&self, call: Call, _request: Resume) -> Answer<Run> {
        let work = async { verbs::resume(self.desk(&call.group)?, call.clone()).await };
        self.used(&call, Verb::Resume, None, work).await
    }

    async fn unknown_ack(&self, call: Call, request: UnknownAck) -> Answer<UnknownList> {
        let reason = request.reason.clone();
        let work = async {
            let desk = self.desk(&call.group)?;
            let live = desk.book.live().map(|facts| facts.run);
            check_run(&call.expect, live.as_deref(), desk.actor.epoch().value())?;
            views::acknowledge(desk, &call.actor.to_string(), &request)?;
            Ok(views::unknown(desk))
        };
        self.used(&call, Verb::Unknown, Some(&reason), work).await
    }

    async fn reload(&self, actor: Actor, _request: Reload) -> Answer<ReloadReport> {
        tracing::info!(%actor, "reload");
        self.reload_as(&actor.to_string())
    }
}

/// Whether a write of unknown outcome belongs to this run's report: lost from the old primary's last
/// sign of life on, and not behind the run's end.
fn is_of(facts: &RunFacts, write: &UnknownWrite) -> bool {
    let run = facts.document(Working::No, Timestamp::now());
    let seen = facts
        .measured
        .as_ref()
        .and_then(|m| m.old_primary_last_seen);
    let from = seen.map_or(run.started, |seen| seen.min(run.started));
    write.at >= from && run.ended.is_none_or(|ended| write.at <= ended)
}
