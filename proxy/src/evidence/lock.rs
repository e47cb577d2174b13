//! One barrier call at a time on a server, on the server that was meant, with its own reload seen.
//!
//! The lock is a session advisory lock: it ends with the observer's session, so a daemon that dies
//! or is cut off in the middle cannot keep others out, and nothing of it can run on after another
//! has taken the lock. Advisory locks are per database: observers of one server should use the
//! same database (by default `postgres`).

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::BarrierError;
use super::marker::Claim;
use crate::upstream::wire::rows::{flag, text, value};
use crate::upstream::wire::{Client, QueryError, Row, Rows};
use crate::upstream::{Identity, Mismatch, ServerTime, Timeline};

/// First half of the key: the ASCII codes of `wfnc`. The second half is 1.
const LOCK: &str = "2003201635, 1";
/// Between two questions to the server while something is awaited.
pub(super) const POLL: Duration = Duration::from_millis(1);

/// If the machine of this daemon dies, the server should notice and free the lock, within about
/// 5 + 3 × 2 s; by its own settings that usually takes hours. Kept for the life of the session.
const NOTICE_DEATH: &str = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; \
     SET tcp_keepalives_count = 3";

/// The server that is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meant {
    /// This primary.
    Primary(Identity),
    /// A standby of the cluster with this system identifier.
    Standby(u64),
}

/// Takes the lock, waiting up to `bound` for another observer, and makes sure that this is the
/// server that was meant. The identity is compared in the same session that then acts: a name may
/// point elsewhere by now. With `TakeOver` another holder's session is ended.
pub(super) async fn enter(
    client: &mut Client,
    wanted: Meant,
    claim: Claim,
    bound: Duration,
) -> Result<Setting, BarrierError> {
    let take = format!("SELECT pg_try_advisory_lock({LOCK})");
    let start = Instant::now();
    loop {
        let answers = batch(client, &[NOTICE_DEATH, &take, IDENTITY, SETTING]).await?;
        let answers: Vec<_> = answers.iter().map(Vec::as_slice).collect();
        if let [_, [taken], [identity], [setting]] = &answers[..]
            && flag(taken, 0) == Some(true)
        {
            match wanted {
                Meant::Primary(wanted) => check_identity(identity, wanted)?,
                Meant::Standby(wanted) => check_standby(identity, wanted)?,
            }
            return Setting::parse(setting).ok_or_else(|| unreadable(client));
        }
        if start.elapsed() >= bound {
            let pid = holder(client, Claim::Own).await?;
            return Err(BarrierError::Busy { pid, after: bound });
        }
        if claim == Claim::TakeOver {
            holder(client, claim).await?;
        }
        sleep(POLL).await;
    }
}

/// The backend that holds the lock; with `TakeOver` it is told to end.
async fn holder(client: &mut Client, claim: Claim) -> Result<Option<i32>, QueryError> {
    let end = match claim {
        Claim::Own => "",
        Claim::TakeOver => ", pg_terminate_backend(pid)",
    };
    let sql = format!(
        "SELECT pid{end} FROM pg_locks WHERE locktype = 'advisory' AND granted \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
         AND (classid, objid) = ({LOCK}) AND objsubid = 2 AND pid <> pg_backend_pid()"
    );
    let rows = client.query(&sql).await?;
    Ok(rows.first().and_then(|row| value(row, 0)))
}

/// Gives the lock back, however often this session took it.
pub(super) const RELEASE: &str = "SELECT pg_advisory_unlock_all()";

/// Compares the server at hand with the primary that is meant.
pub(super) async fn look_at_identity(
    client: &mut Client,
    wanted: Identity,
) -> Result<(), BarrierError> {
    let row = client.row(IDENTITY).await?;
    check_identity(&row, wanted)
}

pub(super) const IDENTITY: &str = "SELECT r, (SELECT system_identifier FROM pg_control_system()), \
     CASE WHEN NOT r THEN \
       ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int8 END \
     FROM (SELECT pg_is_in_recovery() AS r) AS s";

pub(super) fn check_identity(row: &Row, wanted: Identity) -> Result<(), BarrierError> {
    match flag(row, 0) {
        Some(false) => {}
        Some(true) => return Err(Mismatch::InRecovery.into()),
        None => return Err(Mismatch::RoleUnknown.into()),
    }
    check_cluster(row, wanted.system_identifier)?;
    let found = value::<Timeline>(row, 2).ok_or(Mismatch::TimelineUnknown)?;
    if found != wanted.timeline {
        return Err(Mismatch::Timeline {
            found,
            wanted: wanted.timeline,
        }
        .into());
    }
    Ok(())
}

