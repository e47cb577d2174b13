//! A record of the journal as a sentence for those who follow a run.

use writefence_admin::api::Step;
use writefence_admin::runbook::Fact;

/// The step a fact belongs to, and what it says.
pub(crate) fn sentence(fact: &Fact) -> (Option<Step>, String) {
    match fact {
        Fact::Started(s) => {
            let to =
                s.to.as_deref()
                    .map(|to| format!(" to {to}"))
                    .unwrap_or_default();
            let from = s
                .from
                .as_deref()
                .map(|from| format!(" from {from}"))
                .unwrap_or_default();
            (
                None,
                format!(
                    "{} of {}{from}{to} begun: {}",
                    s.run_kind, s.group, s.reason
                ),
            )
        }
        Fact::Verb { verb, actor } => (None, format!("{verb} by {actor}")),
        Fact::Candidate { region } => (None, format!("the candidate is {region}")),
        Fact::StepStarted { step } => (Some(*step), format!("{step} begun")),
        Fact::StepDone { step, .. } => (Some(*step), format!("{step} done")),
        Fact::StepSkipped { step, reason } => (Some(*step), format!("{step} skipped: {reason}")),
        Fact::StepFailed { step, error, .. } => (Some(*step), format!("{step} failed: {error}")),
        Fact::Fence(f) => (
            Some(Step::Fence),
            format!("writes are fenced at epoch {}", f.epoch),
        ),
        Fact::FenceLsn(f) => (
            Some(Step::Evidence),
            format!("fence LSN {} on timeline {}", f.lsn, f.timeline),
        ),
        Fact::Evidence { evidence } => (Some(Step::Evidence), evidence.detail.clone()),
        Fact::Certificate { certificate } => (
            Some(Step::Certificate),
            format!("certificate of epoch {}", certificate.epoch),
        ),
        Fact::Exception { text } => (None, format!("exception: {text}")),
        Fact::Pnr { candidate } => (
            Some(Step::Pnr),
            format!("point of no return towards {}", candidate.region),
        ),
        Fact::Promoted(p) => {
            let timeline = p
                .timeline
                .map(|t| format!(" on timeline {t}"))
                .unwrap_or_default();
            (
                Some(Step::Identity),
                format!("{} is the new primary{timeline}", p.region),
            )
        }
        Fact::Open(o) => (
            Some(Step::Open),
            format!("writes pass in {} at epoch {}", o.region, o.epoch),
        ),
        Fact::Aborting { actor, reason } => (None, format!("going back, by {actor}: {reason}")),
        Fact::State { state, error } => {
            let why = error.as_ref().map(|e| format!(": {e}")).unwrap_or_default();
            (None, format!("the run is {state}{why}"))
        }
        Fact::HookBegun { hook, moment } => (None, format!("hook {hook} ({moment}) begins")),
        Fact::HookEnded {
            hook,
            took_ms,
            error: None,
            ..
        } => (None, format!("hook {hook} done in {took_ms} ms")),
        Fact::HookEnded {
            hook,
            took_ms,
            error: Some(why),
            ..
        } => (
            None,
            format!("hook {hook} failed after {took_ms} ms: {why}"),
        ),
        Fact::Measured(m) => (
            None,
            match m.write_gap_ms {
                Some(gap) => format!("writes were stopped for {gap} ms as the data path saw it"),
                None => "nobody has written since: the write gap is not known".to_owned(),
            },
        ),
        Fact::Loss(loss) => (None, format!("stated loss: {}", loss.sentence)),
        Fact::Diverged(log) => (None, log.sentence()),
        Fact::Note { step, text } => (*step, text.clone()),
    }
}
