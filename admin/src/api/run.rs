//! The `run` document: one move of one group, step by step.
//!
//! A finished run stays in `status` until the next begins. Which step may follow which is not
//! decided here but in `runbook`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ApiError, Certificate, Exit, InFlight, Step, StepRecord, Timestamp, Verb};

/// A move of a group: what was asked, how far it is, what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Names it within the daemon, and its journal.
    pub id: String,
    /// The group.
    pub group: String,
    /// What was started.
    pub kind: RunKind,
    /// The accepted primary's region at the start; null if there was none (no state).
    pub from: Option<String>,
    /// The candidate's region; null in a run of single steps until `promote` names it.
    pub to: Option<String>,
    /// The operator's reason, such as a ticket.
    pub reason: String,
    /// Who started it.
    pub actor: String,
    /// How it stands.
    pub state: RunState,
    /// True while the daemon is at work on it; false while it waits for the operator.
    pub working: bool,
    /// The verb that comes next, while it waits for the operator and one is due.
    pub next: Option<Verb>,
    /// Why the last verb, or the run, ended without reaching its aim; null otherwise.
    pub error: Option<ApiError>,
    /// What was waived on the way, as sentences: accepted loss, override, failed checks.
    pub exceptions: Vec<String>,
    /// The step in hand or the last one begun.
    pub step: Option<Step>,
    /// Every step of the plan, in order.
    pub steps: Vec<StepRecord>,
    /// What the promotion rests on; null until issued, and again once the run is aborting.
    pub certificate: Option<Certificate>,
    /// Time allowed before the point of no return, milliseconds; null: none set.
    pub budget_ms: Option<u64>,
    /// The epoch of the run's fence.
    pub epoch: Option<u64>,
    /// When it began.
    pub started: Timestamp,
    /// When it reached a final state.
    pub ended: Option<Timestamp>,
    /// From the fence to the opening, milliseconds; still growing while fenced.
    pub write_gap_ms: Option<u64>,
}

/// `GET /v1/runs/{id}?after=<seq>&wait_ms=<ms>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunProgress {
    /// The run as it is now.
    pub run: Run,
    /// The last event's number; the next call's `after`.
    pub seq: u64,
    /// Events newer than `after`, in order.
    pub events: Vec<Event>,
    /// The group's counts as they are now.
    pub in_flight: Option<InFlight>,
    /// How far the run is; null once it has ended.
    #[serde(default)]
    pub left: Option<Left>,
}

/// How far a run is, and what may be left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Steps that are done or not needed.
    pub behind: u64,
    /// Steps that the run goes through.
    pub of: u64,
    /// What the rest took in the last run of this kind, milliseconds; null without one.
    pub eta_ms: Option<u64>,
    /// Time left before the run goes back by itself, milliseconds; null behind its point of no
    /// return, and where none is set.
    pub budget_ms: Option<u64>,
}

/// Something that happened in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one within the run.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// The step it belongs to.
    pub step: Option<Step>,
    /// What happened, as a sentence; empty for the beginning and the end of a step, which the run's
    /// `steps` show.
    pub text: String,
}

/// What was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunKind {
    /// `prepare`, then verb by verb.
    Steps,
    /// Planned, advancing by itself.
    Switchover,
    /// Unplanned, advancing by itself.
    Failover,
    /// A rehearsal.
    Drill,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Live.
    Running,
    /// The daemon was restarted; fenced until `resume` or `abort`.
    Interrupted,
    /// On its way back; no certificate holds any more.
    Aborting,
    /// Reached its aim.
    Done,
    /// Taken back by an operator.
    Aborted,
    /// Took itself back.
    RolledBack,
    /// Ended without reaching its aim and without a way back.
    Failed,
}

impl fmt::Display for RunKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Run {
    /// How the command that used `verb` ends, once the daemon no longer works on the run.
    pub fn verdict(&self, verb: Verb) -> Exit {
        let failure = self.error.as_ref().map(|error| error.code.exit());
        match self.state {
            RunState::Done => Exit::Done,
            RunState::Aborted | RunState::RolledBack if verb == Verb::Abort => Exit::Done,
            // Writes pass where they were, as was asked for.
            RunState::Aborted if verb == Verb::OpenWrites => Exit::Done,
            // A rehearsal that came to its end goes back, as it was meant to.
            RunState::RolledBack if self.kind == RunKind::Drill && self.error.is_none() => {
                Exit::Done
            }
            RunState::Aborted | RunState::RolledBack => Exit::Aborted,
            RunState::Aborting | RunState::Failed => failure.unwrap_or(Exit::Aborted),
            RunState::Interrupted => Exit::Precondition,
            // A run of single steps that waits for its next verb: this one did what it should,
            // unless it left an error.
            RunState::Running => failure.unwrap_or(Exit::Done),
        }
    }
}

impl RunState {
    /// Whether nothing follows.
    pub const fn is_final(self) -> bool {
        match self {
            Self::Running | Self::Interrupted | Self::Aborting => false,
            Self::Done | Self::Aborted | Self::RolledBack | Self::Failed => true,
        }
    }
}
