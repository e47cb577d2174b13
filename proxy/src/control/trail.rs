//! The audit, as control writes it: which facts leave a record, and who waits for the disk.
//!
//! Every use of a verb that changes something, every change of a phase, every end of a step and of a
//! run is a record. The order is the gate's: a fence closes in memory first and its record follows;
//! an opening has its record on disk before the first write passes. So an audit that cannot be
//! written refuses an opening and never a fence: what stops writes must not depend on a disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use writefence_admin::api::{ApiError, Code, RunState, Verb};
use writefence_admin::audit::{Entry, Event, Log, Position};
use writefence_admin::runbook::{Fact, Record, RunFacts};
use writefence_admin::{Actor, Answer};

use super::error::{chain, internal};
use crate::shutdown::Tasks;

/// See the module. Without a log (tests, groups without state) nothing is kept.
#[derive(Clone, Default)]
pub struct Trail(Option<Arc<Inner>>);

struct Inner {
    log: Log,
    tasks: Tasks,
    /// A sync was asked for and has not begun: further ones are covered by it.
    due: AtomicBool,
}

/// Who used which verb on what, for the record of how it ended.
pub(crate) struct Used {
    pub(crate) actor: Actor,
    pub(crate) verb: Verb,
    pub(crate) group: Option<String>,
    pub(crate) reason: Option<String>,
}

impl Trail {
    /// A trail into this log; what is started for it is waited for at the end.
    #[must_use]
    pub fn new(log: Log, tasks: Tasks) -> Self {
        Self(Some(Arc::new(Inner {
            log,
            tasks,
            due: AtomicBool::new(false),
        })))
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> Option<&Log> {
        self.0.as_deref().map(|inner| &inner.log)
    }

    /// Why records are waiting to be written, if they are.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        self.log()?.broken()
    }

    /// Writes a record. It survives the death of the process at once, a power cut with the next
    /// sync.
    pub fn append(&self, entry: Entry) {
        let Some(log) = self.log() else { return };
        let was_whole = log.broken().is_none();
        log.append(entry);
        if was_whole && let Some(why) = log.broken() {
            tracing::error!(why, "the audit cannot be written");
        }
    }

    /// Has what was written reach the disk soon, without waiting for it.
    pub fn sync_soon(&self) {
        let Some(inner) = &self.0 else { return };
        if inner.due.swap(true, Ordering::AcqRel) {
            return;
        }
        let own = Arc::clone(inner);
        inner.tasks.spawn(async move {
            let synced = tokio::task::spawn_blocking(move || {
                // Cleared first: what is appended from here on asks again.
                own.due.store(false, Ordering::Release);
                own.log.sync()
            });
            if let Ok(Err(error)) = synced.await {
                tracing::error!(error = %chain(&error), "the audit is not on disk");
            }
        });
    }

    /// Returns once what was written so far survives a power cut.
    ///
    /// # Errors
    /// `storage`: it does not.
    pub async fn sync(&self) -> Result<(), ApiError> {
        let Some(inner) = self.0.clone() else {
            return Ok(());
        };
        let synced = tokio::task::spawn_blocking(move || inner.log.sync().map(|_| ()));
        let synced = synced.await.map_err(|e| internal(e.to_string()))?;
        synced.map_err(|error| {
            ApiError::new(Code::Storage, chain(&error)).hint(
                "nothing is opened that the audit does not know of; free space under [admin] \
                 state_dir and repeat the command",
            )
        })
    }

    /// Where the log stands once everything is signed.
    pub async fn signed(&self) -> Option<Position> {
        let inner = self.0.clone()?;
        let signed = tokio::task::spawn_blocking(move || {
            inner.log.sync().unwrap_or_else(|_| inner.log.position())
        });
        signed.await.ok()
    }

    /// Records how the use of a verb was answered.
    pub(crate) fn answered<T>(&self, used: Used, answer: &Answer<T>) {
        let outcome = match answer {
            Ok(_) => "accepted".to_owned(),
            Err(error) => format!("refused: {}", error.code),
        };
        let mut entry = Entry::new(Event::Verb, outcome);
        entry.actor = used.actor.to_string();
        entry.verb = Some(used.verb);
        entry.group = used.group;
        entry.reason = used.reason;
        if let Err(error) = answer {
            entry.run.clone_from(&error.run);
            entry.epoch = error.epoch;
            entry = entry.fact("why", &error.message);
        }
        self.append(entry);
        self.sync_soon();
    }

    /// Records a change of a phase, or what is about to be one.
    pub(crate) fn phase(&self, outcome: &str, group: &str, epoch: u64, why: &str) {
        let mut entry = Entry::new(Event::Phase, outcome);
        entry.group = Some(group.to_owned());
        entry.epoch = Some(epoch);
        if !why.is_empty() {
            entry = entry.fact("why", why);
        }
        self.append(entry);
        self.sync_soon();
    }

    /// Records what a run's journal says. `facts` are those behind the record.
    pub(crate) fn journaled(&self, facts: &RunFacts, record: &Record) {
        let Some(mut entry) = of_fact(&record.fact) else {
            return;
        };
        entry.group = Some(facts.started.group.clone());
        entry.run = Some(record.run.clone());
        let epoch = facts.fence.map(|(_, fence)| fence.epoch);
        entry.epoch = entry.epoch.or(epoch);
        entry.reason = Some(facts.started.reason.clone());
        self.append(entry);
        if let Fact::State { state, .. } = &record.fact
            && state.is_final()
        {
            self.append(summary(facts, *state));
        }
        let is_end = matches!(record.fact, Fact::State { .. });
        if record.fact.needs_fsync() || is_end {
            self.sync_soon();
        }
    }
}

