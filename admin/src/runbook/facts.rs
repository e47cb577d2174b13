//! [`RunFacts`]: where a run stands, as its journal says; and the same as a document.
//!
//! Kept by the daemon for the live run and rebuilt by [`super::fold`] after a restart, both by
//! [`RunFacts::apply`], so that the two can never differ.

use super::{FenceLsn, Fenced, Opened, Pinned, Promoted, RunState, Started, Step, StepState};
use super::{next_verb, plan::verb_of};
use crate::api::{
    ApiError, Certificate, DivergedLog, Evidence, Loss, Measured, Run, StepRecord, Timestamp, Verb,
};

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFacts {
    /// The run's id.
    pub run: String,
    /// The last record's number.
    pub seq: u64,
    /// When the run began.
    pub started_at: Timestamp,
    /// When it reached a final state.
    pub ended_at: Option<Timestamp>,
    /// What was asked for.
    pub started: Started,
    /// The candidate's region, as far as named.
    pub to: Option<String>,
    /// The state.
    pub state: RunState,
    /// Why the last verb, or the run, ended without reaching its aim.
    pub error: Option<ApiError>,
    /// The operator's last verb.
    pub verb: Option<Verb>,
    /// What was waived.
    pub exceptions: Vec<String>,
    /// Hooks that were done, each with its moment: a run that is resumed does none of them again.
    pub hooks_done: Vec<(String, String)>,
    /// The step begun last.
    pub step: Option<Step>,
    /// Every step, in order.
    pub steps: Vec<StepRecord>,
    /// The fence, once it fell.
    pub fence: Option<(Timestamp, Fenced)>,
    /// The old primary's last position.
    pub fence_lsn: Option<FenceLsn>,
    /// What bars the old primary; void once aborting.
    pub evidence: Option<Evidence>,
    /// What the promotion rests on; void once aborting.
    pub certificate: Option<Certificate>,
    /// The candidate, once the point of no return was passed.
    pub pnr: Option<Pinned>,
    /// The new primary's identity, once it is one.
    pub promoted: Option<Promoted>,
    /// The opening, once writes passed again.
    pub opened: Option<(Timestamp, Opened)>,
    /// What it cost.
    pub measured: Option<Measured>,
    /// What would be lost, as stated before an unplanned move.
    pub loss: Option<Loss>,
    /// What the new primary does not have, as found last.
    pub diverged: Option<DivergedLog>,
}

/// Whether the daemon is at work on a run or the run waits for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Working {
    /// A task of the daemon advances it.
    Yes,
    /// It waits.
    No,
}

impl RunFacts {
    pub(super) fn new(run: String, at: Timestamp, started: Started) -> Self {
        Self {
            run,
            seq: 1,
            started_at: at,
            ended_at: None,
            to: started.to.clone(),
            started,
            state: RunState::Running,
            error: None,
            verb: None,
            exceptions: Vec::new(),
            hooks_done: Vec::new(),
            step: None,
            steps: Step::ALL.into_iter().map(pending).collect(),
            fence: None,
            fence_lsn: None,
            evidence: None,
            certificate: None,
            pnr: None,
            promoted: None,
            opened: None,
            measured: None,
            loss: None,
            diverged: None,
        }
    }

    /// One step's record.
    pub fn step(&self, step: Step) -> &StepRecord {
        &self.steps[step as usize]
    }

    pub(super) fn step_mut(&mut self, step: Step) -> &mut StepRecord {
        &mut self.steps[step as usize]
    }

    /// Whether a hook was done at this moment of the run.
    pub fn has_done(&self, hook: &str, moment: &str) -> bool {
        let done = |(name, when): &(String, String)| name == hook && when == moment;
        self.hooks_done.iter().any(done)
    }

    /// Whether a step needs no more doing.
    pub fn is_behind(&self, step: Step) -> bool {
        matches!(self.step(step).state, StepState::Done | StepState::Skipped)
    }

    /// The run as the document that operators see. `now` only serves the write gap, while the
    /// group is still fenced.
    pub fn document(&self, working: Working, now: Timestamp) -> Run {
        let working = working == Working::Yes;
        Run {
            id: self.run.clone(),
            group: self.started.group.clone(),
            kind: self.started.run_kind,
            from: self.started.from.clone(),
            to: self.to.clone(),
            reason: self.started.reason.clone(),
            actor: self.started.actor.clone(),
            state: self.state,
            working,
            next: if working { None } else { next_verb(self) },
            error: self.error.clone(),
            exceptions: self.exceptions.clone(),
            step: self.step,
            steps: self.steps.clone(),
            certificate: self.certificate.clone(),
            budget_ms: self.started.budget_ms,
            epoch: self.fence.map(|(_, fence)| fence.epoch),
            started: self.started_at,
            ended: self.ended_at,
            write_gap_ms: self.write_gap_ms(now),
        }
    }

    /// From the fence to the opening, milliseconds of wall-clock time.
    fn write_gap_ms(&self, now: Timestamp) -> Option<u64> {
        let (from, _) = self.fence?;
        let to = match &self.opened {
            Some((at, _)) => *at,
            None => self.ended_at.unwrap_or(now),
        };
        u64::try_from(to.since(from).as_millis()).ok()
    }

    /// The verb whose steps are all behind, for a run of single steps: what it has achieved.
    pub fn achieved(&self, verb: Verb) -> bool {
        self.steps
            .iter()
            .filter(|step| verb_of(step.name) == verb)
            .all(|step| self.is_behind(step.name))
    }
}

/// A step that was not begun.
pub(super) const fn pending(name: Step) -> StepRecord {
    StepRecord {
        name,
        state: StepState::Pending,
        started: None,
        ended: None,
        error: None,
        findings: Vec::new(),
    }
}
