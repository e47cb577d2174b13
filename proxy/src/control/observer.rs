//! PostgreSQL servers behind the seam: the observer's lines, the barrier, the driver.
//!
//! Translates between what a run wants and what `evidence` and `driver` do, and turns their errors
//! into the operator's words. It decides nothing and retries nothing but a dead connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use writefence_admin::api::{ApiError, Code};
use writefence_admin::runbook::{self, Pinned};

use super::error::{chain, internal, refused};
use super::line::{Line, OBSERVER, ObserverLogin};
use super::servers::{Older, Own, Seen, Servers, StillBarred, Ticket, Under, Work};
use crate::clock;
use crate::driver::{self, Means};
use crate::evidence::{
    self, BackendFate, BarrierError, Claim, Confirmed, FenceLsnError, Life, NextXid, NotCaughtUp,
    Suspect, Token, WriteFate, backend_fates, caught_up, clear_standby, ensure_writable_setting,
    fence_lsn, lift, raise, running_xids, stands, write_fates,
};
use crate::shutdown::Shutdown;
use crate::upstream::wire::rows::{flag, value};
use crate::upstream::wire::{QueryError, Row};
use crate::upstream::{
    CheckedTarget, History, Identity, Lsn, Need, Observation, PREPARED, Prepared, Region, Role,
    ServerTime, Survey, Target, Targets, Timeline, Wanted, probe, read_prepared, survey,
};

/// The shortest time between two probes of a region, whoever asks.
const PROBE_AT_MOST: Duration = Duration::from_secs(1);

/// How long a lift may take: it ends nobody's session.
const LIFT: Duration = Duration::from_secs(3);

/// How long a synchronous standby may take to confirm the fence record.
const CONFIRM: Duration = Duration::from_secs(1);

/// What a candidate is pinned by, in one question: it is asked within the write gap. Without a
/// walreceiver, as after the death of the primary, the control file tells the timeline.
const PIN: &str = "SELECT pg_is_in_recovery(), \
     (SELECT system_identifier FROM pg_control_system()), \
     coalesce((SELECT received_tli FROM pg_stat_wal_receiver), \
       (SELECT greatest(c.timeline_id, m.min_recovery_end_timeline) \
        FROM pg_control_checkpoint() AS c, pg_control_recovery() AS m))";

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

/// What has to be remembered of a barrier to ask later whether it still stands.
#[derive(Clone, Debug)]
struct Kept {
    run: String,
    since: ServerTime,
    next_xid: Option<NextXid>,
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

