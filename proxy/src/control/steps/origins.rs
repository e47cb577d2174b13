//! The steps of a run where there is no database: nothing can be barred, awaited or identified.
//!
//! What a promotion rests on then is the drain, which says that nothing admitted here is running any
//! more, and one of: a program that shows the old region to be stopped, the driver's program, or the
//! word of the operator who began the run. That nobody else writes in the old region is shown by the
//! first alone, so the run says what it does not know among its exceptions.

use std::time::Duration;

use writefence_admin::api::{ApiError, Code, EvidenceKind, Finding, Level, RunKind};
use writefence_admin::runbook::{Fact, Promoted};

use super::super::desk::Desk;
use super::super::error::refused;
use super::{Course, Found, Stop};
use crate::fleet::Durability;
use crate::upstream::{CheckedTarget, Region, Wanted};

/// How long a region is asked for whether it takes writes.
const ASKED: Duration = Duration::from_secs(5);

impl Course {
    pub(super) async fn evidence_without_database(&mut self) -> Found {
        let from = self.from.clone();
        let mut why = Vec::new();
        for kind in self.programs() {
            match self.by_program(*kind).await? {
                Ok(()) => return Ok(Vec::new()),
                Err(text) => why.extend(text),
            }
        }
        if !why.is_empty() && !self.asked.accept_loss {
            let text = format!(
                "nothing shows that {from} takes no more writes: {}",
                why.join("; ")
            );
            return Err(Stop::Failed(
                refused(Code::EvidenceMissing, text).hint("stop it, or repeat with --accept-loss"),
            ));
        }
        let started = self.facts()?.started;
        let (by, reason) = (started.actor, started.reason);
        let moves = match self.desk.servers.driver() {
            Some(program) => format!("{program} moves what is behind it"),
            None => {
                let text = format!(
                    "no database and no program shows that nobody writes in {from} any more: what \
                     came through here has ended, nothing else is known"
                );
                self.exception(text).await?;
                "nothing else is known of it".to_owned()
            }
        };
        why.push(moves);
        let why = why.join("; ");
        let detail = format!(
            "by {by} ({reason}): what was admitted to {from} has ended; it has no database to bar; \
             {why}"
        );
        self.found(EvidenceKind::Override, detail).await?;
        Ok(Vec::new())
    }

    /// Powering a region down is for one that is given up.
    const fn programs(&self) -> &'static [EvidenceKind] {
        match self.kind {
            RunKind::Failover => &[EvidenceKind::Stopped, EvidenceKind::Stonith],
            RunKind::Steps | RunKind::Switchover | RunKind::Drill => &[EvidenceKind::Stopped],
        }
    }

    /// The program, if there is one, says that the new region takes writes and the old one does not.
    pub(super) async fn identity_without_database(&mut self) -> Found {
        let to = self.candidate()?.clone();
        let checked = self
            .desk
            .servers
            .check(&to, Wanted::First, None, None)
            .await?;
        self.left_behind().await?;
        let fact = Fact::Promoted(Promoted {
            next_xid: None,
            region: to.to_string(),
            system_identifier: None,
            timeline: None,
            fork_lsn: None,
        });
        // Written now, synced together with the record of the opening, which needs it.
        self.desk.book.note_with(fact, Durability::Lazy).await?;
        self.checked = Some(checked);
        Ok(Vec::new())
    }

    /// A region that others promoted, or that there is nothing to promote in.
    pub(super) async fn named_by_operator(
        &mut self,
        region: &Region,
    ) -> Result<CheckedTarget, Stop> {
        self.evidence_without_database().await?;
        let checked = self
            .desk
            .servers
            .check(region, Wanted::First, None, None)
            .await?;
        self.left_behind().await?;
        Ok(checked)
    }

    /// The old region is not said to take writes: two sides must never.
    async fn left_behind(&self) -> Result<(), ApiError> {
        let asked = tokio::time::timeout(ASKED, self.desk.servers.observe(&self.from));
        if let Ok(Ok(seen)) = asked.await
            && seen.writable == Some(true)
        {
            let text = format!(
                "the driver's program says that {} still takes writes",
                self.from
            );
            return Err(refused(Code::IdentityMismatch, text)
                .hint("writes stay fenced; stop it there, then repeat"));
        }
        Ok(())
    }
}

/// What is found of the regions after a move.
pub(super) async fn verified(desk: &Desk) -> Vec<Finding> {
    let accepted = desk.accepted();
    let mut found = vec![match ask(desk, &accepted).await {
        Ok(Some(false)) => Finding::new(
            Level::Block,
            "primary",
            format!("the driver's program says that {accepted} takes no writes"),
        ),
        Ok(_) => Finding::new(Level::Pass, "primary", format!("{accepted} answers")),
        Err(why) => Finding::new(Level::Block, "primary", why),
    }];
    for target in desk.group.targets.regions() {
        let region = &target.region;
        if *region == accepted {
            continue;
        }
        found.push(match ask(desk, region).await {
            Ok(Some(true)) => Finding::new(
                Level::Block,
                "two_writable_sides",
                format!("the driver's program says that {region} takes writes too: stop it"),
            ),
            Ok(Some(false)) => Finding::new(
                Level::Pass,
                "old_primary",
                format!("{region} takes no writes, says the driver's program"),
            ),
            Ok(None) => Finding::new(
                Level::Warn,
                "old_primary",
                format!("{region} answers; whether others write there is not known"),
            ),
            Err(why) => Finding::new(Level::Warn, "old_primary", why),
        });
    }
    found
}

/// Whether a region takes writes, if anybody says so; else why it does not answer.
async fn ask(desk: &Desk, region: &Region) -> Result<Option<bool>, String> {
    match tokio::time::timeout(ASKED, desk.servers.observe(region)).await {
        Ok(Ok(seen)) => Ok(seen.writable),
        Ok(Err(error)) => Err(error.message),
        Err(_) => Err(format!("{region} did not answer within {ASKED:?}")),
    }
}
