//! Shutting the old primary, asking whether it is still shut, its last position, and opening it again.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use writefence_admin::api::{ApiError, Code};
use writefence_admin::runbook;

use super::super::error::{chain, refused};
use super::super::servers::{Own, StillBarred, Ticket};
use super::Observer;
use super::words::{known, not_barred};
use crate::clock;
use crate::evidence;
use crate::evidence::{
    BarrierError, Claim, Confirmed, FenceLsnError, NextXid, fence_lsn, lift, raise, stands,
};
use crate::upstream::{Region, ServerTime};

/// How long a lift may take: it ends nobody's session.
pub(super) const LIFT: Duration = Duration::from_secs(3);

/// How long a synchronous standby may take to confirm the fence record.
const CONFIRM: Duration = Duration::from_secs(1);

/// What has to be remembered of a barrier to ask later whether it still stands.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) run: String,
    pub(super) since: ServerTime,
    pub(super) next_xid: Option<NextXid>,
}

impl Observer {
    pub(super) async fn raised(
        &self,
        region: &Region,
        ticket: &Ticket,
        own: Own,
        until: Instant,
    ) -> Result<String, ApiError> {
        let line = self.line(region)?;
        let token = self.token(ticket)?;
        let identity = known(ticket)?;
        let mut held = line.work().await?;
        let observers = line.others();
        let bound = until.saturating_duration_since(clock::now());
        let claim = Claim::Own;
        let plan = evidence::Plan {
            token: &token,
            identity,
            claim,
            observers: &observers,
            bound,
        };
        let closed = raise(held.client(), &plan, &move || backends(&own))
            .await
            .map_err(|e| not_barred(region, &e))?;
        let kept = Kept {
            run: ticket.run.clone(),
            since: closed.since,
            next_xid: None,
        };
        self.barriers().insert(region.clone(), kept);
        let mut text = format!(
            "{region} is read-only by default and {} foreign sessions were ended",
            closed.ended.len()
        );
        if !closed.prepared.is_empty() {
            text.push_str(&format!(
                "; {} prepared transactions stay",
                closed.prepared.len()
            ));
        }
        if !closed.overrides.is_empty() {
            text.push_str(&format!(
                "; settings above it: {}",
                closed.overrides.join(", ")
            ));
        }
        Ok(text)
    }

    pub(super) async fn still_barred(
        &self,
        region: &Region,
        ticket: &Ticket,
        own: Own,
    ) -> Result<StillBarred, ApiError> {
        let missing = |what: &str| {
            refused(
                Code::EvidenceMissing,
                format!("no {what} of this run stands in {region}"),
            )
        };
        let kept = self
            .barriers()
            .get(region)
            .filter(|kept| kept.run == ticket.run)
            .cloned();
        let kept = kept.ok_or_else(|| missing("barrier"))?;
        let next_xid = kept.next_xid.ok_or_else(|| missing("fence LSN"))?;
        let (line, token) = (self.line(region)?, self.token(ticket)?);
        let identity = known(ticket)?;
        let mut held = line.work().await?;
        let observers = line.others();
        let (claim, bound) = (Claim::Own, LIFT);
        let plan = evidence::Plan {
            token: &token,
            identity,
            claim,
            observers: &observers,
            bound,
        };
        let own = move || backends(&own);
        match stands(held.client(), &plan, kept.since, next_xid, &own).await {
            Ok(()) => Ok(StillBarred::Stands),
            Err(error @ BarrierError::Written { .. }) => Ok(StillBarred::Written(chain(&error))),
            Err(error) => Err(not_barred(region, &error)),
        }
    }

    pub(super) async fn lifted(&self, region: &Region, ticket: &Ticket) -> Result<(), ApiError> {
        for line in &self.lines {
            line.cool_driver().await;
        }
        let (line, token) = (self.line(region)?, self.token(ticket)?);
        let identity = known(ticket)?;
        let mut held = line.work().await?;
        lift(held.client(), &token, identity, Claim::Own, LIFT)
            .await
            .map_err(|e| not_barred(region, &e))?;
        self.barriers().remove(region);
        Ok(())
    }

    pub(super) async fn fenced_at(
        &self,
        region: &Region,
        ticket: &Ticket,
        until: Instant,
    ) -> Result<runbook::FenceLsn, ApiError> {
        let (line, token) = (self.line(region)?, self.token(ticket)?);
        let identity = known(ticket)?;
        let mut held = line.work().await?;
        let bound = until.saturating_duration_since(clock::now()).min(CONFIRM);
        let bound = bound.max(Duration::from_millis(1));
        let taken = fence_lsn(held.client(), &token, bound)
            .await
            .map_err(|error| {
                let code = match &error {
                    FenceLsnError::Query(_) => Code::TargetUnreachable,
                    FenceLsnError::NotFlushed { .. } => Code::EvidenceMissing,
                };
                refused(code, format!("region {region}: {}", chain(&error)))
            })?;
        if taken.confirmed == Confirmed::SyncStandbySilent {
            tracing::warn!(region = %region, "no synchronous standby confirmed the fence record");
        }
        if let Some(kept) = self
            .barriers()
            .get_mut(region)
            .filter(|k| k.run == ticket.run)
        {
            kept.next_xid = Some(taken.next_xid);
        }
        Ok(runbook::FenceLsn {
            lsn: taken.lsn.to_string(),
            system_identifier: identity.system_identifier.to_string(),
            timeline: identity.timeline.value(),
        })
    }

    fn barriers(&self) -> MutexGuard<'_, HashMap<Region, Kept>> {
        self.barriers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn backends(own: &Own) -> Vec<evidence::OwnBackend> {
    let own = own();
    own.into_iter()
        .map(|b| evidence::OwnBackend {
            pid: b.pid,
            login: b.login,
            walled: b.walled,
        })
        .collect()
}
