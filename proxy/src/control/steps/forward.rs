//! The point of no return, the promotion, and the proof of who was promoted.

use std::time::Duration;

use writefence_admin::api::{ApiError, Code, EvidenceKind, Step};
use writefence_admin::runbook::{Fact, Promoted};

use super::super::error::{internal, refused};
use super::super::former::{Diverged, Sight, rewind};
use super::super::servers::{StillBarred, successor};
use super::super::unknown;
use super::evidence::lsn_of;
use super::{Course, Found, Stop};
use crate::clock;
use crate::evidence::NextXid;
use crate::fleet::Durability;
use crate::upstream::{Lsn, Region, Role, Wanted};

/// How often the fence LSN is taken anew because somebody wrote behind the barrier: background work
/// of the server does so now and then, a client that does so each time is a foreign writer.
const LATE_WRITERS: u32 = 5;

/// How long the candidate then gets to catch up.
const CATCH_UP_AGAIN: Duration = Duration::from_secs(3);

/// How long a server that is gone is asked whether it is back; a part of the write gap.
const STILL_GONE: Duration = Duration::from_millis(200);

impl Course {
    /// Requires that the fence and the barrier still stand, at the latest possible moment.
    pub(super) async fn point_of_no_return(&mut self) -> Found {
        if self.facts()?.pnr.is_some() {
            // Passed by a predecessor that did not live to say so. What bars the old primary was
            // looked at then, and is not this process's to remember; there is only forward.
            return Ok(Vec::new());
        }
        let to = self.candidate()?.clone();
        let mut tries = LATE_WRITERS;
        let pinned = loop {
            // Two servers, asked at the same time.
            let (barred, pinned) = tokio::join!(self.still_barred(), self.desk.servers.pin(&to));
            let pinned = pinned?;
            let why = match barred? {
                StillBarred::Stands => break pinned,
                StillBarred::Written(why) => why,
            };
            tries -= 1;
            if tries == 0 {
                let text = format!(
                    "somebody keeps writing in {} behind the barrier: {why}",
                    self.from
                );
                return Err(Stop::Failed(refused(Code::ForeignWriters, text)));
            }
            self.note(Step::Pnr, format!("{why}; the fence LSN is taken anew"))
                .await?;
            self.fence_lsn_again(&to).await?;
        };
        let accepted = self.desk.group.targets.accepted().identity;
        if let (Some(ours), Some(theirs)) = (accepted, &pinned.system_identifier)
            && ours.system_identifier.to_string() != *theirs
        {
            let text = format!(
                "{to} has system identifier {theirs}, the group has {}: another cluster",
                ours.system_identifier
            );
            return Err(Stop::Failed(refused(Code::IdentityMismatch, text)));
        }
        self.desk.actor.point_of_no_return(pinned).await?;
        Ok(Vec::new())
    }

    async fn still_barred(&self) -> Result<StillBarred, ApiError> {
        if !self.desk.servers.has_database() {
            return Ok(StillBarred::Stands);
        }
        match self.facts()?.evidence.map(|evidence| evidence.kind) {
            Some(EvidenceKind::Barrier) => {}
            Some(EvidenceKind::Stopped | EvidenceKind::Stonith) => {
                return self.still_gone().await;
            }
            Some(EvidenceKind::Sync | EvidenceKind::Override) | None => {
                return Ok(StillBarred::Stands);
            }
        }
        let own = self.desk.own(&self.from);
        self.desk
            .servers
            .barred(&self.from, &self.ticket(), own)
            .await
    }

    /// Being stopped is a moment, not a state: somebody may have started it again since.
    async fn still_gone(&self) -> Result<StillBarred, ApiError> {
        let asked = self.desk.servers.observe(&self.from);
        match tokio::time::timeout(STILL_GONE, asked).await {
            Ok(Ok(seen)) if seen.role != Some(Role::Standby) => {
                let text = format!("{} was shown to be stopped and answers again", self.from);
                Err(refused(Code::EvidenceMissing, text)
                    .hint("stop it for good, or repeat: one that answers can be barred"))
            }
            Ok(_) | Err(_) => Ok(StillBarred::Stands),
        }
    }

    /// What was written behind the barrier is on the candidate too before it is promoted.
    async fn fence_lsn_again(&self, to: &Region) -> Result<(), ApiError> {
        let until = self.until(CATCH_UP_AGAIN);
        let lsn = self
            .desk
            .servers
            .fence_lsn(&self.from, &self.ticket(), until)
            .await?;
        self.desk.servers.replayed(to, &lsn, until).await?;
        if let Some(mut certificate) = self.facts()?.certificate {
            certificate.fence_lsn = Some(lsn.lsn.clone());
            self.desk.book.note(Fact::FenceLsn(lsn)).await?;
            self.desk
                .book
                .note(Fact::Certificate { certificate })
                .await?;
        }
        Ok(())
    }

