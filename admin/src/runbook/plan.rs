//! Which step comes next, and which verb stands for which steps.
//!
//! One order for all kinds of runs; a step that a run does not need is skipped on record, so that
//! "not needed" and "not reached" can be told apart. A run of single steps advances by its verbs,
//! every other kind advances itself.

use super::{RunFacts, RunKind, RunState, Step, StepState};
use crate::api::Verb;

/// The verb that a step belongs to in a run of single steps.
pub const fn verb_of(step: Step) -> Verb {
    match step {
        Step::Preflight | Step::Fence => Verb::Prepare,
        Step::Drain => Verb::WatchDrain,
        Step::Evidence
        | Step::Certificate
        | Step::CaughtUp
        | Step::Pnr
        | Step::Promote
        | Step::Identity
        | Step::Hooks => Verb::Promote,
        Step::Open | Step::Converge => Verb::OpenWrites,
        Step::Verify | Step::Report => Verb::Verify,
    }
}

/// The steps that a verb takes a run through; empty for verbs that are not steps of a run.
pub fn steps_of(verb: Verb) -> Vec<Step> {
    match verb {
        Verb::Switchover | Verb::Failover => Step::ALL.to_vec(),
        Verb::Drill => Step::ALL
            .into_iter()
            .filter(|step| *step < Step::Pnr)
            .collect(),
        verb => Step::ALL
            .into_iter()
            .filter(|step| verb_of(*step) == verb)
            .collect(),
    }
}

/// The step every run begins with.
pub const fn first_step() -> Step {
    Step::ALL[0]
}

/// The first step that is neither done nor skipped; `None` once all are.
pub fn next_step(facts: &RunFacts) -> Option<Step> {
    facts
        .steps
        .iter()
        .find(|step| !matches!(step.state, StepState::Done | StepState::Skipped))
        .map(|step| step.name)
}

/// The verb an operator would use next, if the run waits for one.
pub fn next_verb(facts: &RunFacts) -> Option<Verb> {
    match facts.state {
        RunState::Interrupted => Some(Verb::Resume),
        // An abort that stopped on the way back is taken up by asking for it again.
        RunState::Aborting => Some(Verb::Abort),
        RunState::Running => match facts.started.run_kind {
            // A fence that could not be stored is not tried again: there is only the way back.
            RunKind::Steps if facts.step(Step::Fence).state == StepState::Failed => {
                Some(Verb::Abort)
            }
            RunKind::Steps => next_step(facts).map(verb_of),
            // These advance by themselves; standing still they are where a step failed behind the
            // point of no return, and `resume` repeats it.
            RunKind::Switchover | RunKind::Failover | RunKind::Drill => Some(Verb::Resume),
        },
        RunState::Done | RunState::Aborted | RunState::RolledBack | RunState::Failed => None,
    }
}
