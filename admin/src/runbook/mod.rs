//! The pure part of a run: its steps, its legal moves, and what its journal says.
//!
//! The daemon executes; this module only knows. A run *is* its journal: each record is written
//! before the step it names (and, where [`Fact::needs_fsync`] says so, is on disk before the step
//! begins), and [`fold`] rebuilds from the records where the run stands. So a daemon that was
//! killed at any moment knows after its start what was begun, what was done, and whether the point
//! of no return was passed.
//!
//! No IO, no clock: bytes and times are handed in.

mod check;
mod event;
mod facts;
mod fold;
mod journal;
mod left;
mod plan;
mod record;
mod rules;

pub use event::events;
pub use facts::{RunFacts, Working};
pub use fold::{FoldError, fold};
pub use journal::{JournalError, Parsed, Torn, encode, parse};
pub use left::left;
pub use plan::{first_step, next_step, next_verb, steps_of, verb_of};
pub use record::{Fact, FenceLsn, Fenced, Opened, Pinned, Promoted, Record, Started};
pub use rules::{after_restart, check_abort, check_resume, check_run, may_become};

pub use crate::api::{RunKind, RunState, Step, StepState};

#[cfg(test)]
mod tests;
