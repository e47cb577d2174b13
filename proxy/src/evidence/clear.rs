//! Ending foreign sessions on the old primary, and proving that none writes any more.
//!
//! Only `client backend`s are ended: replication goes on. Anything of another kind that holds a
//! transaction id (an apply worker, a scheduler's worker) is not ended but waited for, and named if
//! it stays. Two passes in a row must be quiet. Quiet means: nobody foreign from before, no
//! transaction id held, and for newcomers, who come under the read-only default and are ended as
//! well, that no transaction id was given out since the last pass.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::BarrierError;
use super::lock::{POLL, batch};
use super::lost::NextXid;
use crate::upstream::ServerTime;
use crate::upstream::wire::rows::{flag, text, value};
use crate::upstream::wire::{Client, Row, Rows};

/// A session of ours on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnBackend {
    /// Its backend's process id.
    pub pid: i32,
    /// Our end of its connection, where its login is under way and the process id not known yet.
    pub login: Option<SocketAddr>,
    /// Whether it is read-only by our own doing (wall two). One that is not is ended.
    pub walled: bool,
}

/// Why a backend is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyStill {
    /// It was ended, or does not matter any more.
    Ended,
    /// The observer's role may not end it.
    NotPermitted,
    /// It was told to end and has not within the bound.
    Staying,
    /// It is no client's session, or one of ours, and still holds a transaction id.
    Writing,
}

/// A backend that is neither the observer's nor a walled session of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Process id.
    pub pid: i32,
    /// Role name.
    pub user: Option<String>,
    /// What it calls itself; for a background process its kind.
    pub application_name: Option<String>,
    /// `active`, `idle in transaction` …
    pub state: Option<String>,
    /// The transaction id it holds, if it has written.
    pub xid: Option<u32>,
    /// Why it is still there.
    pub why: WhyStill,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".into());
        let (user, application) = (or(&self.user), or(&self.application_name));
        write!(
            f,
            "pid {} (user {user}, application {application:?}",
            self.pid
        )?;
        write!(f, ", {}", or(&self.state))?;
        if let Some(xid) = self.xid {
            write!(f, ", transaction {xid}")?;
        }
        f.write_str(match self.why {
            WhyStill::Ended => ")",
            WhyStill::NotPermitted => ", may not be ended by the observer's role)",
            WhyStill::Staying => ", told to end and still there)",
            WhyStill::Writing => ", not a client to be ended)",
        })
    }
}

/// Backends that write, or could, and cannot be ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("foreign writers cannot be ended: {}", .0.iter().map(Foreign::to_string).collect::<Vec<_>>().join("; "))]
pub struct ForeignWriters(pub Vec<Foreign>);

/// What was done.
#[derive(Debug, Default)]
pub(super) struct Cleared {
    pub(super) ended: Vec<Foreign>,
    pub(super) passes: u32,
}

/// One row of pg_stat_activity that matters.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) foreign: Foreign,
    pub(super) client: bool,
    pub(super) newcomer: bool,
    /// The other end of its connection.
    pub(super) address: Option<SocketAddr>,
    pub(super) started: String,
}

/// One look at the server.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    pub(super) seen: Vec<Seen>,
    pub(super) next_xid: u64,
}

/// How long our own sessions that stand without a wall are waited for before they are ended: a
/// login takes some milliseconds, more on a busy machine.
pub const PATIENCE: Duration = Duration::from_millis(500);

type Own<'a> = &'a (dyn Fn() -> Vec<OwnBackend> + Send + Sync);

/// Ends foreign sessions until two passes in a row are quiet. Backends that started after `since`
/// were read-only by default from their start.
pub(super) async fn foreign_sessions(
    client: &mut Client,
    observers: &[i32],
    since: ServerTime,
    bound: Duration,
    cleared: &mut Cleared,
    own: Own<'_>,
) -> Result<(), BarrierError> {
    let start = Instant::now();
    let mut last: Option<(bool, u64)> = None;
    loop {
        let patient = start.elapsed() < PATIENCE;
        let pass = look(client, observers, since, patient, own).await?;
        cleared.passes += 1;
        let quiet = is_quiet(&pass, last.map(|(_, next_xid)| next_xid));
        if quiet && last.is_some_and(|(was_quiet, _)| was_quiet) {
            return Ok(());
        }
        last = Some((quiet, pass.next_xid));
        let left = end(client, pass.seen, cleared).await?;
        if is_hopeless(&left) || (start.elapsed() >= bound && !quiet) {
            return Err(ForeignWriters(left.into_iter().map(|seen| seen.foreign).collect()).into());
        }
        if !quiet {
            sleep(POLL).await;
        }
    }
}

