//! Opening without a promotion of ours: back where writes were, where others promoted, or for the
//! very first time.
//!
//! The steps that such a run does not take are skipped on record. A server promoted by others must
//! show the same as one promoted here: that the old primary takes no more writes, and that it has
//! everything up to the fence.

use writefence_admin::api::{Code, EvidenceKind, Step};
use writefence_admin::runbook::Fact;

use super::super::error::refused;
use super::super::servers::successor;
use super::super::unknown;
use super::evidence::lsn_of;
use super::{Course, Stop};
use crate::clock;
use crate::evidence::NextXid;
use crate::upstream::{Region, Role, Wanted};

/// What an opening without a promotion of ours rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// The primary in force, never left.
    Back,
    /// A server that others promoted.
    Promoted(Region),
    /// No primary was ever decided upon, or what was is lost.
    First(Region),
}

impl Course {
    /// Skips what is not needed and opens.
    pub(crate) async fn open_elsewhere(&mut self, at: &Elsewhere) -> Result<(), Stop> {
        let ticket = self.ticket();
        match at {
            Elsewhere::Back => self.nobody_ahead(&self.desk.accepted()).await?,
            Elsewhere::First(region) => self.nobody_ahead(region).await?,
            // Checked against the identity in force, and the old primary is shut first.
            Elsewhere::Promoted(_) => {}
        }
        let (reason, checked) = match at {
            Elsewhere::Back => {
                let accepted = self.desk.group.targets.accepted();
                let wanted = accepted.identity.map_or(Wanted::First, Wanted::Same);
                let checked = match self
                    .desk
                    .servers
                    .check(&accepted.region, wanted, Some(&ticket), None)
                    .await
                {
                    Ok(checked) => checked,
                    // Promoted or rebuilt in its own place: with accepted loss it is taken as it is.
                    Err(error)
                        if error.code == Code::IdentityMismatch && self.asked.accept_loss =>
                    {
                        self.exception(error.message.clone()).await?;
                        let old = accepted.identity.ok_or(error)?;
                        let wanted = successor(old, None, true);
                        self.desk
                            .servers
                            .check(&accepted.region, wanted, Some(&ticket), None)
                            .await?
                    }
                    Err(error) => return Err(Stop::Failed(error)),
                };
                ("opened where writes were before", checked)
            }
            Elsewhere::First(region) => {
                let checked = self
                    .desk
                    .servers
                    .check(region, Wanted::First, Some(&ticket), None)
                    .await?;
                ("the operator named the primary", checked)
            }
            Elsewhere::Promoted(region) => ("promoted by others", self.by_others(region).await?),
        };
        self.checked = Some(checked);
        let facts = self.facts()?;
        let moved = matches!(at, Elsewhere::Promoted(_));
        for step in Step::ALL
            .into_iter()
            .filter(|s| *s < Step::Open && !facts.is_behind(*s))
            // Where the primary has moved, what the user does after a promotion is due too.
            .filter(|s| !(moved && *s == Step::Hooks))
        {
            self.desk
                .book
                .note(Fact::StepSkipped {
                    step,
                    reason: reason.to_owned(),
                })
                .await?;
        }
        if moved {
            self.take(Step::Hooks).await?;
        }
        self.take(Step::Open).await
    }

    /// No other region takes writes or is on a higher timeline: it was promoted since, and opening
    /// here would make two primaries. Only an operator who accepts the loss of what was written
    /// there may go on. A region that does not answer is the operator's decision.
    async fn nobody_ahead(&self, region: &Region) -> Result<(), Stop> {
        let own = self.desk.servers.observe(region).await?;
        for target in self.desk.group.targets.regions() {
            if target.region == *region {
                continue;
            }
            let Ok(other) = self.desk.servers.observe(&target.region).await else {
                continue;
            };
            let why = if other.writable == Some(true) {
                "takes writes"
            } else if other.timeline > own.timeline {
                "is on a higher timeline"
            } else {
                continue;
            };
            let text = format!(
                "{} {why}: it was promoted and {region} was left",
                target.region
            );
            if !self.asked.accept_loss {
                let error = refused(Code::IdentityMismatch, text);
                return Err(Stop::Failed(error.hint(format!(
                    "`open-writes --primary {}` opens there; with --accept-loss it opens in \
                     {region} all the same, once nobody else takes writes",
                    target.region
                ))));
            }
            if other.writable == Some(true) {
                let error = refused(Code::IdentityMismatch, text);
                return Err(Stop::Failed(
                    error.hint("stop it first: two sides must never write"),
                ));
            }
            self.exception(format!(
                "{text}; the loss of what was written there is accepted"
            ))
            .await?;
        }
        Ok(())
    }