fn of_fact(fact: &Fact) -> Option<Entry> {
    let run = |outcome: &str| Entry::new(Event::Run, outcome);
    let step = |outcome: &str, step| Entry::new(Event::Step, outcome).fact("step", step);
    Some(match fact {
        Fact::Started(started) => {
            let mut entry = run("started").fact("kind", started.run_kind);
            entry.actor.clone_from(&started.actor);
            if let Some(from) = &started.from {
                entry = entry.fact("from", from);
            }
            if let Some(to) = &started.to {
                entry = entry.fact("to", to);
            }
            if started.accept_loss {
                entry = entry.fact("accept_loss", "true");
            }
            entry
        }
        Fact::Candidate { region } => run("candidate").fact("to", region),
        Fact::StepDone { step: name, .. } => step("done", name),
        Fact::StepSkipped { step: name, reason } => step("skipped", name).fact("why", reason),
        Fact::StepFailed {
            step: name, error, ..
        } => step("failed", name)
            .fact("code", error.code)
            .fact("why", &error.message),
        Fact::Fence(fence) => {
            let mut entry = Entry::new(Event::Phase, "fenced");
            entry.epoch = Some(fence.epoch);
            entry
        }
        Fact::FenceLsn(lsn) => run("fence_lsn")
            .fact("lsn", &lsn.lsn)
            .fact("timeline", lsn.timeline),
        Fact::Evidence { evidence } => run("evidence")
            .fact("kind", word(&evidence.kind))
            .fact("detail", &evidence.detail),
        Fact::Certificate { certificate } => run("certificate")
            .fact("evidence", word(&certificate.evidence.kind))
            .fact("unknown", certificate.unknown),
        Fact::Exception { text } => run("exception").fact("text", text),
        Fact::Pnr { candidate } => run("point_of_no_return").fact("to", &candidate.region),
        Fact::Promoted(promoted) => {
            let mut entry = run("promoted").fact("to", &promoted.region);
            if let Some(timeline) = promoted.timeline {
                entry = entry.fact("timeline", timeline);
            }
            if let Some(lsn) = &promoted.fork_lsn {
                entry = entry.fact("fork_lsn", lsn);
            }
            entry
        }
        Fact::Open(opened) => {
            let mut entry = Entry::new(Event::Phase, "opened").fact("region", &opened.region);
            entry.epoch = Some(opened.epoch);
            entry
        }
        Fact::Aborting { actor, reason } => {
            let mut entry = run("aborting").fact("why", reason);
            entry.actor.clone_from(actor);
            entry
        }
        Fact::State { state, error } => {
            let mut entry = run(&state.to_string());
            if let Some(error) = error {
                entry = entry.fact("code", error.code).fact("why", &error.message);
            }
            entry
        }
        Fact::HookEnded {
            hook,
            moment,
            took_ms,
            error,
        } => {
            let outcome = match error {
                None => "hook_done",
                Some(_) => "hook_failed",
            };
            let mut entry = run(outcome).fact("hook", hook).fact("moment", moment);
            entry = entry.fact("took_ms", took_ms);
            if let Some(why) = error {
                entry = entry.fact("why", why);
            }
            entry
        }
        Fact::Loss(loss) => {
            let mut entry = run("loss_stated").fact("what", &loss.sentence);
            if let Some(bytes) = loss.at_least_bytes {
                entry = entry.fact("at_least_bytes", bytes);
            }
            entry
        }
        Fact::Diverged(log) => run("diverged")
            .fact("region", &log.region)
            .fact("timeline", log.timeline)
            .fact("from_lsn", &log.from_lsn)
            .fact("to_lsn", &log.to_lsn)
            .fact("bytes", log.bytes)
            .fact("seen_again", log.seen_again),
        // A verb is recorded with its answer, the beginning of a step or hook with its end; notes
        // and measurements are for those who follow, and in the run's journal.
        Fact::Verb { .. }
        | Fact::StepStarted { .. }
        | Fact::HookBegun { .. }
        | Fact::Measured(_)
        | Fact::Note { .. } => {
            return None;
        }
    })
}

/// The one record that says what a run came to.
fn summary(facts: &RunFacts, state: RunState) -> Entry {
    let started = &facts.started;
    let mut entry = Entry::new(Event::RegionFailover, state.to_string())
        .fact("kind", started.run_kind)
        .fact("exceptions", facts.exceptions.len());
    entry.group = Some(started.group.clone());
    entry.run = Some(facts.run.clone());
    entry.reason = Some(started.reason.clone());
    entry.actor.clone_from(&started.actor);
    entry.epoch = facts.opened.as_ref().map(|(_, opened)| opened.epoch);
    let promoted = facts.promoted.as_ref();
    let certificate = facts.certificate.as_ref();
    let cost = facts.measured.as_ref();
    let further = [
        ("from", started.from.clone()),
        ("to", facts.to.clone()),
        ("fence_lsn", facts.fence_lsn.as_ref().map(|l| l.lsn.clone())),
        ("fork_lsn", promoted.and_then(|p| p.fork_lsn.clone())),
        (
            "timeline",
            promoted.and_then(|p| Some(p.timeline?.to_string())),
        ),
        ("evidence", certificate.map(|c| word(&c.evidence.kind))),
        ("unknown", certificate.map(|c| c.unknown.to_string())),
        ("code", facts.error.as_ref().map(|e| e.code.to_string())),
        (
            "write_gap_ms",
            cost.and_then(|m| Some(m.write_gap_ms?.to_string())),
        ),
        (
            "lost_bytes",
            cost.and_then(|m| Some(m.lost_bytes?.to_string())),
        ),
    ];
    for (name, text) in further {
        if let Some(text) = text {
            entry = entry.fact(name, text);
        }
    }
    entry
}

/// A word of the documents, as it stands in JSON.
fn word(word: &impl serde::Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}
