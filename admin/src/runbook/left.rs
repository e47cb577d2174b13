//! How far a run is, by its steps and by what the last one of its kind took.
//!
//! An estimate for people who wait; nothing is decided by it. The time of a step is the only thing
//! that is known beforehand, and only if there was a run like this one.

use super::{RunFacts, RunKind, Step, StepState};
use crate::api::{Left, StepRecord, Timestamp};

/// How far a live run is at `now`. `before` is an earlier run, which counts if it is of the same kind
/// and went through the steps that are left.
#[must_use]
pub fn left(facts: &RunFacts, before: Option<&RunFacts>, now: Timestamp) -> Option<Left> {
    if facts.state.is_final() {
        return None;
    }
    let steps: Vec<&StepRecord> = facts
        .steps
        .iter()
        .filter(|s| goes_through(facts, s))
        .collect();
    let behind = steps.iter().filter(|s| facts.is_behind(s.name)).count();
    let like = before.filter(|run| {
        let (this, that) = (&facts.started, &run.started);
        this.run_kind == that.run_kind && this.fence_only == that.fence_only
    });
    let ahead = || steps.iter().filter(|s| !facts.is_behind(s.name));
    let eta_ms = like.and_then(|run| ahead().map(|step| rest_of(step, run, now)).sum());
    let budget_ms = match (facts.started.budget_ms, facts.fence, &facts.pnr) {
        (Some(budget), Some((fenced, _)), None) => Some(budget.saturating_sub(ms(now, fenced))),
        (budget, None, None) => budget,
        (_, _, Some(_)) | (None, Some(_), None) => None,
    };
    Some(Left {
        behind: behind as u64,
        of: steps.len() as u64,
        eta_ms,
        budget_ms,
    })
}

/// A drill turns back before the point of no return, and a shorter one before the evidence.
fn goes_through(facts: &RunFacts, step: &StepRecord) -> bool {
    match facts.started.run_kind {
        RunKind::Drill if facts.started.fence_only => step.name <= Step::Drain,
        RunKind::Drill => step.name < Step::Pnr,
        RunKind::Steps | RunKind::Switchover | RunKind::Failover => true,
    }
}

/// What a step took before, less what it has taken already; `None` where it was not taken before.
fn rest_of(step: &StepRecord, before: &RunFacts, now: Timestamp) -> Option<u64> {
    let then = before.step(step.name);
    if then.state == StepState::Skipped {
        return Some(0);
    }
    let took = ms(then.ended?, then.started?);
    let so_far = match (step.state, step.started) {
        (StepState::Running, Some(since)) => ms(now, since),
        _ => 0,
    };
    Some(took.saturating_sub(so_far))
}

fn ms(to: Timestamp, from: Timestamp) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}
