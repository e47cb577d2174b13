//! PostgreSQL servers behind the seam: the observer's lines, the barrier, the driver.
//!
//! Translates between what a run wants and what `evidence` and `driver` do, and turns their errors
//! into the operator's words. It decides nothing and retries nothing but a dead connection.
//! `watch` probes, `barrier` shuts, `candidate` promotes, `outcomes` looks up, `words` translates.

mod barrier;
mod candidate;
mod outcomes;
mod watch;
mod words;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use writefence_admin::api::{ApiError, Code};
use writefence_admin::runbook;
use writefence_admin::runbook::Pinned;

use super::error::{internal, refused};
use super::line::{Line, OBSERVER, ObserverLogin};
use super::servers::{Older, Own, Seen, Servers, StillBarred, Ticket, Under, Work};
use crate::driver::Means;
use crate::evidence::{Claim, Token, WriteFate, clear_standby, running_xids};
use crate::upstream::wire::Row;
use crate::upstream::wire::rows::value;
use crate::upstream::{
    CheckedTarget, Lsn, Need, Observation, PREPARED, Prepared, Region, Survey, Target, Targets,
    Wanted, probe, read_prepared, survey,
};
use barrier::{Kept, LIFT};
use words::{known, not_asked, not_barred};

pub(crate) use watch::watch;

/// Needs a superuser's rights.
const VERIFIERS: &str = "SELECT rolname, rolpassword FROM pg_authid \
     WHERE rolcanlogin AND rolpassword LIKE 'SCRAM-SHA-256$%'";

/// See the module.
pub(crate) struct Observer {
    /// Where epochs are comparable: this state directory, with the group.
    scope: String,
    lines: Vec<Arc<Line>>,
    targets: Arc<Targets>,
    /// The barriers that were put up, by region.
    barriers: Mutex<HashMap<Region, Kept>>,
}

impl Observer {
    /// Lines to all regions of the group, each with its own login.
    pub(crate) fn new(
        scope: String,
        targets: Arc<Targets>,
        login: impl Fn(&Target) -> ObserverLogin,
        means: impl Fn(&Target) -> Means,
    ) -> Self {
        let line = |target: &Arc<Target>| {
            Arc::new(Line::new(
                target.region.clone(),
                target.endpoint.clone(),
                login(target),
                means(target),
            ))
        };
        let lines = targets.regions().iter().map(line).collect();
        Self {
            scope,
            lines,
            targets,
            barriers: Mutex::default(),
        }
    }

    /// The regions, each to be watched by a task of its own: a server that is silent must not
    /// delay what is known of the others.
    pub(crate) fn lines(&self) -> &[Arc<Line>] {
        &self.lines
    }

    fn line(&self, region: &Region) -> Result<&Arc<Line>, ApiError> {
        let found = self.lines.iter().find(|line| line.region == *region);
        found.ok_or_else(|| internal(format!("no line to region {region}")))
    }

    fn target(&self, region: &Region) -> Result<Arc<Target>, ApiError> {
        self.targets
            .region(region)
            .map_err(|e| refused(Code::WrongRegion, e.to_string()))
    }

    fn token(&self, ticket: &Ticket) -> Result<Token, ApiError> {
        Token::new(&self.scope, &ticket.run, ticket.epoch).map_err(|e| internal(e.to_string()))
    }
}

impl Servers for Observer {
    fn seen(&self, region: &Region) -> Option<Arc<Seen>> {
        self.lines
            .iter()
            .find(|line| line.region == *region)?
            .shown()
    }

    fn observe<'a>(&'a self, region: &'a Region) -> Work<'a, Observation> {
        Box::pin(async move {
            let mut held = self.line(region)?.work().await?;
            probe(held.client())
                .await
                .map_err(|e| not_asked(region, &e))
        })
    }

