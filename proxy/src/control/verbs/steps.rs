//! The verbs of a run of single steps, with a person between them.
//!
//! Each says what must be behind it, and a repeat of what is done already is no error.

use std::sync::Arc;
use std::time::Duration;

use writefence_admin::Call;
use writefence_admin::api::{
    ApiError, Code, FenceAnswer, OpenWrites, Prepare, Promote, Run, RunKind, RunState, Step,
    StepState, Timestamp, Verb, Verify, WatchDrain,
};
use writefence_admin::runbook::{Fact, RunFacts, steps_of};

use super::super::book::in_progress;
use super::super::desk::Desk;
use super::super::drains::Draining;
use super::super::error::refused;
use super::super::steps::{Asked, Elsewhere, verified, worst};
use super::super::work::{Job, launch};
use super::{
    Verdict, begin, compared, destination, is_open, make_room, noted, primary, shown, started,
};
use crate::clock;
use crate::gate::Answer;
use crate::upstream::Region;

/// How long the end of the step before is waited for: within the time that a caller waits for us.
const STEP_ENDS: Duration = Duration::from_secs(2);

pub(crate) async fn prepare(desk: &Arc<Desk>, call: Call, ask: Prepare) -> Verdict<Run> {
    // An opening that is under way would undo what the answer promises.
    let_it_end(desk).await;
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    let from = primary(desk, &ask.primary)?;
    if let Some(live) = &live
        && live.started.run_kind == RunKind::Steps
        && live.opened.is_none()
        && live.fence.is_some()
        && live.state == RunState::Running
        && desk.actor.is_fenced()
    {
        let opens = desk.book.is_working() && live.step >= Some(Step::Pnr);
        if opens || live.started.reason != ask.reason {
            return Err(in_progress(live));
        }
        return shown(desk);
    }
    make_room(desk, live).await?;
    is_open(desk)?;
    let made = started(&call, RunKind::Steps, Some(&from), &ask.reason);
    if let Err(error) = begin(desk, &call, Verb::Prepare, made).await {
        return Err(fenced_all_the_same(desk, error).await);
    }
    let answer = ask.answer.map(|answer| match answer {
        FenceAnswer::Hold => Answer::Hold,
        FenceAnswer::Reject => Answer::Reject,
    });
    launch(
        desk,
        Job::Prepare,
        Asked {
            answer,
            hold_ms: ask.hold_ms,
            ..Asked::default()
        },
        vec![],
    );
    shown(desk)
}

/// A run that cannot be journaled is not begun. But who asks for writes to be stopped gets that: a
/// disk that is full must not keep a write path open that somebody wants shut.
async fn fenced_all_the_same(desk: &Desk, error: ApiError) -> ApiError {
    if error.code != Code::Storage {
        return error;
    }
    // It says itself that it is not durable; that is the answer below.
    let tripped = desk.actor.trip("prepare: the journal cannot be written");
    let _ = tripped.await;
    let text = "no run was begun, and writes are stopped in memory: a restart would not know";
    ApiError {
        message: format!("{}; {text}", error.message),
        ..error
    }
    .hint(format!(
        "free space under [admin] state_dir, then `open-writes --primary {}` opens again",
        desk.accepted()
    ))
    .epoch(desk.actor.epoch().value())
}

/// A step whose aim is reached is answered before its last record is written and its hooks have run:
/// who goes on at once, as a script does, is not to be told that the run is busy. Before the verbs'
/// lock, so that an `abort` does not wait as well.
async fn let_it_end(desk: &Desk) {
    let is_steps = |live: RunFacts| live.started.run_kind == RunKind::Steps;
    if desk.book.live().is_some_and(is_steps) {
        desk.book.rested(STEP_ENDS).await;
    }
}

/// The live run of single steps, which nobody works on.
fn steps_run(desk: &Desk, live: Option<RunFacts>) -> Verdict<RunFacts> {
    let live = live.ok_or_else(|| {
        refused(Code::NoLiveRun, "no run is live").hint("`writefencectl prepare` begins one")
    })?;
    if live.started.run_kind != RunKind::Steps {
        return Err(in_progress(&live));
    }
    running(&live)?;
    if desk.book.is_working() {
        return Err(refused(
            Code::RunInProgress,
            format!("run {} is being worked on", live.run),
        )
        .hint("wait for its step to end, or `abort`")
        .run(live.run));
    }
    Ok(live)
}

