//! What became of a write whose answer never came.
//!
//! First its backend is shown to be gone, so nothing of it runs any more. What came of it is then
//! asked of a commit log. The server's own will do for as long as it has not crashed: ids that had
//! not reached its disk are given out again afterwards. After a promotion it is the new primary's,
//! together with the next transaction id as it was before anything wrote there: an id that never
//! arrived may have been given out again, and "committed" would be somebody else's.

use crate::upstream::ServerTime;
use crate::upstream::wire::rows::{flag, text, value};
use crate::upstream::wire::{Client, QueryError};

/// A backend that was ours when the connection to it was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Its process id.
    pub pid: i32,
    /// A time of the server's clock at which it was ours for certain; `None` when there is none,
    /// and then any backend of that id counts as the one.
    pub seen_at: Option<ServerTime>,
}

/// What pg_stat_activity shows of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendFate {
    /// It has ended, and with it what it was doing.
    Gone,
    /// It is there.
    Alive,
    /// The role may not see enough to tell.
    Unknown,
}

/// Looks for backends, in the order given.
///
/// # Errors
/// See [`QueryError`].
pub async fn backend_fates(
    client: &mut Client,
    suspects: &[Suspect],
) -> Result<Vec<BackendFate>, QueryError> {
    let sql = format!(
        "SELECT s.pid, (extract(epoch FROM s.backend_start) * 1000000)::int8, \
           pg_has_role('pg_read_all_stats', 'USAGE') \
         FROM (SELECT 1) AS one LEFT JOIN pg_stat_activity AS s ON s.pid = ANY ('{}'::int4[])",
        list(suspects.iter().map(|suspect| suspect.pid))
    );
    let rows = client.query(&sql).await?;
    let privileged = rows.first().and_then(|row| flag(row, 2)) == Some(true);
    let started = |pid: i32| {
        rows.iter()
            .find(|row| value(row, 0) == Some(pid))
            .map(|row| value(row, 1))
    };
    Ok(suspects
        .iter()
        .map(|suspect| fate(*suspect, started(suspect.pid), privileged))
        .collect())
}

/// `found`: no row, a row without a visible start, or a row with its start in microseconds.
pub(super) fn fate(suspect: Suspect, found: Option<Option<i64>>, privileged: bool) -> BackendFate {
    match (found, suspect.seen_at) {
        _ if !privileged => BackendFate::Unknown,
        (None, _) => BackendFate::Gone,
        (Some(None), _) => BackendFate::Unknown,
        (Some(Some(started)), Some(seen)) if started > seen.micros() => BackendFate::Gone,
        (Some(Some(_)), _) => BackendFate::Alive,
    }
}

/// The first transaction id a new primary has not given out, read before anything wrote there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NextXid(u64);

impl NextXid {
    /// Reads it. To be called after the promotion and before the gate opens.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn read(client: &mut Client) -> Result<Self, QueryError> {
        let row = client
            .row("SELECT pg_snapshot_xmax(pg_current_snapshot())")
            .await?;
        value(&row, 0)
            .map(Self)
            .ok_or_else(|| client.answer_error("next transaction id"))
    }

    /// From the plain number, as kept in a journal.
    pub const fn new(next: u64) -> Self {
        Self(next)
    }

    /// The plain number: 64 bits, with the wraparounds in the upper half.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The full id of a 32-bit one as pg_stat_activity shows it: the nearest, at most half the
    /// circle away. `None` for ids that are never given out.
    pub fn widen(self, xid: u32) -> Option<u64> {
        const FIRST_NORMAL: u32 = 3;
        if xid < FIRST_NORMAL {
            return None;
        }
        let circle = 1_u64 << 32;
        let near = (self.0 & !(circle - 1)) | u64::from(xid);
        [
            near.checked_sub(circle),
            Some(near),
            near.checked_add(circle),
        ]
        .into_iter()
        .flatten()
        .min_by_key(|full| full.abs_diff(self.0))
    }
}

/// Transaction ids that client backends have at this moment, with their process ids.
///
/// # Errors
/// See [`QueryError`].
pub async fn running_xids(client: &mut Client) -> Result<Vec<(i32, u64)>, QueryError> {
    let sql = "SELECT pid, backend_xid, pg_snapshot_xmax(pg_current_snapshot()) \
               FROM pg_stat_activity WHERE backend_xid IS NOT NULL";
    let rows = client.query(sql).await?;
    let running = rows.iter().filter_map(|row| {
        let next = value(row, 2).map(NextXid)?;
        Some((value(row, 0)?, next.widen(value(row, 1)?)?))
    });
    Ok(running.collect())
}

/// The life of a primary between two crashes, in which a transaction id is given out only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Its timeline.
    pub timeline: u32,
    /// Since when it has been running without a crash: the start of its checkpointer, which every
    /// crash ends, also one that the server itself survives.
    pub since: i64,
}

impl Life {
    /// Reads it together with the next id; `None` in recovery, or without the right to see it.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn read(client: &mut Client) -> Result<Option<(Self, NextXid)>, QueryError> {
        let sql = "SELECT CASE WHEN NOT pg_is_in_recovery() THEN \
               ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int8 \
             END, \
             (SELECT (extract(epoch FROM backend_start) * 1000000)::int8 \
              FROM pg_stat_activity WHERE backend_type = 'checkpointer'), \
             pg_snapshot_xmax(pg_current_snapshot())";
        let row = client.row(sql).await?;
        let life = value(&row, 0).zip(value(&row, 1));
        let life = life.map(|(timeline, since)| Self { timeline, since });
        Ok(life.zip(value(&row, 2).map(NextXid)))
    }
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFate {
    /// It is there.
    Committed,
    /// It is not there: its commit did not arrive, or it was rolled back.
    Lost,
    /// It was prepared and awaits COMMIT PREPARED or ROLLBACK PREPARED.
    Undecided,
    /// It can no longer be told.
    Unresolvable,
}

/// Settles transactions by their full ids, in the order given. `next` was recorded right after
/// the promotion, so what is below it was given out by the old primary and never will be again;
/// the answer stays true for as long as the commit log reaches back.
///
/// # Errors
/// See [`QueryError`].
pub async fn write_fates(
    client: &mut Client,
    next: NextXid,
    xids: &[u64],
) -> Result<Vec<WriteFate>, QueryError> {
    let asked: Vec<_> = xids
        .iter()
        .copied()
        .filter(|xid| *xid < next.value())
        .collect();
    let sql = format!(
        "SELECT x, pg_xact_status(x::text::xid8) FROM unnest('{}'::int8[]) AS x",
        list(asked.iter())
    );
    let rows = if asked.is_empty() {
        Vec::new()
    } else {
        client.query(&sql).await?
    };
    let status = |xid: u64| {
        let row = rows.iter().find(|row| value(row, 0) == Some(xid))?;
        text(row, 1)
    };
    Ok(xids
        .iter()
        .map(|xid| write_fate(*xid, next, status(*xid)))
        .collect())
}

/// At or above `next` the id never arrived here, and is or will be somebody else's.
pub(super) fn write_fate(xid: u64, next: NextXid, status: Option<&str>) -> WriteFate {
    if xid >= next.value() {
        return WriteFate::Lost;
    }
    match status {
        Some("committed") => WriteFate::Committed,
        Some("aborted") => WriteFate::Lost,
        Some("in progress") => WriteFate::Undecided,
        _ => WriteFate::Unresolvable,
    }
}

/// An array literal's inside.
fn list<T: ToString>(values: impl Iterator<Item = T>) -> String {
    let values: Vec<_> = values.map(|value| value.to_string()).collect();
    format!("{{{}}}", values.join(","))
}
