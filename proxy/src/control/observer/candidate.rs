//! The candidate: who it is, how far it came, its promotion, and the proof of who was promoted.

use tokio::time::Instant;
use writefence_admin::api::{ApiError, Code};
use writefence_admin::runbook;
use writefence_admin::runbook::Pinned;

use super::super::error::{chain, internal, refused};
use super::super::line::Line;
use super::super::servers::Ticket;
use super::Observer;
use super::barrier::LIFT;
use super::words::{not_asked, not_barred};
use crate::driver;
use crate::evidence::{Claim, NotCaughtUp, caught_up, ensure_writable_setting};
use crate::upstream::wire::rows::{flag, value};
use crate::upstream::{
    CheckedTarget, History, Identity, Lsn, Observation, Region, Role, Timeline, Wanted, probe,
};

/// What a candidate is pinned by, in one question: it is asked within the write gap. Without a
/// walreceiver, as after the death of the primary, the control file tells the timeline.
const PIN: &str = "SELECT pg_is_in_recovery(), \
     (SELECT system_identifier FROM pg_control_system()), \
     coalesce((SELECT received_tli FROM pg_stat_wal_receiver), \
       (SELECT greatest(c.timeline_id, m.min_recovery_end_timeline) \
        FROM pg_control_checkpoint() AS c, pg_control_recovery() AS m))";

impl Observer {
    pub(super) async fn replay(
        &self,
        region: &Region,
        lsn: &runbook::FenceLsn,
        until: Instant,
    ) -> Result<Lsn, ApiError> {
        let wanted: Lsn = lsn
            .lsn
            .parse()
            .map_err(|_| internal("unreadable fence LSN"))?;
        let timeline =
            Timeline::new(lsn.timeline).ok_or_else(|| internal("the fence LSN has no timeline"))?;
        let mut held = self.line(region)?.work().await?;
        caught_up(held.client(), wanted, timeline, until)
            .await
            .map_err(|error| {
                let code = match &error {
                    NotCaughtUp::Query(_) => Code::TargetUnreachable,
                    NotCaughtUp::Behind { .. } => Code::CandidateBehind,
                    NotCaughtUp::Promoted | NotCaughtUp::OtherTimeline { .. } => {
                        Code::IdentityMismatch
                    }
                };
                refused(code, format!("region {region}: {}", chain(&error)))
            })
    }

    pub(super) async fn pinned(&self, region: &Region) -> Result<Pinned, ApiError> {
        let mut held = self.line(region)?.work().await?;
        let row = held
            .client()
            .row(PIN)
            .await
            .map_err(|e| not_asked(region, &e))?;
        if flag(&row, 0) != Some(true) {
            let text = format!("region {region} is not in recovery: it was promoted already");
            return Err(refused(Code::IdentityMismatch, text));
        }
        let system = value::<i64>(&row, 1).map(i64::cast_unsigned);
        Ok(Pinned {
            region: region.to_string(),
            system_identifier: system.map(|id| id.to_string()),
            timeline: value(&row, 2),
        })
    }

    pub(super) async fn promoted(
        &self,
        pinned: &Pinned,
        until: Instant,
    ) -> Result<Observation, ApiError> {
        let region = Region::new(pinned.region.as_str());
        let line = self.line(&region)?;
        let unknown = |what: &str| {
            refused(
                Code::IdentityMismatch,
                format!("region {region} did not tell its {what}"),
            )
        };
        let system = pinned
            .system_identifier
            .as_deref()
            .and_then(|id| id.parse().ok());
        let timeline = pinned.timeline.and_then(Timeline::new);
        let wanted = driver::Pinned {
            system_identifier: system.ok_or_else(|| unknown("system identifier"))?,
            timeline: timeline.ok_or_else(|| unknown("timeline"))?,
        };
        let promotion = line.promote(wanted, until).await?;
        let (took, repeats) = (promotion.took, promotion.repeats);
        tracing::info!(region = %region, by_us = promotion.by_us, ?took, repeats, "promoted");
        Ok(promotion.observation)
    }

    pub(super) async fn checked(
        &self,
        region: &Region,
        wanted: Wanted,
        clear: Option<&Ticket>,
        seen: Option<Observation>,
    ) -> Result<CheckedTarget, ApiError> {
        let line = self.line(region)?;
        let target = self.target(region)?;
        let mut held = line.work().await?;
        let mut seen = match seen {
            Some(seen) => seen,
            None => probe(held.client())
                .await
                .map_err(|e| not_asked(region, &e))?,
        };
        if let Some(ticket) = clear
            && seen.role == Some(Role::Primary)
            && seen.default_read_only() == Some(true)
            && let Some(identity) = identity_of(&seen)
        {
            let token = self.token(ticket)?;
            ensure_writable_setting(held.client(), &token, identity, Claim::Own, LIFT)
                .await
                .map_err(|e| not_barred(region, &e))?;
            seen = probe(held.client())
                .await
                .map_err(|e| not_asked(region, &e))?;
        }
        let history = self.history(line, &seen).await;
        CheckedTarget::check(&target, &seen, history.as_ref(), wanted).map_err(|e| {
            refused(
                Code::IdentityMismatch,
                format!("region {region}: {}", chain(&e)),
            )
        })
    }

    async fn history(&self, line: &Line, seen: &Observation) -> Option<History> {
        let timeline = seen.timeline?;
        for _ in 0..2 {
            let mut held = line.hold(&line.history).await.ok()?;
            match History::read(held.client(), timeline).await {
                Ok(history) => {
                    // It takes one of the server's few walsenders: not kept for the next run.
                    held.close();
                    return Some(history);
                }
                // The connection may have died unseen; a second one tells.
                Err(_) if !held.client().is_usable() => {}
                Err(_) => return None,
            }
        }
        None
    }
}

fn identity_of(seen: &Observation) -> Option<Identity> {
    let (system_identifier, timeline) = (seen.system_identifier?, seen.timeline?);
    Some(Identity {
        system_identifier,
        timeline,
        fork_lsn: None,
    })
}
