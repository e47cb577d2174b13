//! What PgBouncer's console asks for, by the same verbs and through the same actor as an operator.
//!
//! PAUSE is a run of single steps whose fence is for everything and holds as long as PgBouncer's
//! clients wait; RESUME turns that run back. So a pause is journalled, survives a restart, can be
//! taken further with `writefencectl promote`, and is never ended by a RESUME that did not begin it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use writefence_admin::api::{ApiError, Code, DrainOutcome, RunKind, Step, StepState, Verb};
use writefence_admin::runbook::{Fact, RunFacts, Started};

use super::Daemon;
use super::desk::Desk;
use super::error::{internal, refused};
use super::steps::Asked;
use super::verbs;
use super::work::{Job, launch};
use crate::clock;
use crate::gate::Answer;
use crate::group::{Commands, ConfigLine, Said};

/// Whose runs a RESUME may end.
const BY: &str = "console ";

/// How long a statement is held by a PAUSE: PgBouncer's query_wait_timeout. It is also how long open
/// transactions go on as they are, since PgBouncer waits for their own end.
const HOLD: Duration = Duration::from_secs(120);

/// A drain that PAUSE waits for has no end of its own; the console's cancel is one.
const DRAIN: Duration = Duration::from_secs(24 * 3600);

/// How long a RESUME waits for its probes: they have bounds of their own below it.
const RESUME: Duration = Duration::from_secs(30);

/// Between two looks at a run's progress.
const LOOK: Duration = Duration::from_millis(2);

/// The configuration in force, as lines; `app` knows it.
pub type Listing = Box<dyn Fn() -> Vec<ConfigLine> + Send + Sync>;

/// One group's control, for its consoles.
struct OfGroup {
    daemon: Arc<Daemon>,
    desk: Arc<Desk>,
    listing: Arc<Listing>,
}

/// Lets every group's consoles reach control.
pub fn serve_consoles(daemon: &Arc<Daemon>, listing: Listing) {
    let listing = Arc::new(listing);
    for desk in daemon.desks() {
        let own = OfGroup {
            daemon: Arc::clone(daemon),
            desk: Arc::clone(desk),
            listing: Arc::clone(&listing),
        };
        // Set once, here: a second time would change nothing.
        let _ = desk.group.commands.set(Arc::new(own));
    }
}

#[async_trait]
impl Commands for OfGroup {
    async fn pause(&self, by: &str) -> Result<String, Said> {
        let (desk, by) = (Arc::clone(&self.desk), by.to_owned());
        // Not dropped half way with the console that asked.
        let pausing = tokio::spawn(async move { pause(&desk, &by).await });
        let paused = pausing.await.map_err(|e| internal(e.to_string()));
        paused.and_then(|run| run).map_err(said)
    }

    async fn paused(&self, run: &str) -> Result<(), Said> {
        drained(&self.desk, run).await.map_err(said)
    }

    async fn resume(&self, by: &str) -> Result<(), Said> {
        let (desk, by) = (Arc::clone(&self.desk), by.to_owned());
        let resuming = tokio::spawn(async move { resume(&desk, &by).await });
        let resumed = resuming.await.map_err(|e| internal(e.to_string()));
        resumed.and_then(|done| done).map_err(said)
    }

    async fn renew(&self) -> Result<(), Said> {
        let region = self.desk.accepted();
        self.desk.servers.renew(&region).await.map_err(said)
    }

    async fn reload(&self, by: &str) -> Result<Vec<String>, Said> {
        tracing::info!(actor = by, "reload");
        let report = self.daemon.reload_now().map_err(said)?;
        Ok(report.needs_restart)
    }

    fn config(&self) -> Vec<ConfigLine> {
        (self.listing)()
    }
}

fn said(error: ApiError) -> Said {
    Said {
        message: error.message,
        hint: error.hint,
    }
}

/// The live run, if this is its name.
fn own(desk: &Desk, run: &str) -> Option<RunFacts> {
    desk.book.live().filter(|live| live.run == run)
}

