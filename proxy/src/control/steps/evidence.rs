//! Evidence, certificate, catching up: what has to be true before the point of no return.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use writefence_admin::api::{
    ApiError, Certificate, Code, Evidence, EvidenceKind, RunKind, Step, Timestamp,
};
use writefence_admin::runbook::{Fact, FenceLsn};

use super::super::checks;
use super::super::error::{chain, refused};
use super::super::hooks::Told;
use super::{Course, Found, Stop};
use crate::clock;
use crate::evidence::PATIENCE;
use crate::outside::{self, Program};
use crate::sessions::OwnBackend;
use crate::upstream::{Lsn, Region, Role};

/// How long the barrier may take to end foreign sessions and the fence LSN to be flushed.
pub(super) const BARRIER: Duration = Duration::from_secs(5);

/// How long our own sessions get to stand under wall two: as long as the barrier waits for them.
const WALLS: Duration = PATIENCE;

/// How long a failover asks an old primary that may be dead.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How long a failover waits for the candidate to replay what the old primary was seen to have.
const CATCH_UP_FAILOVER: Duration = Duration::from_secs(3);

/// Characters of a program's answer that the certificate keeps.
const SAID: usize = 200;

/// How long a run of single steps waits for it.
const CATCH_UP_STEPS: Duration = Duration::from_secs(60);

impl Course {
    pub(super) async fn evidence(&mut self) -> Found {
        if !self.desk.servers.has_database() {
            return self.evidence_without_database().await;
        }
        let candidate = self.candidate()?.clone();
        if self.kind == RunKind::Steps {
            // A candidate that cannot be promoted is found before the old primary is shut.
            self.desk
                .servers
                .warm(&[self.from.clone(), candidate.clone()])
                .await
                .ok();
            self.desk.servers.pin(&candidate).await?;
            self.clear_candidate().await?;
        }
        if self.kind == RunKind::Failover || self.asked.accept_loss {
            return self.evidence_of_lost().await;
        }
        if let Err(error) = self.barrier().await {
            // A primary that is gone since can still be shown to commit nothing alone.
            if error.code != Code::TargetUnreachable || self.kind == RunKind::Switchover {
                return Err(Stop::Failed(error));
            }
            if let Err(why) = self.of_silent(&candidate).await? {
                return Err(Stop::Failed(missing(&error, &why)));
            }
        }
        Ok(Vec::new())
    }

    /// The old primary is asked once, and briefly; what it does not say is accepted as lost.
    async fn evidence_of_lost(&mut self) -> Found {
        let asked = tokio::time::timeout(LAST_WORD, self.desk.servers.observe(&self.from)).await;
        let why = match asked {
            Ok(Ok(seen)) if seen.role == Some(Role::Primary) => {
                // It answers, and yet cannot be shut by SQL: it may still be powered down.
                match self.barrier().await {
                    Ok(()) => return Ok(Vec::new()),
                    Err(error) if self.settings.evidence.stonith.is_none() => {
                        return Err(Stop::Failed(error));
                    }
                    Err(error) => match self.by_program(EvidenceKind::Stonith).await? {
                        Ok(()) => return Ok(Vec::new()),
                        Err(_) => return Err(Stop::Failed(error)),
                    },
                }
            }
            Ok(Ok(_)) => {
                let detail = format!("{} answers and is in recovery: no primary", self.from);
                self.found(EvidenceKind::Stopped, detail).await?;
                return Ok(Vec::new());
            }
            Ok(Err(error)) => error.message,
            Err(_) => format!(
                "{} did not answer within {} ms",
                self.from,
                LAST_WORD.as_millis()
            ),
        };
        let candidate = self.candidate()?.clone();
        let not_shown = match self.of_silent(&candidate).await? {
            Ok(()) => return Ok(Vec::new()),
            Err(not_shown) => not_shown,
        };
        if self.kind != RunKind::Failover {
            self.state_loss_ahead().await?;
        }
        let started = self.facts()?.started;
        let (by, reason) = (started.actor, started.reason);
        let detail = format!("loss accepted by {by} ({reason}); {why}; {not_shown}");
        self.exception(format!(
            "no evidence about the old primary {}: {detail}",
            self.from
        ))
        .await?;
        self.found(EvidenceKind::Override, detail).await?;
        Ok(Vec::new())
    }

    /// What shows without its help that the old primary takes no more writes, the strongest first;
    /// else why nothing does.
    async fn of_silent(&self, candidate: &Region) -> Result<Result<(), String>, Stop> {
        let mut why = Vec::new();
        for kind in [EvidenceKind::Stopped, EvidenceKind::Stonith] {
            match self.by_program(kind).await? {
                Ok(()) => return Ok(Ok(())),
                Err(text) => why.extend(text),
            }
        }
        match self.desk.servers.synchronous(&self.from, candidate) {
            Ok(detail) => {
                self.found(EvidenceKind::Sync, detail).await?;
                Ok(Ok(()))
            }
            Err(text) => {
                why.push(text);
                Ok(Err(why.join("; ")))
            }
        }
    }

