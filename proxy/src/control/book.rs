//! The book of a group's run: what is journalled, what is shown, who is told.
//!
//! Every fact goes through [`Book::note`]: checked against the rules of a run, appended to the
//! journal, and only then taken into the facts that status and the steps read. So nothing is shown
//! or done that a successor would not find.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use writefence_admin::api::{ApiError, Code, Event, Run, RunProgress, Timestamp};
use writefence_admin::runbook::{Fact, Record, RunFacts, Started, Working, encode, events, left};

use super::error::{internal, storage};
use super::trail::Trail;
use crate::failpoint;
use crate::fleet::{Durability, Store};

/// See the module.
pub(crate) struct Book {
    store: Arc<dyn Store>,
    /// Held over check and append, so that numbers follow each other.
    writing: tokio::sync::Mutex<()>,
    page: Mutex<Page>,
    turned: watch::Sender<u64>,
    trail: Trail,
}

#[derive(Default)]
struct Page {
    facts: Option<RunFacts>,
    /// The run before, for estimates.
    before: Option<RunFacts>,
    events: Vec<Event>,
    working: bool,
}

impl Book {
    /// A book with the group's last run, if there was one, as its journal tells.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        trail: Trail,
        last: Option<(RunFacts, Vec<Record>)>,
    ) -> Arc<Self> {
        let mut page = Page::default();
        if let Some((facts, records)) = last {
            page.facts = Some(facts);
            page.events = events(&records);
        }
        let writing = tokio::sync::Mutex::default();
        Arc::new(Self {
            store,
            writing,
            page: Mutex::new(page),
            turned: watch::Sender::new(0),
            trail,
        })
    }

    /// The audit.
    pub(crate) fn trail(&self) -> &Trail {
        &self.trail
    }

    /// The live or the last run's facts.
    pub(crate) fn facts(&self) -> Option<RunFacts> {
        self.page().facts.clone()
    }

    /// The live run's facts: begun and without a final state.
    pub(crate) fn live(&self) -> Option<RunFacts> {
        self.facts().filter(|facts| !facts.state.is_final())
    }

    /// The live or the last run as a document.
    pub(crate) fn run(&self) -> Option<Run> {
        let page = self.page();
        page.facts
            .as_ref()
            .map(|facts| facts.document(page.is_working(), Timestamp::now()))
    }

    /// Whether a task advances the run.
    pub(crate) fn is_working(&self) -> bool {
        self.page().working
    }

    /// Says whether a task advances the run.
    pub(crate) fn set_working(&self, working: bool) {
        self.page().working = working;
        self.turn();
    }

    /// Returns when no task advances the run, at the latest after `at_most`.
    pub(crate) async fn rested(&self, at_most: Duration) {
        let mut turned = self.turned.subscribe();
        let rests = async { while self.is_working() && turned.changed().await.is_ok() {} };
        // May be dropped: it only looks.
        let _ = tokio::time::timeout(at_most, rests).await;
    }

    /// Begins a run; the one before must have ended.
    pub(crate) async fn begin(&self, id: &str, started: Started) -> Result<(), ApiError> {
        let _writing = self.writing.lock().await;
        if let Some(live) = self.live() {
            return Err(in_progress(&live));
        }
        let (run, at, fact) = (id.to_owned(), Timestamp::now(), Fact::Started(started));
        let record = Record {
            seq: 1,
            at,
            run,
            fact,
        };
        let facts = RunFacts::begin(&record).map_err(|e| internal(e.to_string()))?;
        self.append(&record, Durability::Sync).await?;
        failpoint::recorded(&record.fact);
        self.trail.journaled(&facts, &record);
        let mut page = self.page();
        page.before = page.facts.replace(facts);
        page.events = vec![record.event(None)];
        drop(page);
        self.turn();
        Ok(())
    }

    /// Records a fact of the live run; on disk where the fact asks for it.
    pub(crate) async fn note(&self, fact: Fact) -> Result<(), ApiError> {
        let durability = match fact.needs_fsync() {
            true => Durability::Sync,
            false => Durability::Lazy,
        };
        self.note_with(fact, durability).await
    }

    /// Records a fact with a durability of the caller's choice.
    pub(crate) async fn note_with(&self, fact: Fact, how: Durability) -> Result<(), ApiError> {
        let _writing = self.writing.lock().await;
        let mut facts = self
            .facts()
            .ok_or_else(|| internal("there is no run to record for"))?;
        let record = Record {
            seq: facts.seq + 1,
            at: Timestamp::now(),
            run: facts.run.clone(),
            fact,
        };
        facts
            .apply(&record)
            .map_err(|e| internal(e.to_string()).run(&facts.run))?;
        self.append(&record, how)
            .await
            .map_err(|e| e.run(&facts.run))?;
        failpoint::recorded(&record.fact);
        self.trail.journaled(&facts, &record);
        logged(&facts, &record);
        let event = record.event(facts.step);
        let mut page = self.page();
        page.facts = Some(facts);
        page.events.push(event);
        drop(page);
        self.turn();
        Ok(())
    }

    /// Waits until everything recorded so far survives a power cut.
    pub(crate) async fn sync(&self) -> Result<(), ApiError> {
        let Some(run) = self.facts().map(|facts| facts.run) else {
            return Ok(());
        };
        self.store
            .sync(&run)
            .await
            .map_err(|e| storage(&e).run(run))
    }

    /// The run and its events after `after`, as soon as there is something newer or nobody works
    /// on it any more, at the latest after `at_most`.
    pub(crate) async fn progress(&self, after: u64, at_most: Duration) -> Option<RunProgress> {
        let mut turned = self.turned.subscribe();
        let newer = async { while !self.is_newer(after) && turned.changed().await.is_ok() {} };
        // Either arm may be dropped: both only look.
        let _ = tokio::time::timeout(at_most, newer).await;
        let run = self.run()?;
        let page = self.page();
        let events: Vec<Event> = page
            .events
            .iter()
            .filter(|e| e.seq > after)
            .cloned()
            .collect();
        let seq = page.events.last().map_or(0, |e| e.seq);
        let facts = page.facts.as_ref();
        let left = facts.and_then(|facts| left(facts, page.before.as_ref(), Timestamp::now()));
        Some(RunProgress {
            run,
            seq,
            events,
            in_flight: None,
            left,
        })
    }

    fn is_newer(&self, after: u64) -> bool {
        let page = self.page();
        !page.working || page.events.last().is_some_and(|e| e.seq > after)
    }

    async fn append(&self, record: &Record, how: Durability) -> Result<(), ApiError> {
        let mut line = encode(record);
        line.pop();
        let line = String::from_utf8(line).expect("JSON is UTF-8");
        self.store
            .append(&record.run, line, how)
            .await
            .map_err(|e| storage(&e))
    }

    fn turn(&self) {
        self.turned.send_modify(|n| *n += 1);
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        // Each change replaces whole values; a panic in between leaves a readable page.
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Page {
    fn is_working(&self) -> Working {
        if self.working {
            Working::Yes
        } else {
            Working::No
        }
    }
}

/// Another run is live.
pub(crate) fn in_progress(live: &RunFacts) -> ApiError {
    ApiError::new(
        Code::RunInProgress,
        format!(
            "run {} ({}, by {}, {}) is live in this group",
            live.run, live.started.run_kind, live.started.actor, live.state
        ),
    )
    .hint("wait for it, `resume` it or `abort` it")
    .run(&live.run)
}

/// What changes where writes go, or takes something back, also stands in the daemon's log.
fn logged(facts: &RunFacts, record: &Record) {
    let (group, run) = (&facts.started.group, &facts.run);
    match &record.fact {
        Fact::StepFailed { step, error, .. } => {
            tracing::warn!(group = %group, run = %run, step = %step, "{error}");
        }
        Fact::State {
            state,
            error: Some(error),
        } => {
            tracing::warn!(group = %group, run = %run, "the run is {state}: {error}");
        }
        Fact::State { state, error: None } => {
            tracing::info!(group = %group, run = %run, "the run is {state}");
        }
        Fact::Exception { .. } => {
            tracing::warn!(group = %group, run = %run, "{}", record.event(None).text);
        }
        Fact::Fence(_)
        | Fact::Pnr { .. }
        | Fact::Open(_)
        | Fact::Aborting { .. }
        | Fact::Loss(_)
        | Fact::Diverged(_) => {
            tracing::info!(group = %group, run = %run, "{}", record.event(None).text);
        }
        Fact::Started(_)
        | Fact::Verb { .. }
        | Fact::Candidate { .. }
        | Fact::StepStarted { .. }
        | Fact::StepDone { .. }
        | Fact::StepSkipped { .. }
        | Fact::FenceLsn(_)
        | Fact::Evidence { .. }
        | Fact::Certificate { .. }
        | Fact::Promoted(_)
        | Fact::HookBegun { .. }
        | Fact::HookEnded { .. }
        | Fact::Measured(_)
        | Fact::Note { .. } => {}
    }
}