fn check_standby(row: &Row, wanted: u64) -> Result<(), BarrierError> {
    match flag(row, 0) {
        Some(true) => check_cluster(row, wanted),
        Some(false) => Err(Mismatch::NotInRecovery.into()),
        None => Err(Mismatch::RoleUnknown.into()),
    }
}

fn check_cluster(row: &Row, wanted: u64) -> Result<(), BarrierError> {
    let found = value::<i64>(row, 1)
        .map(i64::cast_unsigned)
        .ok_or(Mismatch::IdentifierUnknown)?;
    if found != wanted {
        return Err(Mismatch::SystemIdentifier { found, wanted }.into());
    }
    Ok(())
}

/// Runs `statements`, has the configuration files read anew, and waits until this session has done
/// so. The postmaster reads them before it passes the signal on, so every session that starts later
/// has them too. Returns what is in force then, and since when.
pub(super) async fn reload(
    client: &mut Client,
    statements: &[&str],
    bound: Duration,
) -> Result<(Setting, ServerTime), BarrierError> {
    let mut all = statements.to_vec();
    all.extend(RELOAD);
    let answers = batch(client, &all).await?;
    await_reload(client, loaded_before(answers), bound).await
}

/// What has the files read anew; the first of them tells when this session did so last.
pub(super) const RELOAD: [&str; 2] = [LOADED_AT, "SELECT pg_reload_conf()"];

/// When this session had read the files, of the answers to statements that end in `RELOAD`.
pub(super) fn loaded_before(mut answers: Vec<Rows>) -> Option<Row> {
    answers.pop();
    answers.pop()?.into_iter().next()
}

/// Waits until this session has read the files again since `before`.
pub(super) async fn await_reload(
    client: &mut Client,
    before: Option<Row>,
    bound: Duration,
) -> Result<(Setting, ServerTime), BarrierError> {
    let start = Instant::now();
    loop {
        let loaded = client.query(LOADED_AT).await?.into_iter().next();
        if loaded != before {
            let at = loaded.as_ref().and_then(|row| value(row, 0));
            let setting = Setting::read(client).await?;
            let at = at.map(ServerTime::from_micros);
            return Some(setting).zip(at).ok_or_else(|| unreadable(client));
        }
        if start.elapsed() >= bound {
            return Err(BarrierError::NotReloaded { after: bound });
        }
        sleep(POLL).await;
    }
}

const LOADED_AT: &str = "SELECT (extract(epoch FROM pg_conf_load_time()) * 1000000)::int8";

/// Runs statements in one round trip, each alone in its transaction, as ALTER SYSTEM demands; the
/// first refusal is the result.
pub(super) async fn batch(client: &mut Client, all: &[&str]) -> Result<Vec<Rows>, QueryError> {
    let mut rows = Vec::with_capacity(all.len());
    for answer in client.query_batch(all).await? {
        let mut sets = answer.map_err(|refusal| client.refused(refusal))?;
        rows.push(sets.pop().unwrap_or_default());
    }
    Ok(rows)
}

pub(super) fn unreadable(client: &Client) -> BarrierError {
    client.answer_error("default_transaction_read_only").into()
}

/// The read-only default of this session, and the marker.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) on: bool,
    pub(super) source: String,
    pub(super) file: Option<String>,
    pub(super) marker: Option<String>,
}

pub(super) const SETTING: &str = "SELECT setting, source, sourcefile, \
     current_setting('writefence.barrier', true) \
     FROM pg_settings WHERE name = 'default_transaction_read_only'";

impl Setting {
    pub(super) async fn read(client: &mut Client) -> Result<Self, BarrierError> {
        let row = client.row(SETTING).await?;
        Self::parse(&row).ok_or_else(|| unreadable(client))
    }

    pub(super) fn parse(row: &Row) -> Option<Self> {
        Some(Self {
            on: text(row, 0)? == "on",
            source: text(row, 1)?.to_owned(),
            file: text(row, 2).map(str::to_owned),
            marker: text(row, 3)
                .filter(|text| !text.is_empty())
                .map(str::to_owned),
        })
    }

    /// Refuses a value that is not the one just set: a role's, a database's or the session's own
    /// setting stands above the file.
    pub(super) fn demand(&self, on: bool) -> Result<(), BarrierError> {
        if self.on == on {
            return Ok(());
        }
        Err(BarrierError::NotInForce {
            found: name(self.on).to_owned(),
            from: self.source.clone(),
            wanted: name(on),
        })
    }
}

const fn name(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}