    /// Evidence by a program of the user's; why there is none, if there is such a program at all.
    pub(super) async fn by_program(
        &self,
        kind: EvidenceKind,
    ) -> Result<Result<(), Option<String>>, Stop> {
        let evidence = &self.settings.evidence;
        let words = match kind {
            EvidenceKind::Stopped => &evidence.stopped,
            EvidenceKind::Stonith => &evidence.stonith,
            EvidenceKind::Barrier | EvidenceKind::Sync | EvidenceKind::Override => &None,
        };
        let Some(words) = words else {
            return Ok(Err(None));
        };
        let first = words.join(" ");
        let word = kind.to_string();
        let facts = self.facts()?;
        let told = Told::of(&self.desk, &facts, "evidence", &word);
        let mut env = told.env();
        let target = self.desk.group.targets.region(&self.from);
        let target = target.map_err(|e| refused(Code::WrongRegion, e.to_string()))?;
        env.push(("WRITEFENCE_REGION", self.from.to_string()));
        env.push(("WRITEFENCE_HOST", target.endpoint.host.clone()));
        env.push(("WRITEFENCE_PORT", target.endpoint.port.to_string()));
        let input = told.json().to_string();
        let program = Program {
            words,
            env: &env,
            input: input.as_bytes(),
            timeout: evidence.timeout,
        };
        // On record before it is done: whoever goes on after a crash knows that it was asked for.
        self.note(
            Step::Evidence,
            format!("{word}: {first} begins for {}", self.from),
        )
        .await?;
        self.desk.book.sync().await?;
        match outside::run(&program).await {
            Ok(said) => {
                let said: String = said.split_whitespace().collect::<Vec<_>>().join(" ");
                let said: String = said.chars().take(SAID).collect();
                let detail = format!("{first} shows {} to be {}: {said}", self.from, done(kind));
                self.found(kind, detail).await?;
                Ok(Ok(()))
            }
            Err(error) => {
                let text = format!("{word}: {}", chain(&error));
                self.note(Step::Evidence, text.clone()).await?;
                Ok(Err(Some(text)))
            }
        }
    }

    /// Shuts the old primary for everybody, then takes its last position.
    async fn barrier(&mut self) -> Result<(), ApiError> {
        let until = self.until(BARRIER);
        let (servers, ticket) = (&self.desk.servers, self.ticket());
        let own = self.desk.own_let_go(&self.from);
        let barred = servers.bar(&self.from, &ticket, own, until);
        let (barred, ()) = tokio::join!(barred, self.walls());
        let mut detail = barred?;
        let sessions = &self.desk.group.sessions;
        if sessions.prove_again(&self.from, WALLS).await {
            // Now nobody is left who could change what their names stand for; who is not proven to
            // read by that is ended after all.
            let own = self.desk.own(&self.from);
            let again = servers.bar(&self.from, &ticket, own, until).await?;
            detail = format!("{detail}; what reads on was proven once more: {again}");
        }
        self.desk.leftover.ended_in(&self.from);
        self.found(EvidenceKind::Barrier, detail).await?;
        let lsn = servers.fence_lsn(&self.from, &ticket, until).await?;
        self.desk.book.note(Fact::FenceLsn(lsn)).await
    }

    /// The position at which everything acknowledged here is in the log, taken as soon as a run of
    /// single steps is drained: others may promote before we are asked to.
    pub(crate) async fn early_lsn(&self) -> Result<(), ApiError> {
        let until = clock::now() + LAST_WORD;
        match self
            .desk
            .servers
            .fence_lsn(&self.from, &self.ticket(), until)
            .await
        {
            Ok(lsn) => self.desk.book.note(Fact::FenceLsn(lsn)).await,
            Err(error) => {
                self.note(Step::Drain, format!("no fence LSN yet: {error}"))
                    .await
            }
        }
    }

