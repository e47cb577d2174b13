//! The checker: what clients were told against what the servers hold. Pure.
//!
//! Every finding is a list of ids, so that a person can look the first one up. An unknown outcome
//! can't be wrong: its rows may be there or not, but not half and not twice.

use serde::Serialize;

use super::op::{Id, Op, Outcome};
use super::rows::Rows;

/// What does not agree; all lists empty is the promise kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// Acknowledged, and not (or not wholly) on the new primary.
    pub acked_lost: Vec<Id>,
    /// Of these, the ones whose client had not asked for durability.
    pub of_them_async: usize,
    /// Acknowledged, missing on the new primary, and present on the old one: both took writes.
    pub acked_only_on_old: Vec<Id>,
    /// Present more than once.
    pub duplicates: Vec<Id>,
    /// Refused as "not executed", and present.
    pub refused_present: Vec<Id>,
    /// Failed for certain, and present.
    pub failed_present: Vec<Id>,
    /// One transaction, and only a part of it is there.
    pub torn: Vec<Id>,
}

impl Findings {
    /// Acknowledged writes of clients that had asked for durability, and lost.
    #[must_use]
    pub const fn durable_lost(&self) -> usize {
        self.acked_lost.len() - self.of_them_async
    }
}

/// Compares. `old` is the former primary, if it could be asked before it was rewound.
#[must_use]
pub fn judge(ops: &[Op], new: &Rows, old: Option<&Rows>) -> Findings {
    let mut found = Findings {
        duplicates: new.doubled().collect(),
        torn: new.torn().filter(|id| id.shape.is_atomic()).collect(),
        ..Findings::default()
    };
    for op in ops.iter().filter(|op| op.id.shape.writes()) {
        match op.outcome {
            Outcome::Acked if !new.has_all(&op.id) => {
                found.acked_lost.push(op.id);
                found.of_them_async += usize::from(!op.id.shape.durable());
                if old.is_some_and(|old| old.has_any(&op.id)) {
                    found.acked_only_on_old.push(op.id);
                }
            }
            Outcome::Refused if new.has_any(&op.id) => found.refused_present.push(op.id),
            Outcome::Failed if new.has_any(&op.id) => found.failed_present.push(op.id),
            Outcome::Acked
            | Outcome::Refused
            | Outcome::Failed
            | Outcome::Unknown
            | Outcome::NoConnection => {}
        }
    }
    found
}
