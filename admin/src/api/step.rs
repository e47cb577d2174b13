//! The steps of a run, and how each stands.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ApiError, Finding, Timestamp};

/// The steps, in the order of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Conditions checked.
    Preflight,
    /// New writes stopped.
    Fence,
    /// Admitted writes ended.
    Drain,
    /// The old primary shown to take no more writes.
    Evidence,
    /// What the promotion rests on written down.
    Certificate,
    /// The candidate has replayed up to the fence LSN.
    CaughtUp,
    /// The point of no return.
    Pnr,
    /// The candidate made primary.
    Promote,
    /// The new primary shown to be the promoted candidate.
    Identity,
    /// The user's own commands.
    Hooks,
    /// Writes pass again.
    Open,
    /// Every session on the new target, the old one fenced off.
    Converge,
    /// The state after the move checked.
    Verify,
    /// The report written.
    Report,
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Which step.
    pub name: Step,
    /// How it stands.
    pub state: StepState,
    /// When it was begun last.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<ApiError>,
    /// What was found, for steps that check something.
    pub findings: Vec<Finding>,
}

/// How a step stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Not begun.
    Pending,
    /// Begun.
    Running,
    /// Done.
    Done,
    /// Failed; `error` says why.
    Failed,
    /// Not needed in this run.
    Skipped,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 14] = [
        Self::Preflight,
        Self::Fence,
        Self::Drain,
        Self::Evidence,
        Self::Certificate,
        Self::CaughtUp,
        Self::Pnr,
        Self::Promote,
        Self::Identity,
        Self::Hooks,
        Self::Open,
        Self::Converge,
        Self::Verify,
        Self::Report,
    ];

    /// The step of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.to_string() == name)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