    async fn raised(
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

    async fn still_barred(
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

    fn barriers(&self) -> MutexGuard<'_, HashMap<Region, Kept>> {
        self.barriers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn checked(
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

    /// The server's clock so long ago.
    async fn server_time(&self, line: &Line, ago: Duration) -> Result<ServerTime, ApiError> {
        let mut held = line.work().await?;
        let row = held
            .client()
            .row("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8")
            .await
            .map_err(|e| not_asked(&line.region, &e))?;
        let now: i64 = value(&row, 0)
            .ok_or_else(|| refused(Code::TargetUnreachable, "the server does not tell its time"))?;
        let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        Ok(ServerTime::from_micros(now.saturating_sub(ago)))
    }
}

/// Probes a region until the end, every `interval`, and after a second at the earliest when
/// `suspected` says that a server surprised a session.
pub(crate) async fn watch(
    line: Arc<Line>,
    interval: impl Fn() -> Duration,
    suspected: impl Fn() -> u64,
    mut stop: Shutdown,
) {
    let mut before = suspected();
    while !stop.is_stopping() {
        look(&line).await;
        let looked = clock::now();
        loop {
            // Every arm may be dropped: a sleep, a look at a flag, and a word that stays said.
            tokio::select! {
                () = tokio::time::sleep(PROBE_AT_MOST.min(interval())) => {}
                () = line.look_now.notified() => break,
                () = stop.stopping() => return,
            }
            if suspected() != before || looked.elapsed() >= interval() {
                before = suspected();
                break;
            }
        }
    }
}

/// Probes a region and keeps what was seen.
async fn look(line: &Line) {
    let (mut at, mut answer) = probed(line).await;
    // One try more: a connection that the server ended since is no sign of a dead server.
    if answer.is_err() {
        (at, answer) = probed(line).await;
    }
    let before = line.seen.load();
    let kept = before
        .as_ref()
        .map(|seen| (seen.last.clone(), seen.last_at))
        .unwrap_or_default();
    let known = before.as_ref().and_then(|seen| seen.last.as_ref());
    match &answer {
        Ok(seen) if known.is_none_or(|last| is_same(last, seen)) => line.trust(),
        // Another server: sessions stay where they are, and the identity's guard sees it.
        Ok(_) => {}
        Err(_) => line.doubt(),
    }
    let (last, last_at) = match &answer {
        Ok(seen) => (Some(seen.clone()), Some(at)),
        Err(_) => kept,
    };
    line.seen.store(Some(Arc::new(Seen {
        answer,
        last,
        last_at,
        at,
    })));
}

/// What a region says, and when it was asked: what has happened since may be missing in the answer.
async fn probed(line: &Line) -> (Instant, Result<Observation, String>) {
    let at = clock::now();
    let answer = match line.hold(&line.probe).await {
        Err(error) => Err(chain(&error)),
        Ok(mut held) => probe(held.client()).await.map_err(|e| chain(&e)),
    };
    (at, answer)
}

impl Line {
    /// Asks for the name again and follows it, if the server that is known answers there.
    async fn renew(&self) -> Result<(), ApiError> {
        let known = self.seen.load_full().and_then(|seen| seen.last.clone());
        let mut client = self.anew().await?;
        let seen = probe(&mut client)
            .await
            .map_err(|e| not_asked(&self.region, &e))?;
        if known.is_none_or(|known| is_same(&known, &seen)) {
            self.follow(client.endpoint());
            return Ok(());
        }
        let text = format!(
            "the name of {} leads to another server now; sessions stay where they are",
            self.region
        );
        Err(refused(Code::IdentityMismatch, text)
            .hint("`writefencectl switchover` or `failover` moves them"))
    }
}

/// The same server by what it says of itself. A primary on another timeline is another primary; a
/// standby follows whatever was promoted, and takes no writes.
fn is_same(before: &Observation, now: &Observation) -> bool {
    let standby = now.role == Some(Role::Standby);
    before.system_identifier == now.system_identifier
        && (standby || before.timeline == now.timeline)
}

impl Servers for Observer {
    fn seen(&self, region: &Region) -> Option<Arc<Seen>> {
        self.lines
            .iter()
            .find(|line| line.region == *region)?
            .seen
            .load_full()
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
        Box::pin(async move {
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
        })
    }

    fn fence_lsn<'a>(
        &'a self,
        region: &'a Region,
        ticket: &'a Ticket,
        until: Instant,
    ) -> Work<'a, runbook::FenceLsn> {
        Box::pin(async move {
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
        })
    }

    fn replayed<'a>(
        &'a self,
        region: &'a Region,
        lsn: &'a runbook::FenceLsn,
        until: Instant,
    ) -> Work<'a, Lsn> {
        Box::pin(async move {
            let wanted: Lsn = lsn
                .lsn
                .parse()
                .map_err(|_| internal("unreadable fence LSN"))?;
            let timeline = Timeline::new(lsn.timeline)
                .ok_or_else(|| internal("the fence LSN has no timeline"))?;
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
        })
    }

    fn pin<'a>(&'a self, region: &'a Region) -> Work<'a, Pinned> {
        Box::pin(async move {
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
        })
    }

    fn promote<'a>(&'a self, pinned: &'a Pinned, until: Instant) -> Work<'a, Observation> {
        Box::pin(async move {
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
        })
    }

    fn older<'a>(&'a self, region: &'a Region, which: Older, age: Duration) -> Work<'a, Vec<i32>> {
        Box::pin(async move {
            let line = self.line(region)?;
            let before = self.server_time(line, age).await?;
            let mut held = line.work().await?;
            let asked = match which {
                Older::Listed(pids) => evidence::still_alive(held.client(), &pids, before).await,
                Older::Any => running_clients(held.client(), before).await,
            };
            asked.map_err(|e| not_asked(region, &e))
        })
    }

    fn alive<'a>(&'a self, region: &'a Region, lost: Vec<(i32, Duration)>) -> Work<'a, Vec<i32>> {
        Box::pin(async move {
            let line = self.line(region)?;
            let now = self.server_time(line, Duration::ZERO).await?;
            let suspects: Vec<Suspect> = lost
                .iter()
                .map(|(pid, age)| Suspect {
                    pid: *pid,
                    seen_at: Some(before(now, *age)),
                })
                .collect();
            let mut held = line.work().await?;
            let fates = backend_fates(held.client(), &suspects).await;
            let fates = fates.map_err(|e| not_asked(region, &e))?;
            let there = lost
                .iter()
                .zip(fates)
                .filter(|(_, fate)| *fate != BackendFate::Gone);
            Ok(there.map(|((pid, _), _)| *pid).collect())
        })
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
        Box::pin(async move {
            let mut held = self.line(region)?.work().await?;
            let next = match under {
                Under::Successor(next) => next,
                Under::SameLife(life) => {
                    let now = Life::read(held.client()).await;
                    match now.map_err(|e| not_asked(region, &e))? {
                        Some((now, next)) if now == life => next,
                        Some(_) => return Ok(vec![WriteFate::Unresolvable; xids.len()]),
                        None => {
                            let text = format!("region {region} cannot tell: it is no primary");
                            return Err(refused(Code::Precondition, text));
                        }
                    }
                }
            };
            // The same connection as above, so the same life.
            let fates = write_fates(held.client(), next, &xids).await;
            fates.map_err(|e| not_asked(region, &e))
        })
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

/// Client sessions older than `before` that run something or are within a transaction. An idle one
/// cannot begin anything: its client's machine is the one that went down.
async fn running_clients(
    client: &mut crate::upstream::wire::Client,
    before: ServerTime,
) -> Result<Vec<i32>, QueryError> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
         AND coalesce(backend_type, 'client backend') = 'client backend' \
         AND coalesce(state, 'unknown') <> 'idle' \
         AND coalesce((extract(epoch FROM backend_start) * 1000000)::int8 < {}, true)",
        before.micros()
    );
    let rows = client.query(&sql).await?;
    Ok(rows.iter().filter_map(|row| value(row, 0)).collect())
}