async fn pause(desk: &Arc<Desk>, by: &str) -> Result<String, ApiError> {
    let turn = desk.verbs.lock().await;
    let live = desk.book.live();
    if desk.actor.is_fenced() {
        return Err(already(live.as_ref()));
    }
    verbs::make_room(desk, live).await?;
    let run = verbs::run_id();
    let started = Started {
        group: desk.group.name.clone(),
        run_kind: RunKind::Steps,
        from: Some(desk.accepted().to_string()),
        to: None,
        reason: "PAUSE".to_owned(),
        actor: by.to_owned(),
        budget_ms: None,
        accept_loss: false,
        force_stragglers: false,
        fence_only: false,
    };
    desk.book.begin(&run, started).await?;
    let (verb, actor) = (Verb::Prepare, by.to_owned());
    desk.book.note(Fact::Verb { verb, actor }).await?;
    tracing::info!(group = %desk.group.name, by, "paused by the console");
    let asked = Asked {
        answer: Some(Answer::Hold),
        hold_ms: u64::try_from(HOLD.as_millis()).ok(),
        everything: true,
        ..Asked::default()
    };
    launch(desk, Job::Prepare, asked, vec![]);
    drop(turn);
    loop {
        let Some(facts) = own(desk, &run) else {
            return Err(overtaken());
        };
        match facts.step(Step::Fence).state {
            StepState::Done => return Ok(run),
            StepState::Failed | StepState::Skipped => break,
            StepState::Pending | StepState::Running if !desk.book.is_working() => break,
            StepState::Pending | StepState::Running => tokio::time::sleep(LOOK).await,
        }
    }
    let error = desk.run().and_then(|run| run.error);
    Err(error.unwrap_or_else(|| internal("the fence did not come to stand")))
}

fn already(live: Option<&RunFacts>) -> ApiError {
    let error = refused(Code::Precondition, "already suspended/paused");
    match live {
        Some(live) => error.hint(format!(
            "run {} of {} has fenced: {}",
            live.run, live.started.actor, live.started.reason
        )),
        None => error.hint("fenced without a run; `writefencectl status` tells why"),
    }
}

fn overtaken() -> ApiError {
    refused(
        Code::Superseded,
        "PAUSE was overtaken by another command before everything was quiet",
    )
    .hint("`writefencectl status` shows what is in force now")
}

/// Waits until nothing is in flight, for as long as it takes.
async fn drained(desk: &Arc<Desk>, run: &str) -> Result<(), ApiError> {
    loop {
        if own(desk, run).is_none() || !desk.actor.is_fenced() {
            return Err(overtaken());
        }
        let epoch = desk.actor.epoch();
        let last = desk.drains.last().filter(|drain| drain.is_of(epoch));
        let drain = match last {
            Some(drain) if drain.outcome() != Some(DrainOutcome::TimedOut) => drain,
            Some(_) | None => desk.drains.start(clock::now() + DRAIN),
        };
        match drain.ended().await {
            DrainOutcome::Drained | DrainOutcome::DrainedWithUnknown => return Ok(()),
            // Another drain of the same fence is as good; a change of phase is told above.
            DrainOutcome::TimedOut | DrainOutcome::Superseded => {}
        }
        let unknown = desk.group.gate.unknown();
        if unknown > 0 && drain.outcome() == Some(DrainOutcome::TimedOut) {
            return Err(refused(
                Code::NotDrained,
                format!("paused, but the outcome of {unknown} writes is not known"),
            )
            .hint("`writefencectl unknown list` shows them"));
        }
    }
}

async fn resume(desk: &Arc<Desk>, by: &str) -> Result<(), ApiError> {
    let turn = desk.verbs.lock().await;
    if !desk.actor.is_fenced() {
        return Err(refused(
            Code::Precondition,
            "pooler is not paused/suspended",
        ));
    }
    let live = desk.book.live().ok_or_else(|| {
        refused(Code::NoLiveRun, "writes are fenced, and not by a PAUSE")
            .hint("`writefencectl open-writes --primary R` decides where they go on")
    })?;
    if !live.started.actor.starts_with(BY) {
        let text = format!(
            "run {} of {} has fenced: RESUME ends a PAUSE of the console only",
            live.run, live.started.actor
        );
        return Err(refused(Code::RunInProgress, text)
            .hint("`writefencectl abort` goes back, `open-writes` goes on")
            .run(live.run));
    }
    verbs::turn_back(desk, &live, by, "RESUME").await?;
    drop(turn);
    let until = clock::now() + RESUME;
    while desk.book.is_working() && clock::now() < until {
        tokio::time::sleep(LOOK).await;
    }
    if !desk.actor.is_fenced() {
        return Ok(());
    }
    let trouble = desk.run().and_then(|run| run.error);
    Err(trouble.unwrap_or_else(|| {
        refused(
            Code::NotFenced,
            "still paused: the way back is not done yet",
        )
        .hint("`writefencectl status` shows how far it is; RESUME may be repeated")
    }))
}
