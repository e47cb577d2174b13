//! From records to [`RunFacts`], refusing what no daemon could have written.
//!
//! What may stand where is decided in `check.rs`; here is what each record changes. A step that
//! begins again puts every later step back to pending and voids what rested on it: after a restart
//! the drain and the barrier have to be seen anew, not remembered.

use thiserror::Error;

use super::facts::pending;
use super::{Fact, Record, RunFacts, Started, Step, StepState};
use crate::api::{ApiError, Finding, RunState, StepRecord, Timestamp};

/// A journal whose records do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FoldError {
    /// There is no record.
    #[error("the journal is empty")]
    Empty,
    /// The first record is not `started`.
    #[error("the journal does not begin with a `started` record numbered 1")]
    NoStart,
    /// A record is missing or was written twice.
    #[error("record {found} follows record {last}: records are missing or doubled")]
    Gap {
        /// The number before.
        last: u64,
        /// The number found.
        found: u64,
    },
    /// A record belongs to another run.
    #[error("record {seq} belongs to run {found}, the journal to run {run}")]
    OtherRun {
        /// The record.
        seq: u64,
        /// The journal's run.
        run: String,
        /// The record's run.
        found: String,
    },
    /// A record that may not stand there.
    #[error("record {seq} may not stand there: {why}")]
    Illegal {
        /// The record.
        seq: u64,
        /// The rule it breaks.
        why: &'static str,
    },
}

/// Rebuilds where a run stands.
///
/// # Errors
/// [`FoldError`] if the records do not fit together; the group then stays fenced, and a person
/// has to look.
pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<RunFacts, FoldError> {
    let mut records = records.into_iter();
    let mut facts = RunFacts::begin(records.next().ok_or(FoldError::Empty)?)?;
    for record in records {
        facts.apply(record)?;
    }
    Ok(facts)
}

impl RunFacts {
    /// The facts after a run's first record.
    ///
    /// # Errors
    /// [`FoldError::NoStart`] if that is not `started` with number 1.
    pub fn begin(record: &Record) -> Result<Self, FoldError> {
        match &record.fact {
            Fact::Started(started) if record.seq == 1 => Ok(Self::new(
                record.run.clone(),
                record.at,
                Started::clone(started),
            )),
            _ => Err(FoldError::NoStart),
        }
    }

    /// Takes in the next record. On an error nothing has changed, so the daemon can ask before it
    /// writes.
    ///
    /// # Errors
    /// [`FoldError`] if the record cannot stand there.
    pub fn apply(&mut self, record: &Record) -> Result<(), FoldError> {
        let seq = record.seq;
        if seq != self.seq + 1 {
            return Err(FoldError::Gap {
                last: self.seq,
                found: seq,
            });
        }
        if record.run != self.run {
            let (run, found) = (self.run.clone(), record.run.clone());
            return Err(FoldError::OtherRun { seq, run, found });
        }
        self.check(&record.fact)
            .map_err(|why| FoldError::Illegal { seq, why })?;
        self.seq = seq;
        self.take(record.at, &record.fact);
        Ok(())
    }

    fn take(&mut self, at: Timestamp, fact: &Fact) {
        match fact {
            // `check` has refused a second start.
            Fact::Started(_) | Fact::Note { .. } | Fact::HookBegun { .. } => {}
            Fact::HookEnded {
                hook,
                moment,
                error,
                ..
            } => {
                if error.is_none() {
                    self.hooks_done.push((hook.clone(), moment.clone()));
                }
            }
            Fact::Verb { verb, .. } => {
                self.verb = Some(*verb);
                self.error = None;
            }
            Fact::Candidate { region } => self.to = Some(region.clone()),
            Fact::StepStarted { step } => self.begin_step(at, *step),
            Fact::StepSkipped { step, .. } => {
                *self.step_mut(*step) = StepRecord {
                    state: StepState::Skipped,
                    ..pending(*step)
                };
            }
            Fact::StepDone { step, findings } => self.end_step(at, *step, None, findings),
            Fact::StepFailed {
                step,
                error,
                findings,
            } => {
                self.end_step(at, *step, Some(error), findings);
            }
            // The write gap began with the first fence; a restart raises the epoch and records it.
            Fact::Fence(fence) => {
                let first = self.fence.map_or(at, |(first, _)| first);
                self.fence = Some((first, *fence));
            }
            Fact::FenceLsn(lsn) => self.fence_lsn = Some(lsn.clone()),
            Fact::Evidence { evidence } => self.evidence = Some(evidence.clone()),
            Fact::Certificate { certificate } => self.certificate = Some(certificate.clone()),
            Fact::Exception { text } => self.exceptions.push(text.clone()),
            Fact::Pnr { candidate } => self.pnr = Some(candidate.clone()),
            Fact::Promoted(promoted) => self.promoted = Some(promoted.clone()),
            Fact::Loss(loss) => self.loss = Some(loss.clone()),
            Fact::Diverged(log) => self.diverged = Some(log.clone()),
            Fact::Measured(measured) => self.measured = Some(measured.clone()),
            Fact::Open(opened) => self.opened = Some((at, opened.clone())),
            Fact::Aborting { .. } => {
                self.state = RunState::Aborting;
                self.void(Step::Evidence);
            }
            Fact::State { state, error } => self.become_state(at, *state, error.as_ref()),
        }
    }

    fn begin_step(&mut self, at: Timestamp, step: Step) {
        for later in Step::ALL.into_iter().filter(|later| *later > step) {
            *self.step_mut(later) = pending(later);
        }
        self.void(step);
        *self.step_mut(step) = StepRecord {
            state: StepState::Running,
            started: Some(at),
            ..pending(step)
        };
        self.step = Some(step);
        self.error = None;
    }

    fn end_step(&mut self, at: Timestamp, step: Step, error: Option<&ApiError>, found: &[Finding]) {
        let record = self.step_mut(step);
        record.state = if error.is_some() {
            StepState::Failed
        } else {
            StepState::Done
        };
        record.ended = Some(at);
        record.error = error.cloned();
        record.findings = found.to_vec();
        if error.is_some() {
            self.error = error.cloned();
        }
    }

    /// Drops what rested on a step that is done anew.
    fn void(&mut self, step: Step) {
        if step <= Step::Evidence {
            self.evidence = None;
        }
        if step <= Step::Certificate {
            self.certificate = None;
        }
    }

    fn become_state(&mut self, at: Timestamp, state: RunState, error: Option<&ApiError>) {
        self.state = state;
        if error.is_some() || state == RunState::Running {
            self.error = error.cloned();
        }
        if state.is_final() {
            self.ended_at = Some(at);
        }
    }
}