fn running(live: &RunFacts) -> Verdict<()> {
    match live.state {
        RunState::Running => Ok(()),
        RunState::Interrupted => Err(refused(
            Code::RunInterrupted,
            format!(
                "run {} was interrupted by a restart of the daemon",
                live.run
            ),
        )
        .hint("`resume` goes on, `abort` goes back")
        .run(&live.run)),
        RunState::Aborting
        | RunState::Done
        | RunState::Aborted
        | RunState::RolledBack
        | RunState::Failed => Err(refused(
            Code::Aborted,
            format!("run {} is {}", live.run, live.state),
        )
        .run(&live.run)),
    }
}

pub(crate) async fn watch_drain(
    desk: &Arc<Desk>,
    call: Call,
    ask: WatchDrain,
) -> Verdict<Arc<Draining>> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    if let Some(region) = &ask.region {
        primary(desk, region)?;
    }
    let live = live.ok_or_else(|| refused(Code::NoLiveRun, "no run is live"))?;
    running(&live)?;
    if live.fence.is_none() || !desk.actor.is_fenced() {
        return Err(refused(
            Code::NotFenced,
            format!("run {} is not fenced", live.run),
        ));
    }
    let epoch = desk.actor.epoch();
    let last = desk.drains.last().filter(|draining| draining.is_of(epoch));
    if let Some(last) = &last
        && (last.proof().is_some() || live.started.run_kind != RunKind::Steps)
    {
        // Drained already, or a run that advances itself is at it.
        let is_due = live.started.run_kind == RunKind::Steps && live.pnr.is_none();
        if is_due && !desk.book.is_working() {
            let steps = Job::Steps(vec![Step::Drain]);
            launch(desk, steps, Asked::default(), vec![]);
        }
        return Ok(Arc::clone(last));
    }
    noted(desk, &call, Verb::WatchDrain).await?;
    // One that is in force ends as superseded, so that this one has the time that was asked for.
    let wait = Duration::from_millis(ask.max_wait_ms);
    let draining = desk.drains.start(clock::now() + wait);
    // Behind the point of no return no step before it is taken again; the drain is only watched.
    if desk.book.is_working() || live.pnr.is_some() {
        return Ok(draining);
    }
    let asked = Asked {
        max_wait: Some(wait),
        force: ask.force,
        ..Asked::default()
    };
    launch(desk, Job::Again(Step::Drain, vec![]), asked, vec![]);
    Ok(draining)
}

pub(crate) async fn promote(desk: &Arc<Desk>, call: Call, ask: Promote) -> Verdict<Run> {
    let_it_end(desk).await;
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    let to = desk.region(&ask.new_primary)?;
    if let Some(live) = &live
        && live
            .promoted
            .as_ref()
            .is_some_and(|p| p.region == to.as_str())
        && live.achieved(Verb::Promote)
    {
        return shown(desk);
    }
    let live = steps_run(desk, live)?;
    let to = destination(desk, to.as_str())?;
    if live.fence.is_none() || !desk.actor.is_fenced() {
        return Err(refused(
            Code::NotFenced,
            format!("run {} is not fenced", live.run),
        ));
    }
    if !live.is_behind(Step::Drain) && !ask.accept_loss {
        return Err(refused(
            Code::NotDrained,
            "what was admitted is not proven to have ended",
        )
        .hint("`writefencectl watch-drain --max-wait 5m` waits for it")
        .run(live.run));
    }
    noted(desk, &call, Verb::Promote).await?;
    if live.to.as_deref() != Some(to.as_str()) {
        desk.book
            .note(Fact::Candidate {
                region: to.to_string(),
            })
            .await?;
    }
    if live.pnr.is_none() {
        let named = desk.group.targets.set_candidate(Some(&to));
        named.map_err(|e| refused(Code::WrongRegion, e.to_string()))?;
        desk.group.gate.wake_all();
    }
    let asked = Asked {
        accept_loss: ask.accept_loss,
        ..Asked::default()
    };
    let mut steps = steps_of(Verb::Promote);
    if !live.is_behind(Step::Drain) && live.pnr.is_none() {
        steps.insert(0, Step::Drain);
    }
    // Evidence is of the moment: a second try looks again.
    let first = steps.first().copied().unwrap_or(Step::Evidence);
    let job = match live.pnr.is_none() && first == Step::Evidence {
        true => Job::Again(first, steps.split_off(1)),
        false => Job::Steps(steps),
    };
    launch(desk, job, asked, vec![]);
    shown(desk)
}

