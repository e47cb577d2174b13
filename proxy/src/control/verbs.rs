//! The verbs that begin or advance a run: what they require, and what a repeat means.
//!
//! Each is decided under one lock per group and answers as soon as its work is journalled. The
//! comparison that the caller asked for (`--run`, `--epoch`) comes first.

use std::sync::Arc;
use std::time::Duration;

use writefence_admin::Call;
use writefence_admin::api::{
    ApiError, Code, DrillRequest, FailoverRequest, FenceAnswer, OpenWrites, Prepare, Promote, Run,
    RunKind, RunState, Step, StepState, SwitchoverRequest, Timestamp, Verb, Verify, WatchDrain,
};
use writefence_admin::runbook::{
    Fact, RunFacts, Started, check_abort, check_run, first_step, steps_of,
};

use super::book::in_progress;
use super::desk::Desk;
use super::drains::Draining;
use super::error::{internal, refused};
use super::preflight;
use super::steps::{Asked, Elsewhere, verified, worst};
use super::work::{Job, end, launch};
use crate::clock;
use crate::gate::Answer;
use crate::upstream::Region;

type Verdict<T> = Result<T, ApiError>;

/// The comparison that the caller asked for.
fn compared(desk: &Desk, call: &Call) -> Verdict<Option<RunFacts>> {
    let live = desk.book.live();
    check_run(
        &call.expect,
        live.as_ref().map(|facts| facts.run.as_str()),
        desk.actor.epoch().value(),
    )?;
    Ok(live)
}

fn shown(desk: &Desk) -> Verdict<Run> {
    desk.run()
        .ok_or_else(|| internal("the run has no document"))
}

fn started(call: &Call, kind: RunKind, from: Option<&Region>, reason: &str) -> Started {
    Started {
        group: call.group.clone(),
        run_kind: kind,
        from: from.map(Region::to_string),
        to: None,
        reason: reason.to_owned(),
        actor: call.actor.to_string(),
        budget_ms: None,
        accept_loss: false,
        force_stragglers: false,
        fence_only: false,
    }
}

async fn begin(desk: &Desk, call: &Call, verb: Verb, started: Started) -> Verdict<()> {
    desk.book.begin(&run_id(), started).await?;
    tracing::info!(group = %call.group, verb = %verb, actor = %call.actor, "run begun");
    noted(desk, call, verb).await
}

async fn noted(desk: &Desk, call: &Call, verb: Verb) -> Verdict<()> {
    desk.book
        .note(Fact::Verb {
            verb,
            actor: call.actor.to_string(),
        })
        .await
}

/// Sorts by time to the millisecond; the rest keeps two daemons apart.
pub(crate) fn run_id() -> String {
    let at = Timestamp::now().to_string();
    let digits: String = at.chars().filter(char::is_ascii_digit).collect();
    let (day, time) = digits.split_at(8.min(digits.len()));
    format!("{day}-{time}-{:04x}", rand::random::<u16>())
}

/// No live run, or one whose opening is behind it: that one is closed with what it left undone.
pub(crate) async fn make_room(desk: &Desk, live: Option<RunFacts>) -> Verdict<()> {
    let Some(live) = live else { return Ok(()) };
    let has_opened = live.opened.is_some() && !desk.actor.is_fenced();
    if !has_opened || desk.book.is_working() || live.state == RunState::Aborting {
        return Err(in_progress(&live));
    }
    let step = live
        .step
        .map_or_else(|| "none".to_owned(), |step| step.to_string());
    let text = format!("superseded before it was verified; its last step was {step}");
    desk.book.note(Fact::Exception { text }).await?;
    go_on(desk, &live).await?;
    end(desk, RunState::Done, None).await
}

/// As `make_room`, and a run that stands still before its point of no return gives way too: its old
/// primary may have died under it, and then it can go neither forward nor back.
async fn make_way(desk: &Desk, live: Option<RunFacts>) -> Verdict<()> {
    let Some(run) = &live else { return Ok(()) };
    if run.pnr.is_some() || run.opened.is_some() || desk.book.is_working() {
        return make_room(desk, live).await;
    }
    let error = refused(Code::Superseded, "a failover took over").run(&run.run);
    go_on(desk, run).await?;
    end(desk, RunState::Failed, Some(error)).await
}

/// An interrupted run is running again, if only to be ended.
async fn go_on(desk: &Desk, run: &RunFacts) -> Verdict<()> {
    if run.state != RunState::Interrupted {
        return Ok(());
    }
    desk.book
        .note(Fact::State {
            state: RunState::Running,
            error: None,
        })
        .await
}

/// The group has a primary, and this is it.
fn primary(desk: &Desk, named: &str) -> Verdict<Region> {
    decided(desk)?;
    let region = desk.region(named)?;
    let accepted = desk.accepted();
    if region == accepted {
        return Ok(region);
    }
    Err(refused(
        Code::WrongRegion,
        format!("the accepted primary is {accepted}, not {region}"),
    ))
}