/// Runs statements and tells whoever is foreign then to end, in passing: what comes of it is seen
/// by the passes that follow. Returns what was answered to the statements.
pub(super) async fn sweep(
    client: &mut Client,
    statements: &[&str],
    observers: &[i32],
    cleared: &mut Cleared,
    own: Own<'_>,
) -> Result<Vec<Rows>, BarrierError> {
    // Nobody is known yet to have come under the read-only default.
    let since = ServerTime::from_micros(i64::MAX);
    let (answers, pass) = look_after(client, statements, observers, since, true, own).await?;
    end(client, pass.seen, cleared).await?;
    Ok(answers)
}

/// Refuses if anybody foreign from before the barrier is there, if any transaction id is held, or
/// if one was given out after `next_xid`.
pub(super) fn demand_none(pass: Pass, next_xid: NextXid) -> Result<(), BarrierError> {
    let bad = |seen: &Seen| !seen.newcomer || seen.foreign.xid.is_some();
    let bad: Vec<_> = pass
        .seen
        .into_iter()
        .filter(bad)
        .map(|seen| seen.foreign)
        .collect();
    if !bad.is_empty() {
        return Err(ForeignWriters(bad).into());
    }
    if pass.next_xid != next_xid.value() {
        let found = NextXid::new(pass.next_xid);
        return Err(BarrierError::Written {
            found,
            wanted: next_xid,
        });
    }
    Ok(())
}

/// Newcomers alone do not disturb the quiet, provided that no transaction id was given out since
/// the last pass: a client that keeps coming back and asks for READ WRITE shows up there.
pub(super) fn is_quiet(pass: &Pass, last_next_xid: Option<u64>) -> bool {
    let unmoved = last_next_xid == Some(pass.next_xid);
    pass.seen
        .iter()
        .all(|seen| seen.newcomer && seen.foreign.xid.is_none())
        && (pass.seen.is_empty() || unmoved)
}

/// Waiting is of no use once all that is left may not be ended by us.
fn is_hopeless(left: &[Seen]) -> bool {
    let mut old = left.iter().filter(|seen| !seen.newcomer).peekable();
    old.peek().is_some() && old.all(|seen| seen.foreign.why == WhyStill::NotPermitted)
}

async fn look(
    client: &mut Client,
    observers: &[i32],
    since: ServerTime,
    patient: bool,
    own: Own<'_>,
) -> Result<Pass, BarrierError> {
    let (_, pass) = look_after(client, &[], observers, since, patient, own).await?;
    Ok(pass)
}

/// Looks at the server after statements that are sent along, and answered first. Autovacuum is left
/// out: it takes transaction ids for its own bookkeeping.
pub(super) async fn look_after(
    client: &mut Client,
    before: &[&str],
    observers: &[i32],
    since: ServerTime,
    patient: bool,
    own: Own<'_>,
) -> Result<(Vec<Rows>, Pass), BarrierError> {
    let backends = format!(
        "SELECT pid, usename, \
           CASE backend_type WHEN 'client backend' THEN application_name ELSE backend_type END, \
           state, backend_xid, backend_type = 'client backend', \
           (extract(epoch FROM backend_start) * 1000000)::int8 > {}, backend_start, \
           host(client_addr), client_port \
         FROM pg_stat_activity \
         WHERE pid <> pg_backend_pid() AND backend_type NOT LIKE 'autovacuum%' \
         AND (backend_type = 'client backend' OR backend_xid IS NOT NULL)",
        since.micros()
    );
    let mut all = before.to_vec();
    all.extend([&*backends, "SELECT pg_snapshot_xmax(pg_current_snapshot())"]);
    let mut rows = batch(client, &all).await?;
    let next_xid = rows.pop().and_then(|rows| value(rows.first()?, 0));
    let next_xid = next_xid.ok_or_else(|| client.answer_error("next transaction id"))?;
    let seen = rows
        .pop()
        .unwrap_or_default()
        .iter()
        .map(read)
        .collect::<Option<Vec<_>>>();
    let seen = seen.ok_or_else(|| client.answer_error("pg_stat_activity"))?;
    let pass = Pass {
        seen: concerning(seen, observers, patient, &own()),
        next_xid,
    };
    Ok((rows, pass))
}

