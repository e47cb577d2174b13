//! The steps of a run, executed one after the other.
//!
//! Journal first, then the effect: a step is announced, done, and recorded as done or failed. A
//! task advances a run over the steps that its verb stands for; it stops at the first failure, or
//! between two effects when it is told to. What a step did not finish is done anew by `resume`,
//! except that behind the point of no return nothing before it is repeated.

mod back;
mod elsewhere;
mod evidence;
mod fence;
mod forward;
mod open;
mod origins;
mod verify;

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use writefence_admin::api::{ApiError, Code, Finding, RunKind, Step};
use writefence_admin::runbook::{Fact, RunFacts};
use writefence_config::Moment;

use super::desk::Desk;
use super::error::{internal, refused};
use super::hooks;
use super::measure::measured;
use super::servers::Ticket;
use super::settings::Settings;
use crate::fleet::Durability;
use crate::upstream::{CheckedTarget, Observation, Region};
use crate::{clock, failpoint};

pub(crate) use back::{Why, go_back};
pub(crate) use elsewhere::Elsewhere;
pub(crate) use verify::{verified, worst};

/// Why a run does not advance.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It was told to, by an operator.
    Told,
    /// A step failed.
    Failed(ApiError),
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

/// What the operator asked for beside the run's own start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    /// Loss may be accepted.
    pub(crate) accept_loss: bool,
    /// How long a drain may take; as configured when not given.
    pub(crate) max_wait: Option<std::time::Duration>,
    /// Stragglers are cancelled.
    pub(crate) force: bool,
    /// How the fence answers, if not as configured.
    pub(crate) answer: Option<crate::gate::Answer>,
    /// How long writes are held, if not as configured.
    pub(crate) hold_ms: Option<u64>,
    /// Reads are fenced too, and open transactions go on for as long as writes are held: what a PAUSE
    /// of PgBouncer's is.
    pub(crate) everything: bool,
}

/// A task's way through the steps.
pub(crate) struct Course {
    desk: Arc<Desk>,
    settings: Arc<Settings>,
    halt: watch::Receiver<bool>,
    asked: Asked,
    run: String,
    kind: RunKind,
    from: Region,
    to: Option<Region>,
    /// When a run that advances itself must be past its point of no return.
    until: Option<Instant>,
    /// The fence whose record is still being written.
    standing: Option<super::actor::Standing>,
    /// The preflight's findings, made before the run began.
    found: Vec<Finding>,
    /// The new primary as the promotion left it; saves a look within the write gap.
    seen: Option<Observation>,
    /// The new primary, checked and not yet put in force.
    checked: Option<CheckedTarget>,
}

impl Course {
    /// A way for the live run.
    pub(crate) fn new(desk: Arc<Desk>, asked: Asked) -> Result<Self, ApiError> {
        let facts = desk.book.live().ok_or_else(|| internal("no run is live"))?;
        let region = |name: &Option<String>| match name {
            Some(name) => desk.region(name).map(Some),
            None => Ok(None),
        };
        let from = region(&facts.started.from)?.unwrap_or_else(|| desk.accepted());
        let to = region(&facts.to)?;
        let halt = desk.halt.subscribe();
        let settings = desk.settings.load_full();
        let kind = facts.started.run_kind;
        let accept_loss = asked.accept_loss || facts.started.accept_loss;
        let force = asked.force || facts.started.force_stragglers;
        let asked = Asked {
            accept_loss,
            force,
            ..asked
        };
        let run = facts.run;
        Ok(Self {
            desk,
            settings,
            halt,
            asked,
            run,
            kind,
            from,
            to,
            until: None,
            standing: None,
            found: Vec::new(),
            seen: None,
            checked: None,
        })
    }

    /// Hands over what the preflight found before the run began.
    pub(crate) fn with_findings(mut self, found: Vec<Finding>) -> Self {
        self.found = found;
        self
    }

    /// Goes through these steps, leaving out those that are behind.
    pub(crate) async fn advance(&mut self, steps: &[Step]) -> Result<(), Stop> {
        for step in steps {
            if self.facts()?.is_behind(*step) {
                continue;
            }
            self.take(*step).await?;
        }
        Ok(())
    }

    /// Begins again at a step that may be behind already, as a resumed run does.
    pub(crate) async fn again_from(&mut self, step: Step) -> Result<(), Stop> {
        self.take(step).await
    }