fn decided(desk: &Desk) -> Verdict<()> {
    if desk.actor.is_decided() {
        return Ok(());
    }
    Err(refused(
        Code::NotFenced,
        "the group has no primary yet that was decided upon",
    )
    .hint("`writefencectl open-writes --primary R` decides; `status` shows the regions"))
}

fn is_open(desk: &Desk) -> Verdict<()> {
    if !desk.actor.is_fenced() {
        return Ok(());
    }
    Err(refused(
        Code::Precondition,
        "writes are fenced already and no run is live",
    )
    .hint("`writefencectl open-writes --primary R` decides where they go on"))
}

/// A region to move to.
fn destination(desk: &Desk, named: &str) -> Verdict<Region> {
    decided(desk)?;
    let region = desk.region(named)?;
    if region == desk.accepted() {
        return Err(refused(
            Code::WrongRegion,
            format!("{region} is the primary already"),
        ));
    }
    Ok(region)
}

pub(crate) async fn prepare(desk: &Arc<Desk>, call: Call, ask: Prepare) -> Verdict<Run> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    let from = primary(desk, &ask.primary)?;
    if let Some(live) = &live
        && live.started.run_kind == RunKind::Steps
        && live.opened.is_none()
        && live.fence.is_some()
        && live.state == RunState::Running
    {
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
        if live.started.run_kind == RunKind::Steps && !desk.book.is_working() {
            let steps = Job::Steps(vec![Step::Drain]);
            launch(desk, steps, Asked::default(), vec![]);
        }
        return Ok(Arc::clone(last));
    }
    noted(desk, &call, Verb::WatchDrain).await?;
    // One that is in force ends as superseded, so that this one has the time that was asked for.
    let wait = Duration::from_millis(ask.max_wait_ms);
    let draining = desk.drains.start(clock::now() + wait);
    if desk.book.is_working() {
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
    if !live.is_behind(Step::Drain) {
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
    if is_accepted && evidence_begun {
        // A barrier may stand: only the way back knows how to lift it in the right order.
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
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    let region = primary(desk, &ask.primary)?;
    let Some(live) = live else {
        // Nothing is recorded for a run that has ended; the checks are made all the same.
        let findings = verified(desk, "verify").await;
        return match worst(&findings) {
            Some(error) => Err(error),
            None => Ok(last_good(desk).unwrap_or_else(|| already_open(desk, &call, &region))),
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

pub(crate) async fn switchover(
    desk: &Arc<Desk>,
    call: Call,
    ask: SwitchoverRequest,
) -> Verdict<Run> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    if is_repeat(live.as_ref(), RunKind::Switchover, &ask.to) {
        return shown(desk);
    }
    let to = destination(desk, &ask.to)?;
    make_room(desk, live).await?;
    is_open(desk)?;
    let from = desk.accepted();
    desk.servers.warm(&[from.clone(), to.clone()]).await?;
    let found = preflight::findings(desk, &from, &to).await;
    preflight::unblocked(&found)?;
    let budget = ask
        .budget_ms
        .map_or(desk.settings.load().budget, Duration::from_millis);
    let made = Started {
        to: Some(to.to_string()),
        budget_ms: u64::try_from(budget.as_millis()).ok(),
        force_stragglers: ask.force_stragglers,
        ..started(&call, RunKind::Switchover, Some(&from), &ask.reason)
    };
    begin(desk, &call, Verb::Switchover, made).await?;
    launch(
        desk,
        Job::Steps(steps_of(Verb::Switchover)),
        Asked::default(),
        found,
    );
    shown(desk)
}

pub(crate) async fn failover(desk: &Arc<Desk>, call: Call, ask: FailoverRequest) -> Verdict<Run> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    if let Some(live) = &live
        && is_repeat(Some(live), RunKind::Failover, &ask.to)
    {
        if !desk.book.is_working() && live.pnr.is_none() && live.state == RunState::Running {
            // It stood still before its point of no return: it tries again.
            noted(desk, &call, Verb::Failover).await?;
            again(desk, live);
        }
        return shown(desk);
    }
    let to = destination(desk, &ask.to)?;
    make_way(desk, live).await?;
    let from = desk.accepted();
    desk.servers.warm(std::slice::from_ref(&to)).await?;
    let found = preflight::for_failover(desk, &to).await;
    preflight::unblocked(&found)?;
    let made = Started {
        to: Some(to.to_string()),
        accept_loss: ask.accept_loss,
        ..started(&call, RunKind::Failover, Some(&from), &ask.reason)
    };
    begin(desk, &call, Verb::Failover, made).await?;
    launch(
        desk,
        Job::Steps(steps_of(Verb::Failover)),
        Asked::default(),
        found,
    );
    shown(desk)
}

/// A rehearsal: the steps of a switchover as far as they can be taken back, and the way back.
pub(crate) async fn drill(desk: &Arc<Desk>, call: Call, ask: DrillRequest) -> Verdict<Run> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    if is_repeat(live.as_ref(), RunKind::Drill, &ask.to) {
        return shown(desk);
    }
    let to = destination(desk, &ask.to)?;
    make_room(desk, live).await?;
    is_open(desk)?;
    let from = desk.accepted();
    let mut found = Vec::new();
    if !ask.fence_only {
        desk.servers.warm(&[from.clone(), to.clone()]).await?;
        found = preflight::findings(desk, &from, &to).await;
        preflight::unblocked(&found)?;
    }
    let budget = ask
        .budget_ms
        .map_or(desk.settings.load().budget, Duration::from_millis);
    let made = Started {
        to: Some(to.to_string()),
        budget_ms: u64::try_from(budget.as_millis()).ok(),
        fence_only: ask.fence_only,
        ..started(&call, RunKind::Drill, Some(&from), &ask.reason)
    };
    begin(desk, &call, Verb::Drill, made).await?;
    let steps = rehearsal(ask.fence_only);
    launch(desk, Job::Steps(steps), Asked::default(), found);
    shown(desk)
}

/// The steps of a drill, all before the point of no return.
fn rehearsal(fence_only: bool) -> Vec<Step> {
    let last = if fence_only {
        Step::Drain
    } else {
        Step::CaughtUp
    };
    Step::ALL.into_iter().filter(|step| *step <= last).collect()
}

fn is_repeat(live: Option<&RunFacts>, kind: RunKind, to: &str) -> bool {
    live.is_some_and(|l| l.started.run_kind == kind && l.to.as_deref() == Some(to))
}

pub(crate) async fn abort(desk: &Arc<Desk>, call: Call) -> Verdict<Run> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    let live = live.ok_or_else(|| refused(Code::NothingToAbort, "no run is live"))?;
    turn_back(desk, &live, &call.actor.to_string(), "abort").await?;
    shown(desk)
}

/// Takes a run back that has neither passed its point of no return nor opened. The caller holds the
/// desk's verbs.
pub(crate) async fn turn_back(
    desk: &Arc<Desk>,
    live: &RunFacts,
    actor: &str,
    why: &str,
) -> Verdict<()> {
    check_abort(live)?;
    if live.opened.is_some() && live.state != RunState::Aborting {
        return Err(refused(
            Code::PastPointOfNoReturn,
            format!("run {} has opened writes in {}", live.run, desk.accepted()),
        )
        .run(&live.run));
    }
    if live.state != RunState::Aborting {
        // The task stops at its next safe point; the record decides the race with the point of no
        // return.
        desk.halt.send_replace(true);
        if let Err(error) = desk.actor.turn_back(actor, why).await {
            desk.halt.send_replace(false);
            return Err(error);
        }
    }
    if !desk.book.is_working() {
        launch(desk, Job::Back, Asked::default(), vec![]);
    }
    Ok(())
}

pub(crate) async fn resume(desk: &Arc<Desk>, call: Call) -> Verdict<Run> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    let live = live.ok_or_else(|| refused(Code::NothingToResume, "no run is live"))?;
    if desk.book.is_working() {
        return shown(desk);
    }
    match live.state {
        RunState::Aborting => {
            launch(desk, Job::Back, Asked::default(), vec![]);
            return shown(desk);
        }
        RunState::Interrupted => {
            noted(desk, &call, Verb::Resume).await?;
            let state = RunState::Running;
            desk.book.note(Fact::State { state, error: None }).await?;
        }
        RunState::Running if live.started.run_kind != RunKind::Steps || live.pnr.is_some() => {
            noted(desk, &call, Verb::Resume).await?;
        }
        RunState::Running
        | RunState::Done
        | RunState::Aborted
        | RunState::RolledBack
        | RunState::Failed => {
            return Err(refused(
                Code::NothingToResume,
                format!("run {} is not interrupted but {}", live.run, live.state),
            )
            .hint("a run of single steps goes on with its next verb")
            .run(live.run));
        }
    }
    again(desk, &live);
    shown(desk)
}

/// Takes a run up where it may be taken up: from its fence on before the point of no return, since
/// drain and barrier have to be seen anew; behind it from the first step that is not done.
fn again(desk: &Arc<Desk>, live: &RunFacts) {
    let mut steps = match live.started.run_kind {
        RunKind::Steps => steps_until(live),
        RunKind::Switchover | RunKind::Failover => Step::ALL.to_vec(),
        RunKind::Drill => rehearsal(live.started.fence_only),
    };
    let fenced = live.step(Step::Fence).state != StepState::Pending;
    let job = if live.pnr.is_some() || live.opened.is_some() {
        Job::Steps(steps)
    } else if fenced && live.is_behind(first_step()) {
        steps.retain(|step| *step > Step::Fence);
        Job::Again(Step::Fence, steps)
    } else {
        Job::Again(first_step(), steps)
    };
    launch(desk, job, Asked::default(), vec![]);
}

/// A run of single steps does not go further by a resume than its verbs had taken it.
fn steps_until(live: &RunFacts) -> Vec<Step> {
    if live.opened.is_some() {
        return steps_of(Verb::OpenWrites);
    }
    match live.pnr {
        Some(_) => steps_of(Verb::Promote),
        None => steps_of(Verb::Prepare),
    }
}
