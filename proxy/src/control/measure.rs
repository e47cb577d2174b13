//! What a run cost, as the data path saw it: taken down when the fence falls, compared at the end.
//!
//! Only what this process saw is told. After a restart in the middle of a run the counts of the
//! predecessor are gone, and what they would say is null rather than too small.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use writefence_admin::api::{EvidenceKind, Measured, RunKind, Timestamp};
use writefence_admin::runbook::RunFacts;

use super::desk::Desk;
use crate::clock;
use crate::gate::{Counts, Gap, Lane};
use crate::upstream::{Lsn, Region};

/// How long the first write behind an opening is waited for: held ones come at once, and a run is
/// not to look busy because nobody writes.
const FIRST_WRITE: Duration = Duration::from_millis(300);

/// Between two looks for it.
const LOOK: Duration = Duration::from_millis(5);

/// How far the fence as recorded may be from the fence as measured to be the same one.
const SAME_FENCE: Duration = Duration::from_millis(500);

/// The counts before a run's fence.
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    run: String,
    counts: Counts,
    refused: u64,
    moved: u64,
    ended: u64,
    /// When the primary last answered.
    last_seen: Option<Timestamp>,
}

/// Takes the counts down; called when a run's fence is about to fall. A fence that falls again in
/// the same run changes nothing.
pub(crate) fn before(desk: &Desk, run: &str, from: &Region) {
    let totals = &desk.group.sessions.totals;
    let mut kept = lock(desk);
    if kept.as_ref().is_some_and(|kept| kept.run == run) {
        return;
    }
    totals.longest_move_us.store(0, Ordering::Relaxed);
    let last_at = desk.servers.seen(from).and_then(|seen| seen.last_at);
    *kept = Some(Baseline {
        run: run.to_owned(),
        counts: desk.group.gate.counts(),
        refused: totals.fenced.load(Ordering::Relaxed),
        moved: totals.moved.load(Ordering::Relaxed),
        ended: totals.ended_unmovable.load(Ordering::Relaxed),
        last_seen: last_at.map(wall),
    });
}

/// What the run cost so far; null where this process did not see it whole.
pub(crate) async fn measured(desk: &Desk, facts: &RunFacts) -> Measured {
    let gap = first_write(desk).await;
    let base = lock(desk).clone().filter(|base| base.run == facts.run);
    let whole = gap.fenced.map(wall).zip(facts.fence).filter(|(at, fence)| {
        // The first fence of the run, seen by this process.
        at.since(fence.0) <= SAME_FENCE && fence.0.since(*at) <= SAME_FENCE
    });
    let first_write_after = gap.first_end.map(wall);
    let write_gap_ms = match (whole, facts.fence) {
        (Some(_), _) => gap.length().map(ms),
        // Fenced by a predecessor: from its record on.
        (None, Some((fenced, _))) => first_write_after.map(|first| ms(first.since(fenced))),
        (None, None) => None,
    };
    let settings = desk.settings.load();
    let totals = &desk.group.sessions.totals;
    let now = desk.group.gate.counts();
    let grown = |of: fn(&Counts) -> u64| {
        let base = base.as_ref().filter(|_| whole.is_some())?;
        Some(of(&now).saturating_sub(of(&base.counts)))
    };
    let since = |was: fn(&Baseline) -> u64, is: u64| {
        let base = base.as_ref().filter(|_| whole.is_some())?;
        Some(is.saturating_sub(was(base)))
    };
    let us = totals.longest_move_us.load(Ordering::Relaxed);
    Measured {
        write_gap_ms,
        last_write_before: whole.and(gap.last_end).map(wall),
        first_write_after,
        first_was_held: gap.first_end.map(|_| gap.first_was_held),
        read_gap_ms: whole.map(|_| us.div_ceil(1000)),
        held: grown(|c| sum(c, |lane| lane.held_total)),
        longest_hold_ms: whole.map(|_| ms(gap.longest_hold)),
        refused: since(|base| base.refused, totals.fenced.load(Ordering::Relaxed)),
        expired: grown(|c| sum(c, |lane| lane.held_expired)),
        unknown: Some(now.unknown),
        sessions_moved: since(|base| base.moved, totals.moved.load(Ordering::Relaxed)),
        sessions_ended: since(
            |base| base.ended,
            totals.ended_unmovable.load(Ordering::Relaxed),
        ),
        old_primary_last_seen: match facts.started.run_kind {
            RunKind::Failover => base.and_then(|base| base.last_seen),
            RunKind::Steps | RunKind::Switchover | RunKind::Drill => None,
        },
        lost_bytes: lost_bytes(desk, facts),
        rto_ms: settings.rto.map(ms),
        rpo_ms: settings.rpo.map(ms),
    }
}

fn sum(counts: &Counts, of: impl Fn(&crate::gate::LaneCounts) -> u64) -> u64 {
    Lane::ALL
        .into_iter()
        .map(|lane| of(counts.lane(lane)))
        .sum()
}

/// The gap, once somebody has written behind the opening or that was waited for.
async fn first_write(desk: &Desk) -> Gap {
    let until = clock::now() + FIRST_WRITE;
    loop {
        let gap = desk.group.gate.gap();
        let due = gap.opened.is_some() && (gap.first_end.is_none() || gap.awaits_held);
        if !due || desk.group.sessions.is_empty() || clock::now() >= until {
            return gap;
        }
        sleep(LOOK).await;
    }
}

/// Log that the new primary does not have: by the fence LSN where the old primary told it, by what
/// was last seen of it where not. That is the least then, unless a standby had to confirm each commit.
fn lost_bytes(desk: &Desk, facts: &RunFacts) -> Option<u64> {
    let Some(promoted) = &facts.promoted else {
        // Never left, or back: the same server goes on with the same log.
        let stayed = facts.started.from.as_deref() == Some(desk.accepted().as_str());
        return (stayed && !desk.actor.is_fenced()).then_some(0);
    };
    let sync = |c: &writefence_admin::api::Certificate| c.evidence.kind == EvidenceKind::Sync;
    if facts.certificate.as_ref().is_some_and(sync) {
        return Some(0);
    }
    let fork: Lsn = promoted.fork_lsn.as_ref()?.parse().ok()?;
    if let Some(fence) = &facts.fence_lsn {
        let fence: Lsn = fence.lsn.parse().ok()?;
        return Some(fence.bytes_since(fork));
    }
    let from = Region::new(facts.started.from.as_deref()?);
    let seen = desk.servers.seen(&from)?;
    let last: Lsn = seen.last.as_ref()?.lsn?;
    // It may have written on behind that look: that nothing is seen to be lost shows nothing.
    Some(last.bytes_since(fork)).filter(|lost| *lost > 0)
}

fn lock(desk: &Desk) -> std::sync::MutexGuard<'_, Option<Baseline>> {
    // Replaced whole; a panic elsewhere leaves it usable.
    desk.baseline
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A moment of the monotonic clock as wall-clock time, as that stands now.
pub(crate) fn wall(at: Instant) -> Timestamp {
    let now = Timestamp::now();
    let ago = clock::now().saturating_duration_since(at);
    Timestamp::new(now.as_system_time() - ago)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
