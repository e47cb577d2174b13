//! From a journal to a report.

use super::{Audited, Lineage, Lost, Objectives, Report, StepTime};
use crate::api::{Measured, RunKind, StepRecord, StepState, Timestamp, UnknownWrite};
use crate::runbook::{Record, RunFacts, Working, events};

/// Makes a run's report. `unknown` and `audit` are as they are now.
#[must_use]
pub fn build(
    facts: &RunFacts,
    records: &[Record],
    unknown: Vec<UnknownWrite>,
    audit: Option<Audited>,
    now: Timestamp,
) -> Report {
    let run = facts.document(Working::No, now);
    let begun = |step: &&StepRecord| step.state != StepState::Pending;
    let mut timeline = events(records);
    for (event, record) in timeline.iter_mut().zip(records) {
        if event.text.is_empty() {
            event.text = plain(record);
        }
    }
    Report {
        made: now,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        steps: run.steps.iter().filter(begun).map(step).collect(),
        run,
        timeline,
        measured: facts.measured.clone(),
        objectives: objectives(facts),
        lineage: lineage(facts),
        loss: Lost {
            stated: facts.loss.clone(),
            measured: facts.diverged.clone(),
        },
        unknown,
        audit,
    }
}

/// What a record says whose event leaves it to the run's document.
fn plain(record: &Record) -> String {
    use crate::runbook::Fact;
    match &record.fact {
        Fact::Started(started) => format!("{} begun: {}", started.run_kind, started.reason),
        Fact::StepStarted { .. } => "begun".to_owned(),
        Fact::StepDone { .. } => "done".to_owned(),
        Fact::StepFailed { error, .. } => format!("failed: {error}"),
        Fact::State { state, error } => match error {
            Some(error) => format!("the run is {state}: {error}"),
            None => format!("the run is {state}"),
        },
        _ => String::new(),
    }
}

fn step(step: &StepRecord) -> StepTime {
    let took = step
        .started
        .zip(step.ended)
        .and_then(|(from, to)| u64::try_from(to.since(from).as_millis()).ok());
    StepTime {
        step: step.name,
        state: step.state,
        started: step.started,
        took_ms: took,
    }
}

fn objectives(facts: &RunFacts) -> Objectives {
    let Some(measured) = &facts.measured else {
        return Objectives::default();
    };
    let recovery_ms = recovery(facts, measured);
    let rto_met = measured
        .rto_ms
        .zip(recovery_ms)
        .map(|(objective, took)| took <= objective);
    // What was measured once the old primary was there again stands above what was seen of it last.
    let lost_bytes = facts
        .diverged
        .as_ref()
        .map_or(measured.lost_bytes, |log| Some(log.bytes));
    // Nothing lost keeps any objective; something lost breaks that of nothing. Between the two only
    // the time would tell, which nobody has measured.
    let rpo_met = match (measured.rpo_ms, lost_bytes) {
        (Some(_), Some(0)) => Some(true),
        (Some(0), Some(_)) => Some(false),
        _ => None,
    };
    Objectives {
        rto_ms: measured.rto_ms,
        recovery_ms,
        rto_met,
        rpo_ms: measured.rpo_ms,
        lost_bytes,
        rpo_met,
    }
}

fn recovery(facts: &RunFacts, measured: &Measured) -> Option<u64> {
    let kind = facts.started.run_kind;
    match (kind, measured.old_primary_last_seen) {
        (RunKind::Failover, Some(seen)) => {
            u64::try_from(measured.first_write_after?.since(seen).as_millis()).ok()
        }
        _ => measured.write_gap_ms,
    }
}

fn lineage(facts: &RunFacts) -> Lineage {
    let (fence, promoted) = (facts.fence_lsn.as_ref(), facts.promoted.as_ref());
    let certificate = facts.certificate.as_ref();
    Lineage {
        system_identifier: promoted
            .and_then(|p| p.system_identifier.clone())
            .or_else(|| certificate.and_then(|c| c.system_identifier.clone())),
        old_timeline: fence
            .map(|f| f.timeline)
            .or_else(|| certificate.and_then(|c| c.timeline)),
        fence_lsn: fence.map(|f| f.lsn.clone()),
        new_timeline: promoted.and_then(|p| p.timeline),
        fork_lsn: promoted.and_then(|p| p.fork_lsn.clone()),
    }
}