    async fn take(&mut self, step: Step) -> Result<(), Stop> {
        self.still_wanted(step)?;
        let announced = match step {
            // A successor that finds this record comes up fenced, whatever else was written: so
            // the fence itself need not wait for the disk before the drain begins.
            Step::Fence => Durability::Sync,
            Step::Preflight
            | Step::Drain
            | Step::Evidence
            | Step::Certificate
            | Step::CaughtUp
            | Step::Pnr
            | Step::Promote
            | Step::Identity
            | Step::Hooks
            | Step::Open
            | Step::Converge
            | Step::Verify
            | Step::Report => Durability::Lazy,
        };
        self.desk
            .book
            .note_with(Fact::StepStarted { step }, announced)
            .await?;
        failpoint::before(&step.to_string());
        let done = match step {
            Step::Preflight => self.preflight().await,
            Step::Fence => self.fence().await,
            Step::Drain => self.drain().await,
            Step::Evidence => self.evidence().await,
            Step::Certificate => self.certificate().await,
            Step::CaughtUp => self.caught_up().await,
            Step::Pnr => self.point_of_no_return().await,
            Step::Promote => self.promote().await,
            Step::Identity => self.identity().await,
            // They follow: see `moments`.
            Step::Hooks => Ok(Vec::new()),
            Step::Open => self.open().await,
            Step::Converge => self.converge().await,
            Step::Verify => self.verify().await,
            Step::Report => self.report().await,
        };
        let done = match done {
            Ok(found) => self.hooks(step, found).await,
            stopped => stopped,
        };
        match done {
            Ok(findings) => {
                self.desk
                    .book
                    .note(Fact::StepDone { step, findings })
                    .await?;
                failpoint::after(&step.to_string());
                Ok(())
            }
            Err(Stop::Told) => Err(Stop::Told),
            Err(Stop::Failed(error)) => {
                let error = error.run(&self.run).epoch(self.desk.actor.epoch().value());
                let findings = Vec::new();
                let failed = Fact::StepFailed {
                    step,
                    error: error.clone(),
                    findings,
                };
                // A journal that cannot be written must not hide why the step failed.
                if let Err(unwritten) = self.desk.book.note(failed).await {
                    tracing::error!(run = %self.run, error = %unwritten, "journal not written");
                }
                Err(Stop::Failed(error))
            }
        }
    }

    /// The user's hooks whose moment comes at the end of a step. They are a part of it: a run that
    /// is resumed comes by here again.
    async fn hooks(&self, step: Step, mut found: Vec<Finding>) -> Found {
        for moment in moments(step) {
            found.extend(hooks::at(&self.desk, *moment).await?);
        }
        Ok(found)
    }

    /// What the run cost is measured while everything is at hand; the report itself is made of the
    /// journal whenever somebody asks.
    async fn report(&mut self) -> Found {
        let measured = measured(&self.desk, &self.facts()?).await;
        self.desk.book.note(Fact::Measured(measured)).await?;
        Ok(Vec::new())
    }

    fn still_wanted(&self, step: Step) -> Result<(), Stop> {
        if step > Step::Pnr {
            return Ok(());
        }
        if *self.halt.borrow() {
            return Err(Stop::Told);
        }
        match self.until {
            Some(until) if clock::now() >= until => Err(Stop::Failed(self.over_budget(step))),
            _ => Ok(()),
        }
    }

    fn over_budget(&self, step: Step) -> ApiError {
        let ms = self
            .facts()
            .ok()
            .and_then(|f| f.started.budget_ms)
            .unwrap_or(0);
        refused(
            Code::BudgetExceeded,
            format!("the budget of {ms} ms was over at step {step}, before the point of no return"),
        )
        .hint("look at the steps' times in `status`; `--budget` gives more, `fence.hold` must be above it")
    }

    /// The earlier of the budget's end and this much from now.
    fn until(&self, at_most: std::time::Duration) -> Instant {
        let own = clock::now() + at_most;
        self.until.map_or(own, |budget| budget.min(own))
    }

    /// Waits for `work`, or until the run is told to stop. Only for waits: what is dropped by it
    /// has no effect that would have to be taken back.
    async fn unless_told<T>(&self, work: impl Future<Output = T>) -> Result<T, Stop> {
        let mut halt = self.halt.clone();
        tokio::select! {
            done = work => Ok(done),
            _ = halt.wait_for(|halt| *halt) => Err(Stop::Told),
        }
    }

    /// On whose behalf servers are touched.
    fn ticket(&self) -> Ticket {
        self.desk.ticket(&self.run)
    }

    fn facts(&self) -> Result<RunFacts, ApiError> {
        self.desk
            .book
            .live()
            .ok_or_else(|| internal("the run has ended under its own task"))
    }

    fn candidate(&self) -> Result<&Region, ApiError> {
        self.to
            .as_ref()
            .ok_or_else(|| internal("the run has no candidate yet"))
    }

    async fn note(&self, step: Step, text: String) -> Result<(), ApiError> {
        self.desk
            .book
            .note(Fact::Note {
                step: Some(step),
                text,
            })
            .await
    }

    async fn exception(&self, text: String) -> Result<(), ApiError> {
        self.desk.book.note(Fact::Exception { text }).await
    }
}

/// The moments at the end of a step.
pub(crate) const fn moments(step: Step) -> &'static [Moment] {
    match step {
        Step::Preflight => &[Moment::BeforeFence],
        Step::Drain => &[Moment::AfterDrain],
        // The point of no return then looks once more whether everything still stands.
        Step::CaughtUp => &[Moment::BeforePromote],
        Step::Hooks => &[Moment::AfterPromote, Moment::BeforeOpen],
        Step::Converge => &[Moment::AfterOpen],
        Step::Verify => &[Moment::Rejoin],
        Step::Fence
        | Step::Evidence
        | Step::Certificate
        | Step::Pnr
        | Step::Promote
        | Step::Identity
        | Step::Open
        | Step::Report => &[],
    }
}

/// What a step found, if it has something to show.
type Found = Result<Vec<Finding>, Stop>;
