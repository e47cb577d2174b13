//! Preflight, fence and drain: from traffic to silence.

use std::sync::Arc;
use std::time::Duration;

use writefence_admin::api::{
    ApiError, Code, DrainOutcome, Finding, Level, RunKind, Step, StragglerKind,
};
use writefence_admin::runbook::Fact;

use super::super::actor::Fencing;
use super::super::checks::{self, Scene};
use super::super::drains::{Draining, stragglers};
use super::super::error::refused;
use super::super::loss;
use super::super::measure;
use super::super::preflight;
use super::{Course, Found, Stop};
use crate::clock;

/// How long cancelled stragglers have to end: a cancel is answered at once or not at all.
const AFTER_CANCEL: Duration = Duration::from_secs(2);

/// How long permit holders towards a dead primary get before they are ended: their sockets break
/// at once where the server died, and never where it was cut off.
const DEAD_PRIMARY: Duration = Duration::from_secs(1);

/// Logins ahead of the fence are waited for as long as they make progress: this long without any,
/// and the fence falls. A login takes milliseconds; a session that cannot move makes none.
const AHEAD_STALLED: Duration = Duration::from_millis(500);

/// How long `prepare` waits for a drain, so that an idle group is drained when it answers.
const AT_ONCE: Duration = Duration::from_millis(100);

impl Course {
    pub(super) async fn preflight(&mut self) -> Found {
        let moves = match self.kind {
            RunKind::Switchover => true,
            RunKind::Drill => !self.facts()?.started.fence_only,
            RunKind::Steps | RunKind::Failover => false,
        };
        if moves {
            self.clear_candidate().await?;
            self.log_in_ahead().await?;
            // Logins that the candidate refused are known only now.
            preflight::sessions_again(&mut self.found, &self.desk);
        }
        if self.kind == RunKind::Failover {
            self.state_loss_ahead().await?;
        }
        // Asked before the run began; a blocked move leaves no run behind.
        let mut found = std::mem::take(&mut self.found);
        found.extend(self.checks().await?);
        Ok(found)
    }

    /// What the promotion would lose, told before it.
    pub(super) async fn state_loss_ahead(&self) -> Result<(), ApiError> {
        let to = self.candidate()?;
        let seen = self.desk.servers.observe(to).await.ok();
        let stated = loss::stated(&self.desk, &self.from, to, seen.as_ref());
        self.desk.book.note(Fact::Loss(stated)).await
    }

    /// A candidate that was the primary once has kept the barrier of that time. What stands in the way
    /// of lifting it now is found again, and said, by the check of the promoted server.
    pub(super) async fn clear_candidate(&self) -> Result<(), Stop> {
        let to = self.candidate()?.clone();
        if let Err(error) = self.desk.servers.clear(&to, &self.ticket()).await {
            let text = format!("an older barrier on {to} is lifted after its promotion: {error}");
            self.note(Step::Preflight, text).await?;
        }
        Ok(())
    }

    /// The user's checks. A failover asks nothing of the primary that it gives up. In a run of single
    /// steps a person goes on or not: the fence is not withheld from somebody who asks for it.
    async fn checks(&self) -> Found {
        let gives_up = self.kind == RunKind::Failover;
        let scene = Scene {
            primary: Some(&self.from).filter(|_| !gives_up),
            other: self.to.as_ref(),
            kept: None,
        };
        let made = self.unless_told(checks::before(&self.desk, &scene)).await?;
        if let Err(error) = preflight::unblocked(&made) {
            if self.kind != RunKind::Steps {
                return Err(Stop::Failed(error));
            }
            self.exception(error.message).await?;
        }
        Ok(made)
    }

    /// Has the sessions log in to the candidate before the fence falls, so that logins are no part
    /// of the write gap. Who is not ready in time logs in later; nothing depends on it.
    async fn log_in_ahead(&self) -> Result<(), Stop> {
        let group = &self.desk.group;
        let named = group.targets.set_candidate(self.to.as_ref());
        named.map_err(|e| refused(Code::WrongRegion, e.to_string()))?;
        group.gate.wake_all();
        let Some(candidate) = group.targets.candidate() else {
            return Ok(());
        };
        let mut best = (0, clock::now());
        loop {
            let (ready, all) = group.sessions.ready_for(candidate.serial);
            if ready > best.0 {
                best = (ready, clock::now());
            }
            if ready == all || best.1.elapsed() >= AHEAD_STALLED {
                return Ok(());
            }
            self.unless_told(tokio::time::sleep(Duration::from_millis(5)))
                .await?;
        }
    }