fn before(now: ServerTime, age: Duration) -> ServerTime {
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    ServerTime::from_micros(now.micros().saturating_sub(age))
}

fn backends(own: &Own) -> Vec<evidence::OwnBackend> {
    let own = own();
    own.into_iter()
        .map(|b| evidence::OwnBackend {
            pid: b.pid,
            walled: b.walled,
        })
        .collect()
}

fn identity_of(seen: &Observation) -> Option<Identity> {
    let (system_identifier, timeline) = (seen.system_identifier?, seen.timeline?);
    Some(Identity {
        system_identifier,
        timeline,
        fork_lsn: None,
    })
}

fn known(ticket: &Ticket) -> Result<Identity, ApiError> {
    ticket.identity.ok_or_else(|| {
        refused(
            Code::IdentityMismatch,
            "the identity of the primary in force is not known",
        )
    })
}

fn not_asked(region: &Region, error: &QueryError) -> ApiError {
    let code = match error.server() {
        Some(_) => Code::Precondition,
        None => Code::TargetUnreachable,
    };
    refused(code, format!("region {region}: {}", chain(error)))
}

fn not_barred(region: &Region, error: &BarrierError) -> ApiError {
    let text = format!("region {region}: {}", chain(error));
    match error {
        BarrierError::Query(query) => not_asked(region, query),
        BarrierError::OtherServer(_) => refused(Code::IdentityMismatch, text),
        BarrierError::Foreign(_) => refused(Code::ForeignWriters, text)
            .hint("end them there, or give the observer the right to, and repeat"),
        BarrierError::NotInForce { .. } => refused(Code::EvidenceMissing, text),
        BarrierError::Privilege { .. }
        | BarrierError::Held(_)
        | BarrierError::Busy { .. }
        | BarrierError::NotOurs { .. }
        | BarrierError::NotReloaded { .. }
        | BarrierError::Written { .. } => refused(Code::Precondition, text),
    }
}
