//! What those who follow a run are told of each record.
//!
//! Every record is an event, since each wakes the long polls; but the beginning and the end of a
//! step are shown from the run's `steps`, and the end of the run from its state, so those events
//! carry no text.

use super::{Fact, Record, RunState, Step};
use crate::api::{Event, FenceAnswer};

/// A journal as events.
#[must_use]
pub fn events(records: &[Record]) -> Vec<Event> {
    let mut current = None;
    let told = |record: &Record| {
        current = record.fact.step().or(current);
        record.event(current)
    };
    records.iter().map(told).collect()
}

impl Record {
    /// The record as an event. `current` is the step in hand when it was written.
    pub fn event(&self, current: Option<Step>) -> Event {
        Event {
            seq: self.seq,
            at: self.at,
            step: self.fact.step().or(current),
            text: self.fact.text(),
        }
    }
}

impl Fact {
    /// The step that the fact names.
    pub const fn step(&self) -> Option<Step> {
        match self {
            Self::StepStarted { step }
            | Self::StepDone { step, .. }
            | Self::StepSkipped { step, .. }
            | Self::StepFailed { step, .. } => Some(*step),
            Self::Note { step, .. } => *step,
            Self::Started(_)
            | Self::Verb { .. }
            | Self::Candidate { .. }
            | Self::Fence(_)
            | Self::FenceLsn(_)
            | Self::Evidence { .. }
            | Self::Certificate { .. }
            | Self::Exception { .. }
            | Self::Pnr { .. }
            | Self::Promoted(_)
            | Self::Open(_)
            | Self::Aborting { .. }
            | Self::HookBegun { .. }
            | Self::HookEnded { .. }
            | Self::Loss(_)
            | Self::Diverged(_)
            | Self::Measured(_)
            | Self::State { .. } => None,
        }
    }

    /// The sentence for those who follow; empty where the run's document says it already.
    fn text(&self) -> String {
        match self {
            Self::Started(_)
            | Self::StepStarted { .. }
            | Self::StepDone { .. }
            | Self::StepFailed { .. } => String::new(),
            Self::StepSkipped { reason, .. } => format!("skipped: {reason}"),
            Self::Verb { verb, actor } => format!("{verb}, asked for by {actor}"),
            Self::Candidate { region } => format!("the candidate is {region}"),
            Self::Fence(fence) => match fence.answer {
                FenceAnswer::Hold => format!("fenced at epoch {}, new writes wait", fence.epoch),
                FenceAnswer::Reject => {
                    format!("fenced at epoch {}, new writes are rejected", fence.epoch)
                }
            },
            Self::FenceLsn(fence) => {
                format!(
                    "the candidate has to reach {} of timeline {}",
                    fence.lsn, fence.timeline
                )
            }
            Self::Evidence { evidence } => evidence.detail.clone(),
            Self::Certificate { certificate } => format!(
                "certificate of epoch {}: nothing in flight, {} unknown outcomes accepted",
                certificate.epoch, certificate.unknown
            ),
            Self::Exception { text } => format!("waived: {text}"),
            Self::Pnr { candidate } => {
                format!(
                    "point of no return passed, only forward to {}",
                    candidate.region
                )
            }
            Self::Promoted(promoted) => match promoted.timeline {
                Some(timeline) => format!("{} is primary on timeline {timeline}", promoted.region),
                None => format!("{} is primary", promoted.region),
            },
            Self::Open(opened) => {
                format!("writes pass on {} at epoch {}", opened.region, opened.epoch)
            }
            Self::Aborting { actor, reason } => format!("aborting, asked for by {actor}: {reason}"),
            Self::HookBegun { hook, moment } => format!("hook {hook} ({moment}) begins"),
            Self::HookEnded {
                hook,
                took_ms,
                error,
                ..
            } => match error {
                None => format!("hook {hook} done in {took_ms} ms"),
                Some(why) => format!("hook {hook} FAILED after {took_ms} ms: {why}"),
            },
            Self::State {
                state: RunState::Running,
                ..
            } => "resumed".to_owned(),
            Self::State {
                state: RunState::Interrupted,
                ..
            } => "interrupted by a restart of the daemon".to_owned(),
            Self::State { .. } => String::new(),
            Self::Measured(measured) => match measured.write_gap_ms {
                Some(gap) => format!("writes were stopped for {gap} ms as the data path saw it"),
                None => "nobody has written since, so the write gap is not known".to_owned(),
            },
            Self::Loss(loss) => format!("stated loss: {}", loss.sentence),
            Self::Diverged(log) => log.sentence(),
            Self::Note { text, .. } => text.clone(),
        }
    }
}