    pub(super) async fn fence(&mut self) -> Found {
        let fenced_before = self.facts()?.fence.map(|(_, fence)| fence);
        // A resumed run keeps the answer that it was started with.
        let hold_ms = self
            .asked
            .hold_ms
            .or_else(|| fenced_before.and_then(|f| f.hold_ms));
        let answer = self
            .asked
            .answer
            .or_else(|| fenced_before.map(|f| gate_answer(f.answer)));
        let mut settings = (*self.settings).clone();
        if self.asked.everything {
            let hold = hold_ms.map_or(settings.hold, Duration::from_millis);
            (settings.all, settings.grace, settings.deadline) = (true, hold, hold);
        }
        let mut order = Fencing::new(&settings, answer, hold_ms);
        if self.kind == RunKind::Failover {
            order.http_first = None;
        }
        let budget = self.facts()?.started.budget_ms.map(Duration::from_millis);
        self.until = budget.map(|budget| clock::now() + budget);
        self.renew_names();
        measure::before(&self.desk, &self.run, &self.from);
        self.standing = Some(self.desk.actor.fence(order, self.halt.clone()).await?);
        let named = self.desk.group.targets.set_candidate(self.to.as_ref());
        named.map_err(|e| refused(Code::WrongRegion, e.to_string()))?;
        self.desk.group.gate.wake_all();
        if self.kind == RunKind::Steps {
            self.settle_fence().await?;
            self.desk
                .drains
                .start(clock::now() + self.settings.deadline);
        }
        Ok(Vec::new())
    }

    /// With a new epoch the names of the other regions are asked for again, beside the run: nothing
    /// waits for DNS. The accepted one keeps what it has: its sessions are there.
    fn renew_names(&self) {
        let regions = self.desk.group.targets.regions().iter();
        let others = regions.filter(|target| target.region != self.from);
        for target in others.filter(|target| target.endpoint.is_name()) {
            let (servers, region) = (Arc::clone(&self.desk.servers), target.region.clone());
            self.desk.tasks.spawn(async move {
                if let Err(error) = servers.renew(&region).await {
                    tracing::warn!(%region, %error, "its name was asked for again in vain");
                }
            });
        }
    }

    /// Waits for the fence's record. Nothing is certified before it.
    pub(super) async fn settle_fence(&mut self) -> Result<(), ApiError> {
        match self.standing.take() {
            Some(standing) => standing.durable().await,
            None => Ok(()),
        }
    }

    pub(super) async fn drain(&mut self) -> Found {
        let wait = match self.kind {
            RunKind::Failover => DEAD_PRIMARY.min(self.settings.deadline),
            RunKind::Steps | RunKind::Switchover | RunKind::Drill => self.settings.deadline,
        };
        let deadline = match self.asked.max_wait {
            Some(wait) => clock::now() + wait,
            None => self.until(wait),
        };
        let mut draining = self.draining(deadline);
        if self.asked.accept_loss && self.kind != RunKind::Switchover {
            draining.accept_unknown();
        }
        if self.asked.force {
            draining = self.forced(draining, deadline).await?;
        }
        let mut outcome = self.unless_told(draining.ended()).await?;
        if outcome == DrainOutcome::TimedOut && self.kind == RunKind::Failover {
            outcome = self.cut().await?;
        }
        match outcome {
            DrainOutcome::Drained => {
                if self.kind == RunKind::Steps && self.desk.servers.has_database() {
                    self.early_lsn().await?;
                }
                Ok(self.left_prepared())
            }
            DrainOutcome::DrainedWithUnknown => {
                let n = self.desk.group.gate.unknown();
                self.exception(format!("{n} writes of unknown outcome were accepted"))
                    .await?;
                Ok(self.left_prepared())
            }
            DrainOutcome::TimedOut | DrainOutcome::Superseded => {
                let last = self.desk.drains.last().unwrap_or(draining);
                let mut error = not_drained(&self.desk.drains.document(&last));
                if self.kind != RunKind::Steps {
                    error.hint = Some(self.of_stragglers().to_owned());
                }
                Err(Stop::Failed(error))
            }
        }
    }