    fn survey<'a>(&'a self, region: &'a Region, needs: &'a [Need]) -> Work<'a, Survey> {
        Box::pin(async move {
            let mut held = self.line(region)?.work().await?;
            survey(held.client(), needs)
                .await
                .map_err(|e| not_asked(region, &e))
        })
    }

    fn ask<'a>(&'a self, region: &'a Region, sql: &'a str) -> Work<'a, Option<String>> {
        Box::pin(async move {
            let mut held = self.line(region)?.work().await?;
            let client = held.client();
            let failed = |e| not_asked(region, &e);
            client.query("BEGIN READ ONLY").await.map_err(failed)?;
            let rows = client.query(sql).await;
            // Also behind an error, and whatever the text may have done to the transaction.
            client.query("ROLLBACK").await.map_err(failed)?;
            let first = rows.map_err(failed)?.into_iter().next();
            Ok(first.and_then(|row| row.into_iter().next().flatten()))
        })
    }

    fn observers(&self) -> Option<String> {
        self.lines.first().map(|line| line.name())
    }

    fn warm<'a>(&'a self, regions: &'a [Region]) -> Work<'a, ()> {
        Box::pin(async move {
            let accepted = self.targets.accepted().region.clone();
            for region in regions {
                let line = self.line(region)?;
                drop(line.work().await?);
                // Without the REPLICATION attribute there is no history; the check says so later.
                drop(line.hold(&line.history).await);
                if *region != accepted {
                    line.warm_driver().await?;
                }
            }
            Ok(())
        })
    }

    fn clear<'a>(&'a self, candidate: &'a Region, ticket: &'a Ticket) -> Work<'a, ()> {
        Box::pin(async move {
            let (line, token) = (self.line(candidate)?, self.token(ticket)?);
            let cluster = known(ticket)?.system_identifier;
            let mut held = line.work().await?;
            clear_standby(held.client(), &token, cluster, Claim::Own, LIFT)
                .await
                .map_err(|e| not_barred(candidate, &e))?;
            Ok(())
        })
    }

    fn check<'a>(
        &'a self,
        region: &'a Region,
        wanted: Wanted,
        lift: Option<&'a Ticket>,
        seen: Option<Observation>,
    ) -> Work<'a, CheckedTarget> {
        Box::pin(self.checked(region, wanted, lift, seen))
    }

    fn bar<'a>(
        &'a self,
        region: &'a Region,
        ticket: &'a Ticket,
        own: Own,
        until: Instant,
    ) -> Work<'a, String> {
        Box::pin(self.raised(region, ticket, own, until))
    }

    fn barred<'a>(
        &'a self,
        region: &'a Region,
        ticket: &'a Ticket,
        own: Own,
    ) -> Work<'a, StillBarred> {
        Box::pin(self.still_barred(region, ticket, own))
    }

    fn unbar<'a>(&'a self, region: &'a Region, ticket: &'a Ticket) -> Work<'a, ()> {
        Box::pin(self.lifted(region, ticket))
    }

    fn fence_lsn<'a>(
        &'a self,
        region: &'a Region,
        ticket: &'a Ticket,
        until: Instant,
    ) -> Work<'a, runbook::FenceLsn> {
        Box::pin(self.fenced_at(region, ticket, until))
    }

    fn replayed<'a>(
        &'a self,
        region: &'a Region,
        lsn: &'a runbook::FenceLsn,
        until: Instant,
    ) -> Work<'a, Lsn> {
        Box::pin(self.replay(region, lsn, until))
    }

    fn pin<'a>(&'a self, region: &'a Region) -> Work<'a, Pinned> {
        Box::pin(self.pinned(region))
    }

    fn promote<'a>(&'a self, pinned: &'a Pinned, until: Instant) -> Work<'a, Observation> {
        Box::pin(self.promoted(pinned, until))
    }

    fn older<'a>(&'a self, region: &'a Region, which: Older, age: Duration) -> Work<'a, Vec<i32>> {
        Box::pin(self.running(region, which, age))
    }

    fn alive<'a>(&'a self, region: &'a Region, lost: Vec<(i32, Duration)>) -> Work<'a, Vec<i32>> {
        Box::pin(self.suspects(region, lost))
    }

    // On the line of the probes: a run's work must not wait for it.
    fn running_xids<'a>(&'a self, region: &'a Region) -> Work<'a, Vec<(i32, u64)>> {
        Box::pin(async move {
            let line = self.line(region)?;
            let held = line.hold(&line.probe).await;
            let mut held = held.map_err(|e| line.unreachable(&e))?;
            let running = running_xids(held.client()).await;
            running.map_err(|e| not_asked(region, &e))
        })
    }

    fn fates<'a>(
        &'a self,
        region: &'a Region,
        under: Under,
        xids: Vec<u64>,
    ) -> Work<'a, Vec<WriteFate>> {
        Box::pin(self.looked_up(region, under, xids))
    }

    fn verifiers<'a>(&'a self, region: &'a Region) -> Work<'a, Vec<(String, String)>> {
        Box::pin(async move {
            let mut held = self.line(region)?.work().await?;
            let rows = held.client().query(VERIFIERS).await;
            let rows = rows.map_err(|e| not_asked(region, &e))?;
            let pair = |row: Row| <[_; 2]>::try_from(row).ok();
            let pairs = rows.into_iter().filter_map(pair);
            Ok(pairs
                .filter_map(|[name, secret]| name.zip(secret))
                .collect())
        })
    }

    fn prepared<'a>(&'a self, region: &'a Region) -> Work<'a, Vec<Prepared>> {
        Box::pin(async move {
            let mut held = self.line(region)?.work().await?;
            let rows = held.client().query(PREPARED).await;
            let rows = rows.map_err(|e| not_asked(region, &e))?;
            let read: Option<Vec<_>> = rows.iter().map(read_prepared).collect();
            read.ok_or_else(|| internal("unreadable list of prepared transactions"))
        })
    }

    fn canary<'a>(&'a self, region: &'a Region, run: &'a str) -> Work<'a, Lsn> {
        Box::pin(async move {
            let mut held = self.line(region)?.work().await?;
            let text = run.replace('\'', "");
            let sql = format!(
                "BEGIN READ WRITE; \
                 SELECT pg_logical_emit_message(true, 'writefence', 'canary {text}'); COMMIT"
            );
            held.client()
                .query(&sql)
                .await
                .map_err(|e| not_asked(region, &e))?;
            let row = held.client().row("SELECT pg_current_wal_flush_lsn()").await;
            let row = row.map_err(|e| not_asked(region, &e))?;
            value(&row, 0).ok_or_else(|| refused(Code::Precondition, "no position was told"))
        })
    }

    /// Exactly one standby confirmed the old primary's commits, it was the only one, and so it is the
    /// candidate. With more of them it cannot be told from here which one a commit waited for.
    fn synchronous(&self, old: &Region, to: &Region) -> Result<String, String> {
        let seen = self
            .seen(old)
            .ok_or_else(|| format!("{old} was never probed"))?;
        let last = seen
            .last
            .as_ref()
            .ok_or_else(|| format!("{old} never answered a probe"))?;
        let unseen = || format!("{old} did not show its standbys (pg_monitor is needed)");
        let replicas = last.replicas.as_ref().ok_or_else(unseen)?;
        // A timeline history is read over a connection of the observer that shows here too.
        let standbys: Vec<_> = replicas
            .iter()
            .filter(|r| !is_observer(r.application_name.as_deref()))
            .collect();
        let [only] = standbys.as_slice() else {
            return Err(format!(
                "{old} was last seen with {} standbys",
                standbys.len()
            ));
        };
        let name = only.application_name.as_deref().unwrap_or("without a name");
        let state = only.sync_state.as_deref().unwrap_or("unknown");
        if !matches!(state, "sync" | "quorum") {
            return Err(format!(
                "the standby {name} of {old} was last seen as {state}"
            ));
        }
        if self.lines.iter().filter(|line| line.region != *old).count() != 1 {
            return Err(format!("it cannot be told that the standby {name} is {to}"));
        }
        Ok(format!(
            "{old} was last seen with one standby, {name}, which was synchronous and is {to}; a \
             commit there is not answered without it"
        ))
    }

    fn renew<'a>(&'a self, region: &'a Region) -> Work<'a, ()> {
        Box::pin(async move { self.line(region)?.renew().await })
    }

    fn refresh(&self) {
        for line in &self.lines {
            line.look_now.notify_one();
        }
    }
}

/// Whether a connection is of a writefence's observer, ours or another's.
fn is_observer(name: Option<&str>) -> bool {
    name.is_some_and(|name| name.starts_with(OBSERVER))
}
