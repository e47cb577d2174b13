//! The fence LSN: a position in the log behind everything that was ever acknowledged.
//!
//! To be taken after the last permit has ended. The flush position alone is not enough: a session
//! with `synchronous_commit = off` is answered before its commit is flushed. So a record of our own
//! is committed, the insert position is read, and the log must be flushed up to there.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::{FenceLsnError, NotCaughtUp};
use super::lock::POLL;
use super::lost::NextXid;
use super::marker::Token;
use crate::upstream::wire::rows::{flag, text, value};
use crate::upstream::wire::{Answer, Client, QueryError, Row, cancel};
use crate::upstream::{Lsn, Timeline};

/// Who has confirmed the fence record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmed {
    /// The primary's disk; no synchronous standby is configured.
    Local,
    /// A synchronous standby too.
    BySyncStandby,
    /// The primary's disk; a synchronous standby is configured, but none answered in time.
    SyncStandbySilent,
}

/// The fence LSN, and what stands behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FenceLsn {
    /// Everything acknowledged lies before it.
    pub lsn: Lsn,
    /// Who has confirmed it.
    pub confirmed: Confirmed,
    /// The next transaction id at that moment: while it stands still, nobody has written since.
    pub next_xid: NextXid,
}

/// Takes the fence LSN. `bound` is how long a synchronous standby may take to confirm; without its
/// confirmation the record is committed all the same.
///
/// # Errors
/// See [`FenceLsnError`].
pub async fn fence_lsn(
    client: &mut Client,
    token: &Token,
    bound: Duration,
) -> Result<FenceLsn, FenceLsnError> {
    let mut confirmed = choose(client).await?;
    let mut tries = 0;
    loop {
        let (cut_short, (lsn, flushed, next_xid)) = emit(client, token, confirmed, bound).await?;
        if cut_short {
            confirmed = Confirmed::SyncStandbySilent;
        }
        tries += 1;
        if flushed >= lsn {
            return Ok(FenceLsn {
                lsn,
                confirmed,
                next_xid,
            });
        }
        if tries == TRIES {
            return Err(FenceLsnError::NotFlushed {
                flushed,
                wanted: lsn,
            });
        }
    }
}

/// The insert position may be just behind a page header that nothing follows yet, or somebody (a
/// checkpoint, vacuum) has written since our commit; the next commit flushes past it. More than a
/// few times in a row means that somebody writes all the time.
const TRIES: u32 = 10;

/// A commit that waits for a synchronous standby which is not there never returns, so whether one
/// is there is asked first.
async fn choose(client: &mut Client) -> Result<Confirmed, QueryError> {
    let row = client
        .row(
            "SELECT current_setting('synchronous_standby_names') = '', \
             EXISTS (SELECT FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))",
        )
        .await?;
    match (flag(&row, 0), flag(&row, 1)) {
        (Some(true), _) => Ok(Confirmed::Local),
        (Some(false), Some(true)) => Ok(Confirmed::BySyncStandby),
        (Some(false), Some(false)) => Ok(Confirmed::SyncStandbySilent),
        (None, _) | (_, None) => Err(client.answer_error("synchronous_standby_names")),
    }
}

/// Commits the record and reads the positions behind it, in one round trip; with them whether the
/// wait for the synchronous standby was cut short. The barrier makes transactions read-only by
/// default, hence READ WRITE.
async fn emit(
    client: &mut Client,
    token: &Token,
    by: Confirmed,
    bound: Duration,
) -> Result<(bool, Positions), QueryError> {
    let level = match by {
        Confirmed::BySyncStandby => "on",
        Confirmed::Local | Confirmed::SyncStandbySilent => "local",
    };
    let set = format!("SET synchronous_commit = {level}");
    let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
    let record = format!(
        "SELECT pg_logical_emit_message(true, 'writefence', '{}')",
        token.run()
    );
    let statements = [
        &*set,
        begin,
        &record,
        "COMMIT",
        "RESET synchronous_commit",
        POSITIONS,
    ];
    let answers = within(client, &statements, bound).await?;
    let cut_short = client
        .notices()
        .iter()
        .any(|notice| notice.sqlstate == WARNING);
    let mut last = None;
    for answer in answers {
        last = answer.map_err(|refusal| client.refused(refusal))?.pop();
    }
    let row = last.and_then(|rows| rows.into_iter().next());
    let positions = row.as_ref().and_then(read_positions);
    let positions = positions.ok_or_else(|| client.answer_error("log position"))?;
    Ok((cut_short, positions))
}

/// The class of the warning with which PostgreSQL says that it gave up waiting for the standby.
const WARNING: &str = "01000";

/// Runs statements and sends a cancel request when they take longer than `bound`. A cancel during
/// the wait for the standby does not undo the commit, it ends the wait. Neither a statement timeout
/// nor a lock timeout does that: they are off while a transaction commits.
async fn within(
    client: &mut Client,
    statements: &[&str],
    bound: Duration,
) -> Result<Vec<Answer>, QueryError> {
    let (endpoint, pid, secret) = client.cancel_key();
    let answers = client.query_batch(statements);
    let alarm = async {
        sleep(bound).await;
        // Should it fail, the call's own timeout still bounds the wait.
        let _ignored = cancel(&endpoint, pid, &secret, bound).await;
        std::future::pending().await
    };
    // Dropping the alarm drops at most a connection that asked for a cancel; the answers are never
    // dropped half read, since the other arm does not end.
    tokio::select! {
        answers = answers => answers,
        never = alarm => never,
    }
}

/// Where the log ends, up to where it is on disk, and the next transaction id.
type Positions = (Lsn, Lsn, NextXid);

/// The snapshot is taken before the functions run, so whoever got an id below the next one and has
/// committed lies before the insert position.
const POSITIONS: &str = "SELECT pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn(), \
     pg_snapshot_xmax(pg_current_snapshot())";

fn read_positions(row: &Row) -> Option<Positions> {
    Some((value(row, 0)?, value(row, 1)?, NextXid::new(value(row, 2)?)))
}

/// Waits until a candidate has replayed up to `wanted`, asking each millisecond. Returns what it
/// has replayed. `timeline` is the old primary's.
///
/// # Errors
/// See [`NotCaughtUp`].
pub async fn caught_up(
    candidate: &mut Client,
    wanted: Lsn,
    timeline: Timeline,
    deadline: Instant,
) -> Result<Lsn, NotCaughtUp> {
    loop {
        let row = candidate
            .row(
                "SELECT pg_is_in_recovery(), pg_last_wal_replay_lsn(), \
                 (SELECT received_tli FROM pg_stat_wal_receiver)",
            )
            .await?;
        match flag(&row, 0) {
            Some(true) => {}
            Some(false) => return Err(NotCaughtUp::Promoted),
            None => return Err(candidate.answer_error("pg_is_in_recovery").into()),
        }
        let replayed = text(&row, 1).and_then(|text| text.parse::<Lsn>().ok());
        // Without a walreceiver the row is missing: then what is there came from this timeline
        // earlier, and the promotion compares once more.
        match value::<Timeline>(&row, 2) {
            Some(found) if found != timeline => {
                return Err(NotCaughtUp::OtherTimeline {
                    found,
                    wanted: timeline,
                });
            }
            _ => {}
        }
        match replayed {
            Some(lsn) if lsn >= wanted => return Ok(lsn),
            _ if Instant::now() >= deadline => {
                return Err(NotCaughtUp::Behind { replayed, wanted });
            }
            _ => sleep(POLL).await,
        }
    }
}
