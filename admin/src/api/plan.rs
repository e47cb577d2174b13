//! What a move would do, step by step, and what it would cost: the answer to a dry run.

use serde::{Deserialize, Serialize};

use super::{Loss, RunKind, Step};

/// A move that is only thought through. Nothing of it was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What would be started.
    pub kind: RunKind,
    /// Every step, in order.
    pub steps: Vec<PlannedStep>,
    /// For how long writes would stop, milliseconds; null where a part of it cannot be told.
    pub predicted_gap_ms: Option<u64>,
    /// For how long at most before the run goes back by itself, or stands still; null: no bound.
    pub bound_ms: Option<u64>,
    /// What the prediction rests on, as a sentence.
    pub basis: String,
    /// What would be lost, as far as it is known; null for a planned move, which loses nothing.
    #[serde(default)]
    pub loss: Option<Loss>,
}

/// One step as it would be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Which.
    pub name: Step,
    /// What it does, as a sentence.
    pub does: String,
    /// What would be sent to a server or run, and where.
    pub commands: Vec<String>,
    /// Whether writes are stopped during it.
    pub in_gap: bool,
    /// How long it would take, milliseconds; null where that cannot be told.
    pub predicted_ms: Option<u64>,
    /// How long it may take, milliseconds; null where it has no bound of its own.
    pub at_most_ms: Option<u64>,
}