    /// Idle sessions of ours put themselves under wall two when the fence falls. The barrier waits
    /// for them, and ends those that do not come to it: which ones is said.
    async fn walls(&self) {
        let until = clock::now() + WALLS;
        let own = self.desk.own_let_go(&self.from);
        // A login that is under way has its own patience from the barrier.
        let bare = |backend: &OwnBackend| !backend.walled && backend.login.is_none();
        while own().iter().any(bare) {
            if clock::now() >= until {
                self.name_unwalled();
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Which sessions lose their server to the barrier, and what they are at.
    fn name_unwalled(&self) {
        for session in self.desk.group.sessions.snapshot() {
            if session.walled || session.backend.is_none() {
                continue;
            }
            tracing::warn!(
                group = %self.desk.group.name,
                session = session.id,
                user = session.user,
                client = %session.client,
                state = session.state.name(),
                permitted = session.permitted,
                "the session could not be made read-only in time; the barrier ends its backend"
            );
        }
    }

    pub(super) async fn found(&self, kind: EvidenceKind, detail: String) -> Result<(), ApiError> {
        let evidence = Evidence {
            kind,
            at: Timestamp::now(),
            detail,
        };
        self.desk.book.note(Fact::Evidence { evidence }).await
    }

    pub(super) async fn certificate(&mut self) -> Found {
        self.settle_fence().await?;
        let facts = self.facts()?;
        let (fenced_at, fence) = facts
            .fence
            .ok_or_else(|| refused(Code::NotFenced, "the run has no fence to certify"))?;
        let draining = self
            .desk
            .drains
            .last()
            .filter(|d| d.is_of(self.desk.actor.epoch()));
        if draining.is_none_or(|d| d.proof().is_none()) {
            let text = "what was admitted before the fence is not proven to have ended";
            return Err(Stop::Failed(refused(Code::NotDrained, text)));
        }
        let evidence = facts.evidence.ok_or_else(|| {
            refused(
                Code::EvidenceMissing,
                "nothing shows that the old primary takes no writes",
            )
        })?;
        let accepted = self.desk.group.targets.accepted();
        let lsn = facts.fence_lsn;
        let certificate = Certificate {
            group: self.desk.group.name.clone(),
            epoch: fence.epoch,
            fenced_at,
            executing: 0,
            orphaned: 0,
            unknown: self.desk.group.gate.unknown(),
            evidence,
            fence_lsn: lsn.as_ref().map(|l| l.lsn.clone()),
            system_identifier: accepted.identity.map(|i| i.system_identifier.to_string()),
            timeline: accepted.identity.map(|i| i.timeline.value()),
            acks: Vec::new(),
        };
        self.desk
            .book
            .note(Fact::Certificate { certificate })
            .await?;
        Ok(Vec::new())
    }

    pub(super) async fn caught_up(&mut self) -> Found {
        let to = self.candidate()?.clone();
        let barred = |evidence: Evidence| evidence.kind == EvidenceKind::Barrier;
        if self.facts()?.evidence.is_some_and(barred) {
            let kept = checks::keep(&self.desk, &self.from).await;
            self.desk.kept.store(Arc::new((self.run.clone(), kept)));
        }
        let Some(lsn) = self.facts()?.fence_lsn else {
            let text = match self.desk.servers.has_database() {
                true => "the old primary could not say its last position; nothing to wait for",
                false => "no database, so no position to wait for",
            };
            self.note(Step::CaughtUp, text.to_owned()).await?;
            return Ok(Vec::new());
        };
        let wait = match self.kind {
            RunKind::Failover => CATCH_UP_FAILOVER,
            RunKind::Steps => CATCH_UP_STEPS,
            RunKind::Switchover | RunKind::Drill => self.settings.budget,
        };
        let until: Instant = self.until(wait);
        match self
            .unless_told(self.desk.servers.replayed(&to, &lsn, until))
            .await?
        {
            Ok(_) => Ok(Vec::new()),
            Err(error) if self.asked.accept_loss => {
                self.exception(format!("{to} has not replayed up to {}: {error}", lsn.lsn))
                    .await?;
                Ok(Vec::new())
            }
            // A switchover that waited for as long as it may goes back as one that is over its budget.
            Err(error) if self.until.is_some_and(|until| clock::now() >= until) => {
                let mut late = self.over_budget(Step::CaughtUp);
                late.message = format!("{}: {}", late.message, error.message);
                Err(Stop::Failed(late))
            }
            Err(error) => Err(Stop::Failed(error)),
        }
    }
}

/// What a program of the user's stands for.
const fn done(kind: EvidenceKind) -> &'static str {
    match kind {
        EvidenceKind::Stonith => "cut off or powered down",
        EvidenceKind::Stopped
        | EvidenceKind::Barrier
        | EvidenceKind::Sync
        | EvidenceKind::Override => "stopped",
    }
}

/// The position of a fence LSN record.
pub(super) fn lsn_of(record: &FenceLsn) -> Option<Lsn> {
    record.lsn.parse().ok()
}

pub(super) fn missing(error: &ApiError, not_sync: &str) -> ApiError {
    refused(
        Code::EvidenceMissing,
        format!(
            "nothing shows that the old primary takes no more writes: {}; {not_sync}",
            error.message
        ),
    )
    .hint(
        "if it is dead for good, repeat with --accept-loss; else make it reachable, or show that \
         it is stopped",
    )
}