    async fn by_others(&mut self, region: &Region) -> Result<crate::upstream::CheckedTarget, Stop> {
        if !self.desk.servers.has_database() {
            return self.named_by_operator(region).await;
        }
        let ticket = self.ticket();
        let accepted = self.desk.group.targets.accepted();
        let Some(old) = accepted.identity else {
            return Ok(self
                .desk
                .servers
                .check(region, Wanted::First, Some(&ticket), None)
                .await?);
        };
        // A server that was not promoted is found before the old primary is shut for its sake.
        if self.desk.servers.observe(region).await?.role != Some(Role::Primary) {
            let text = format!("region {region} is not a primary; nobody has promoted it");
            let error = refused(Code::IdentityMismatch, text);
            return Err(Stop::Failed(error.hint("`promote` does it here")));
        }
        let fence_lsn = self.facts()?.fence_lsn.as_ref().and_then(lsn_of);
        let kind = self.barred_or_dead(region).await?;
        let shown = fence_lsn.is_some() || kind == EvidenceKind::Sync || self.asked.accept_loss;
        if !shown {
            let text = format!(
                "it cannot be shown that {region} has everything up to the fence: the old primary's \
                 last position was not taken"
            );
            let error = refused(Code::CandidateBehind, text);
            return Err(Stop::Failed(error.hint("--accept-loss opens all the same")));
        }
        let wanted = successor(old, fence_lsn, self.asked.accept_loss);
        let checked = self
            .desk
            .servers
            .check(region, wanted, Some(&ticket), None)
            .await?;
        let seen = self.desk.servers.observe(region).await;
        let next = seen.ok().and_then(|seen| seen.next_xid).map(NextXid::new);
        unknown::resolve_by_others(&self.desk, &self.from, next);
        if self.asked.accept_loss {
            let text = format!("{region} was promoted by others and opened with accepted loss");
            self.exception(text).await?;
        }
        Ok(checked)
    }

    /// Shows that the old primary takes no more writes, without asking for its position: it may
    /// have gone on behind the fork.
    async fn barred_or_dead(&mut self, region: &Region) -> Result<EvidenceKind, Stop> {
        let own = self.desk.own(&self.from);
        let until = clock::now() + super::evidence::BARRIER;
        let error = match self
            .desk
            .servers
            .bar(&self.from, &self.ticket(), own, until)
            .await
        {
            Ok(detail) => {
                self.desk.leftover.ended_in(&self.from);
                self.found(EvidenceKind::Barrier, detail).await?;
                return Ok(EvidenceKind::Barrier);
            }
            Err(error) => error,
        };
        if error.code != Code::TargetUnreachable {
            return Err(Stop::Failed(error));
        }
        let not_sync = match self.desk.servers.synchronous(&self.from, region) {
            Ok(detail) => {
                self.found(EvidenceKind::Sync, detail).await?;
                return Ok(EvidenceKind::Sync);
            }
            Err(not_sync) => not_sync,
        };
        if self.asked.accept_loss {
            let detail = format!("loss accepted by the operator; {}", error.message);
            self.found(EvidenceKind::Override, detail).await?;
            return Ok(EvidenceKind::Override);
        }
        Err(Stop::Failed(super::evidence::missing(&error, &not_sync)))
    }
}