    /// What to do about them where nobody sits between the steps.
    const fn of_stragglers(&self) -> &'static str {
        match self.kind {
            RunKind::Switchover | RunKind::Drill => {
                "the run goes back by itself; end the stragglers and start again, or start again with \
                 `--force-stragglers`"
            }
            RunKind::Failover | RunKind::Steps => {
                "the fence stays; end the stragglers and repeat the command, or `abort`"
            }
        }
    }

    /// Prepared transactions outlive a drain, and are on the candidate too once it has caught up.
    fn left_prepared(&self) -> Vec<Finding> {
        let last = self.desk.drains.last().and_then(|d| d.prepared());
        let Some(left) = last.filter(|left| !left.is_empty()) else {
            return Vec::new();
        };
        let names: Vec<&str> = left.iter().take(5).map(|p| p.gid.as_str()).collect();
        let text = format!(
            "{} prepared transactions on {} move along and stay open: {}",
            left.len(),
            self.from,
            names.join(", ")
        );
        vec![Finding::new(Level::Warn, "prepared_transactions", text)]
    }

    /// The drain in force if it has not ended, else a new one.
    fn draining(&self, deadline: tokio::time::Instant) -> Arc<Draining> {
        let epoch = self.desk.actor.epoch();
        let usable =
            |d: &Arc<Draining>| d.is_of(epoch) && (d.outcome().is_none() || d.proof().is_some());
        let last = self.desk.drains.last().filter(usable);
        last.unwrap_or_else(|| self.desk.drains.start(deadline))
    }

    /// Gives the drain most of its time, then has undone what is left and waits again. That does not
    /// end a permit, the server's answer does.
    async fn forced(
        &self,
        draining: Arc<Draining>,
        deadline: tokio::time::Instant,
    ) -> Result<Arc<Draining>, Stop> {
        let left = deadline.saturating_duration_since(clock::now());
        let patience = match self.kind {
            RunKind::Steps => Duration::ZERO,
            RunKind::Switchover | RunKind::Failover | RunKind::Drill => {
                left.saturating_sub(AFTER_CANCEL)
            }
        };
        if self
            .unless_told(draining.ended_within(patience))
            .await?
            .is_some()
        {
            return Ok(draining);
        }
        let all = stragglers(&self.desk.group);
        for straggler in &all {
            match (straggler.kind, straggler.id.parse()) {
                (StragglerKind::Sql, Ok(id)) => self.desk.group.sessions.force(id),
                // No server can be told to stop a request: what becomes of it is unknown then.
                (StragglerKind::Http, _) => self.desk.group.requests.give_up(&straggler.id),
                (StragglerKind::Tcp, _) => self.desk.group.connections.give_up(&straggler.id),
                (StragglerKind::Sql, Err(_)) | (StragglerKind::Prepared, _) => {}
            }
        }
        self.note(
            Step::Drain,
            format!("{} stragglers were cancelled or rolled back", all.len()),
        )
        .await?;
        Ok(draining)
    }

    /// Has the sessions that still hold a permit let go of a primary that is given up. Their
    /// clients stay; outcomes that are unknown then are what a failover accepts.
    async fn cut(&self) -> Result<DrainOutcome, Stop> {
        let sessions = &self.desk.group.sessions;
        let all = sessions.snapshot();
        let holders: Vec<_> = all.iter().filter(|s| s.permitted).collect();
        for session in &holders {
            sessions.give_up(session.id);
        }
        let n = holders.len();
        if n > 0 {
            let text = format!(
                "{n} sessions with a write in flight were cut from {}",
                self.from
            );
            self.exception(text).await?;
        }
        let n = self.desk.group.requests.give_up_in(self.from.as_str());
        if n > 0 {
            let text = format!("{n} requests in flight were given up in {}", self.from);
            self.exception(text).await?;
        }
        let n = self.desk.group.connections.give_up_in(self.from.as_str());
        if n > 0 {
            let text = format!(
                "{n} connections of other protocols were cut from {}",
                self.from
            );
            self.exception(text).await?;
        }
        let draining = self.desk.drains.start(self.until(AFTER_CANCEL));
        draining.accept_unknown();
        // What a killed predecessor left at a primary that is given up cannot be asked about.
        self.desk.leftover.ended_in(&self.from);
        self.unless_told(draining.ended()).await
    }

    /// For `prepare`: a group without traffic is drained as soon as it is fenced, and is shown so.
    pub(crate) async fn drain_if_idle(&mut self) -> Result<(), Stop> {
        let Some(draining) = self.desk.drains.last() else {
            return Ok(());
        };
        match draining.ended_within(AT_ONCE).await {
            Some(DrainOutcome::Drained) => self.advance(&[Step::Drain]).await,
            Some(_) | None => Ok(()),
        }
    }
}

fn gate_answer(answer: writefence_admin::api::FenceAnswer) -> crate::gate::Answer {
    match answer {
        writefence_admin::api::FenceAnswer::Hold => crate::gate::Answer::Hold,
        writefence_admin::api::FenceAnswer::Reject => crate::gate::Answer::Reject,
    }
}

fn not_drained(drain: &writefence_admin::api::Drain) -> ApiError {
    let mut error = match drain.verdict() {
        Err(error) => error,
        Ok(()) => ApiError::new(Code::NotDrained, "the drain has not ended"),
    };
    let named: Vec<String> = drain
        .stragglers
        .iter()
        .take(5)
        .map(|s| {
            let of = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
            format!(
                "session {} of {} from {} ({})",
                s.id,
                of(&s.user),
                of(&s.client),
                of(&s.state)
            )
        })
        .collect();
    if !named.is_empty() {
        error.message = format!("{}: {}", error.message, named.join(", "));
    }
    error
}