pub(crate) async fn open_writes(desk: &Arc<Desk>, call: Call, ask: OpenWrites) -> Verdict<Run> {
    let_it_end(desk).await;
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    let region = desk.region(&ask.primary)?;
    let is_accepted = region == desk.accepted() && desk.actor.is_decided();
    if !desk.actor.is_fenced() {
        if is_accepted {
            return Ok(last_good(desk).unwrap_or_else(|| already_open(desk, &call, &region)));
        }
        let text = format!("writes are open in {}, not in {region}", desk.accepted());
        return Err(refused(Code::WrongRegion, text)
            .hint("`switchover` moves them; `prepare` fences first"));
    }
    let asked = Asked {
        accept_loss: ask.accept_loss,
        ..Asked::default()
    };
    if live.is_none() {
        let from = desk.actor.is_decided().then(|| desk.accepted());
        let made = started(
            &call,
            RunKind::Steps,
            from.as_ref(),
            "open-writes without a run",
        );
        begin(desk, &call, Verb::OpenWrites, made).await?;
        launch(desk, Job::Open(elsewhere(desk, region)), asked, vec![]);
        return shown(desk);
    }
    let live = steps_run(desk, live)?;
    noted(desk, &call, Verb::OpenWrites).await?;
    if let Some(pinned) = &live.pnr {
        if pinned.region != region.as_str() {
            let text = format!(
                "run {} is past its point of no return towards {}",
                live.run, pinned.region
            );
            return Err(refused(Code::PastPointOfNoReturn, text).run(live.run));
        }
        if !live.achieved(Verb::Promote) {
            let text = format!("{region} is not shown to be promoted yet");
            return Err(refused(Code::IdentityMismatch, text)
                .hint("repeat `promote`, which looks again")
                .run(live.run));
        }
        launch(desk, Job::Steps(steps_of(Verb::OpenWrites)), asked, vec![]);
        return shown(desk);
    }
    let evidence_begun =
        live.evidence.is_some() || live.step(Step::Evidence).state != StepState::Pending;
    let drained = desk.drains.last().filter(|d| d.is_of(desk.actor.epoch()));
    let is_drained = drained.is_some_and(|d| d.proof().is_some());
    if is_accepted && (evidence_begun || !is_drained && !ask.accept_loss) {
        // A barrier may stand: only the way back knows how to lift it in the right order. And what is
        // still in flight, or unknown, does no harm on the server that it runs on.
        desk.actor
            .turn_back(&call.actor.to_string(), "open-writes on the old primary")
            .await?;
        launch(desk, Job::Back, Asked::default(), vec![]);
        return shown(desk);
    }
    launch(desk, Job::Open(elsewhere(desk, region)), asked, vec![]);
    shown(desk)
}

fn elsewhere(desk: &Desk, region: Region) -> Elsewhere {
    match desk.actor.is_decided() {
        true if region == desk.accepted() => Elsewhere::Back,
        true => Elsewhere::Promoted(region),
        false => Elsewhere::First(region),
    }
}

/// The live or last run, if it is no sign of something that went wrong: what was asked for holds.
fn last_good(desk: &Desk) -> Option<Run> {
    desk.run()
        .filter(|run| matches!(run.state, RunState::Done | RunState::Running))
}

/// A run that never had to be: writes are open where they were asked for, and none is known.
fn already_open(desk: &Desk, call: &Call, region: &Region) -> Run {
    let now = Timestamp::now();
    let made = started(
        call,
        RunKind::Steps,
        Some(region),
        "writes were open already",
    );
    let record = writefence_admin::runbook::Record {
        seq: 1,
        at: now,
        run: "none".to_owned(),
        fact: Fact::Started(made),
    };
    let facts = RunFacts::begin(&record).expect("the first record of a run is its start");
    let mut run = facts.document(writefence_admin::runbook::Working::No, now);
    run.state = RunState::Done;
    run.ended = Some(now);
    run.epoch = Some(desk.actor.epoch().value());
    run
}

pub(crate) async fn verify(desk: &Arc<Desk>, call: Call, ask: Verify) -> Verdict<Run> {
    let_it_end(desk).await;
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    let region = primary(desk, &ask.primary)?;
    let Some(live) = live else {
        // Nothing is recorded for a run that has ended; the checks are made all the same.
        let findings = verified(desk, "verify").await;
        return match worst(&findings) {
            Some(error) => Err(error),
            None => {
                let good = last_good(desk);
                let mut run = good.unwrap_or_else(|| already_open(desk, &call, &region));
                let mut steps = run.steps.iter_mut();
                if let Some(step) = steps.find(|step| step.name == Step::Verify) {
                    step.findings = findings;
                }
                Ok(run)
            }
        };
    };
    let live = steps_run(desk, Some(live))?;
    if live.opened.is_none() {
        return Err(refused(Code::NotFenced, "writes were not opened yet")
            .hint("`open-writes` comes before `verify`")
            .run(live.run));
    }
    noted(desk, &call, Verb::Verify).await?;
    let mut steps = steps_of(Verb::OpenWrites);
    steps.extend(steps_of(Verb::Verify));
    launch(desk, Job::Steps(steps), Asked::default(), vec![]);
    shown(desk)
}