/// Leaves out the observer and our walled sessions; of the latter those that still hold a
/// transaction id stay in the list as something to wait for. So do, for as long as there is
/// patience, our sessions without a wall: most have just logged in, and are about to raise it.
pub(super) fn concerning(
    seen: Vec<Seen>,
    observers: &[i32],
    patient: bool,
    own: &[OwnBackend],
) -> Vec<Seen> {
    let is = |backend: &OwnBackend, seen: &Seen| match backend.login {
        Some(_) => backend.login == seen.address,
        None => backend.pid == seen.foreign.pid,
    };
    let walled = |pid| {
        own.iter()
            .any(|backend| backend.pid == pid && backend.walled)
    };
    let sort = |mut seen: Seen| {
        let pid = seen.foreign.pid;
        if observers.contains(&pid) {
            return None;
        }
        if walled(pid) {
            seen.foreign.xid?;
            seen.client = false;
        }
        // It was read-only from its start, and puts itself under the wall before it serves anybody.
        if own.iter().any(|backend| is(backend, &seen)) {
            if seen.newcomer {
                seen.foreign.xid?;
            } else if patient {
                seen.client = false;
            }
        }
        Some(seen)
    };
    seen.into_iter().filter_map(sort).collect()
}

fn read(row: &Row) -> Option<Seen> {
    let owned = |column| text(row, column).map(str::to_owned);
    Some(Seen {
        foreign: Foreign {
            pid: value(row, 0)?,
            user: owned(1),
            application_name: owned(2),
            state: owned(3),
            xid: value(row, 4),
            why: WhyStill::Writing,
        },
        client: flag(row, 5)?,
        // Unknown is not new.
        newcomer: flag(row, 6).unwrap_or(false),
        started: owned(7)?,
        address: address(row, 8),
    })
}

/// `None` where the server does not show it, or it is no TCP connection.
fn address(row: &Row, column: usize) -> Option<SocketAddr> {
    Some(SocketAddr::new(
        value::<IpAddr>(row, column)?,
        value(row, column + 1)?,
    ))
}

/// How many sessions are told to end in one round trip; bounded so that the answers, unread while
/// the questions are sent, fit into the socket's buffers.
const CHUNK: usize = 64;

/// Tells each client to end, named by process id and start, since ids are used again. Returns all
/// of them with what came of it.
async fn end(
    client: &mut Client,
    mut seen: Vec<Seen>,
    cleared: &mut Cleared,
) -> Result<Vec<Seen>, BarrierError> {
    let mut clients: Vec<_> = seen.iter_mut().filter(|seen| seen.client).collect();
    for chunk in clients.chunks_mut(CHUNK) {
        let statement = |seen: &&mut Seen| {
            format!(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE pid = {} AND backend_start = '{}' AND backend_type = 'client backend'",
                seen.foreign.pid, seen.started
            )
        };
        let statements: Vec<_> = chunk.iter().map(statement).collect();
        let statements: Vec<_> = statements.iter().map(String::as_str).collect();
        let answers = client.query_batch(&statements).await?;
        for (seen, answer) in chunk.iter_mut().zip(answers) {
            seen.foreign.why = match answer {
                Ok(_) => WhyStill::Staying,
                Err(refusal) if refusal.is_privilege() => WhyStill::NotPermitted,
                Err(refusal) => return Err(client.refused(refusal).into()),
            };
            let known = |ended: &Foreign| ended.pid == seen.foreign.pid;
            if seen.foreign.why == WhyStill::Staying && !cleared.ended.iter().any(known) {
                cleared.ended.push(Foreign {
                    why: WhyStill::Ended,
                    ..seen.foreign.clone()
                });
            }
        }
    }
    Ok(seen)
}