    pub(super) async fn promote(&mut self) -> Found {
        let pinned = self
            .facts()?
            .pnr
            .ok_or_else(|| internal("a promotion without a point of no return"))?;
        // Nothing is given up after it: the run stands still, and `resume` looks again.
        let until = clock::now() + self.settings.promotion;
        self.seen = Some(self.desk.servers.promote(&pinned, until).await?);
        Ok(Vec::new())
    }

    /// The promoted server is the successor of the primary in force and has everything up to the
    /// fence; its own read-only setting is off; lost outcomes are looked up before it is written to.
    pub(super) async fn identity(&mut self) -> Found {
        if !self.desk.servers.has_database() {
            return self.identity_without_database().await;
        }
        let to = self.candidate()?.clone();
        let facts = self.facts()?;
        let fence_lsn = facts.fence_lsn.as_ref().and_then(lsn_of);
        let checked = self.checked_successor(fence_lsn).await?;
        let identity = checked
            .identity()
            .ok_or_else(|| internal("a database without an identity"))?;
        // The first look counts, also after a restart: what was given out since is not the old
        // primary's.
        let next_xid = match facts.promoted.as_ref().and_then(|p| p.next_xid) {
            Some(next) => Some(next),
            None => self.next_xid(&to).await,
        };
        let fact = Fact::Promoted(Promoted {
            next_xid,
            region: to.to_string(),
            system_identifier: Some(identity.system_identifier.to_string()),
            timeline: Some(identity.timeline.value()),
            fork_lsn: identity.fork_lsn.map(|lsn| lsn.to_string()),
        });
        // Written now, synced together with the record of the opening, which needs it.
        self.desk.book.note_with(fact, Durability::Lazy).await?;
        if fence_lsn.is_none() {
            self.state_loss(identity.fork_lsn).await?;
        }
        if !self.desk.group.unknown.list().is_empty() {
            // Whoever goes on after a crash must judge by the same bound.
            self.desk.book.sync().await?;
        }
        let next = next_xid.map(NextXid::new);
        unknown::resolve_after(&self.desk, &self.from, &to, next).await;
        self.checked = Some(checked);
        Ok(Vec::new())
    }

    /// The promoted server's next transaction id, from the look that found it promoted.
    async fn next_xid(&self, to: &Region) -> Option<u64> {
        match &self.seen {
            Some(seen) => seen.next_xid,
            None => self.desk.servers.observe(to).await.ok()?.next_xid,
        }
    }

    /// What was last seen of the old primary beside where the new one left it. What it wrote after
    /// that look is not known to anybody here, so this is the least that is lost, unless a
    /// synchronous standby had to confirm it.
    async fn state_loss(&self, fork: Option<Lsn>) -> Result<(), ApiError> {
        let seen = self.desk.servers.seen(&self.from);
        let last = seen
            .as_ref()
            .and_then(|seen| Some((seen.last.as_ref()?.lsn?, seen.last_at?)));
        let confirmed = self
            .facts()?
            .evidence
            .is_some_and(|e| e.kind == EvidenceKind::Sync);
        let accepted = self.desk.group.targets.accepted().identity;
        if let (Some((last, _)), Some(fork), Some(old), false) = (last, fork, accepted, confirmed)
            && last > fork
        {
            let found = Diverged {
                from: fork,
                to: last,
                timeline: old.timeline.value(),
            };
            let log = found.document(&self.from, Sight::Before);
            self.desk.book.note(Fact::Diverged(log)).await?;
        }
        let text = match (last, fork) {
            (Some((last, at)), Some(fork)) => format!(
                "{} was last seen at {last}, {} ms before the promotion was known, and the new \
                 timeline left it at {fork}: {}; to bring it back, {}",
                self.from,
                clock::ms_since(at),
                match last.bytes_since(fork) {
                    0 => "what it wrote behind that is lost, if it wrote anything".to_owned(),
                    bytes => format!("at least {bytes} bytes of its log are lost, from {fork} on"),
                },
                rewind(&self.desk, &self.from, self.candidate()?)
            ),
            (Some(_) | None, _) => format!("how much of {} is lost is not known", self.from),
        };
        match confirmed {
            true => self.note(Step::Identity, text).await,
            false => self.exception(text).await,
        }
    }

    /// The check, also after a restart in which the target was put in force already.
    pub(super) async fn checked_successor(
        &self,
        fence_lsn: Option<Lsn>,
    ) -> Result<crate::upstream::CheckedTarget, ApiError> {
        let to = self.candidate()?;
        let accepted = self.desk.group.targets.accepted();
        let wanted = match accepted.identity {
            Some(identity) if accepted.region == *to => Wanted::Same(identity),
            Some(identity) => successor(identity, fence_lsn, self.asked.accept_loss),
            None => Wanted::First,
        };
        self.desk
            .servers
            .check(to, wanted, Some(&self.ticket()), self.seen.clone())
            .await
    }
}
