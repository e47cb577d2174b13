//! What a server says about itself: role, identity, positions, replicas, its own clock.
//!
//! Reading the answers is apart from asking. Whatever was not answered (NULL, a missing privilege,
//! an error) is `None`: never 0, never "primary", never "no replicas". All questions travel in one
//! round trip and each is a transaction of its own, so that a missing privilege costs one answer.

use std::time::Duration;

use super::wire::rows::{flag, text, value};
use super::wire::{Client, QueryError, Row, Rows, ServerError};
use super::{Endpoint, Lsn, Timeline};

/// What a server is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
}

/// The server's wall clock, in microseconds since 1970 UTC. Compared only with times of the same
/// server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerTime(i64);

impl ServerTime {
    /// From the plain number, as kept in a journal.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// The plain number.
    pub const fn micros(self) -> i64 {
        self.0
    }
}

/// `default_transaction_read_only` as new sessions get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOnlyDefault {
    /// On or off, in the observer's own session.
    pub on: bool,
    /// Where the value comes from: `default`, `configuration file`, `database`, `user` …
    pub source: String,
    /// The file, if it comes from one and may be seen.
    pub file: Option<String>,
}

/// One row of pg_stat_replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The walsender's process id.
    pub pid: i32,
    /// What the standby calls itself.
    pub application_name: Option<String>,
    /// Its address.
    pub client_addr: Option<String>,
    /// `streaming`, `catchup` …; `None` without privilege.
    pub state: Option<String>,
    /// `async`, `potential`, `sync`, `quorum`; `None` without privilege.
    pub sync_state: Option<String>,
    /// What it has applied; `None` without privilege.
    pub replay_lsn: Option<Lsn>,
    /// Bytes between our end of the log and what it has applied.
    pub lag_bytes: Option<u64>,
    /// How far behind it last reported to be; `None` also when it has nothing to report.
    pub lag: Option<Duration>,
}

/// A transaction left by PREPARE TRANSACTION.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its name.
    pub gid: String,
    /// When it was prepared, as the server writes it.
    pub since: Option<String>,
    /// How long ago that was, by the server's clock.
    pub age: Option<Duration>,
    /// Who prepared it.
    pub owner: Option<String>,
    /// In which database.
    pub database: Option<String>,
}

/// One look at a server. `None` means unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Who was asked.
    pub endpoint: Endpoint,
    /// Primary or standby.
    pub role: Option<Role>,
    /// A primary whose default lets transactions write.
    pub writable: Option<bool>,
    /// The server's own read-only default.
    pub read_only: Option<ReadOnlyDefault>,
    /// Who holds a barrier here, or held the last one, as left by `evidence::barrier`.
    pub barrier: Option<String>,
    /// Made by initdb.
    pub system_identifier: Option<u64>,
    /// On a primary exact; on a standby the received one, else what the control file knows.
    pub timeline: Option<Timeline>,
    /// On a standby with a running walreceiver.
    pub received_timeline: Option<Timeline>,
    /// The end of the log: flushed on a primary, received (else replayed) on a standby.
    pub lsn: Option<Lsn>,
    /// On a primary.
    pub insert_lsn: Option<Lsn>,
    /// On a primary.
    pub flush_lsn: Option<Lsn>,
    /// On a standby that has streamed since its start.
    pub receive_lsn: Option<Lsn>,
    /// On a standby. A former standby keeps reporting its last one; that is not shown here.
    pub replay_lsn: Option<Lsn>,
    /// Time since the last replayed commit, on a standby. Grows on an idle primary too.
    pub replay_age: Option<Duration>,
    /// Standbys of this server.
    pub replicas: Option<Vec<Replica>>,
    /// Prepared transactions.
    pub prepared: Option<Vec<Prepared>>,
    /// Since when it has been running without a crash, by its own clock: the checkpointer's start.
    pub unbroken_since: Option<ServerTime>,
    /// The next transaction id; on a standby as far as it has replayed.
    pub next_xid: Option<u64>,
    /// As in `server_version_num`.
    pub server_version: Option<u32>,
    /// The server's clock.
    pub now: Option<ServerTime>,
}

impl Observation {
    /// Of whom nothing is known but that it answers.
    pub const fn silent(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            role: None,
            writable: None,
            read_only: None,
            barrier: None,
            system_identifier: None,
            timeline: None,
            received_timeline: None,
            lsn: None,
            insert_lsn: None,
            flush_lsn: None,
            receive_lsn: None,
            replay_lsn: None,
            replay_age: None,
            replicas: None,
            prepared: None,
            unbroken_since: None,
            next_xid: None,
            server_version: None,
            now: None,
        }
    }

    /// Whether new transactions are read-only by the server's own default.
    pub fn default_read_only(&self) -> Option<bool> {
        self.read_only.as_ref().map(|setting| setting.on)
    }

    /// How far a standby is behind `end`, the end of its primary's log.
    pub fn lag_bytes(&self, end: Lsn) -> Option<u64> {
        self.replay_lsn.map(|replayed| end.bytes_since(replayed))
    }
}

/// Asks a server everything about itself.
///
/// # Errors
/// Only when the connection is of no further use; a question that was refused is an unknown.
pub async fn probe(client: &mut Client) -> Result<Observation, QueryError> {
    let answers = client.query_batch(&QUESTIONS).await?;
    let mut answers = answers.into_iter().map(last_rows);
    let mut next = || answers.next().flatten();
    let (state, system, control) = (next(), next(), next());
    let (receiver, setting, replicas, prepared) = (next(), next(), next(), next());
    let xids = next();
    Ok(read(
        client.endpoint().clone(),
        &Answers {
            state: first(state),
            system: first(system),
            control: first(control),
            receiver: first(receiver),
            setting: first(setting),
            replicas,
            prepared,
            xids: first(xids),
        },
    ))
}

/// Asks a server that is being promoted for what decides whether it may be the target; `None` while
/// it is in recovery. All else is left unknown: this is asked within the write gap, again and again.
///
/// # Errors
/// As [`probe`].
pub async fn glance(client: &mut Client) -> Result<Option<Observation>, QueryError> {
    let mut answers = client.query_batch(&[GLANCE, NEXT_XID]).await?.into_iter();
    let asked = answers.next().transpose();
    let state = asked.map_err(|refusal| client.refused(refusal))?;
    let state = first(state.and_then(|mut sets| sets.pop()));
    let xid = first(answers.next().and_then(last_rows));
    if state.as_ref().and_then(|row| flag(row, 0)) != Some(false) {
        return Ok(None);
    }
    let on = |row: &Row| Some(text(row, 10)? == "on");
    let setting = state.as_ref().and_then(on).map(|on| ReadOnlyDefault {
        on,
        source: String::new(),
        file: None,
    });
    let mut seen = read(
        client.endpoint().clone(),
        &Answers {
            system: state
                .as_ref()
                .map(|row| row.iter().skip(9).cloned().collect()),
            state,
            xids: xid,
            ..Answers::default()
        },
    );
    seen.writable = writable(seen.role, setting.as_ref());
    seen.read_only = setting;
    Ok(Some(seen))
}

/// Prepared transactions of all databases, oldest first.
pub(crate) const PREPARED: &str = "SELECT gid, prepared, owner, database, \
     (extract(epoch FROM clock_timestamp() - prepared) * 1000000)::int8 \
     FROM pg_prepared_xacts ORDER BY prepared";

/// The timeline of a primary is in the name of the log file it inserts into; exact at once after a
/// promotion, where the control file may lag. The functions refuse to work in recovery.
macro_rules! state {
    ($more:literal) => {
        concat!(
            "SELECT r, \
               CASE WHEN NOT r THEN pg_current_wal_insert_lsn() END, \
               CASE WHEN NOT r THEN pg_current_wal_flush_lsn() END, \
               CASE WHEN NOT r THEN \
                 ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)) \
                   ::bit(32)::int8 END, \
               CASE WHEN r THEN pg_last_wal_receive_lsn() END, \
               CASE WHEN r THEN pg_last_wal_replay_lsn() END, \
               CASE WHEN r THEN (extract(epoch FROM \
                 clock_timestamp() - pg_last_xact_replay_timestamp()) * 1000000)::int8 END, \
               current_setting('server_version_num'), \
               (extract(epoch FROM clock_timestamp()) * 1000000)::int8",
            $more,
            " FROM (SELECT pg_is_in_recovery() AS r) AS s"
        )
    };
}

/// What a glance asks: the state, and then the system identifier and the read-only default.
const GLANCE: &str = state!(
    ", CASE WHEN NOT r THEN (SELECT system_identifier FROM pg_control_system()) END, \
     current_setting('default_transaction_read_only')"
);

/// After the state, in a transaction of its own: a snapshot from within recovery may be behind.
const NEXT_XID: &str = "SELECT pg_snapshot_xmax(pg_current_snapshot())";

/// One string per question, in the order of `Answers`.
const QUESTIONS: [&str; 8] = [
    state!(""),
    "SELECT system_identifier FROM pg_control_system()",
    "SELECT greatest(c.timeline_id, r.min_recovery_end_timeline) \
     FROM pg_control_checkpoint() AS c, pg_control_recovery() AS r",
    "SELECT received_tli FROM pg_stat_wal_receiver",
    "SELECT setting, source, sourcefile, current_setting('writefence.barrier', true) \
     FROM pg_settings WHERE name = 'default_transaction_read_only'",
    "SELECT pid, application_name, client_addr, state, sync_state, replay_lsn, \
       CASE WHEN NOT pg_is_in_recovery() \
         THEN pg_wal_lsn_diff(pg_current_wal_flush_lsn(), replay_lsn)::int8 END, \
       (extract(epoch FROM replay_lag) * 1000000)::int8 \
     FROM pg_stat_replication ORDER BY pid",
    PREPARED,
    "SELECT pg_snapshot_xmax(pg_current_snapshot()), \
       (SELECT (extract(epoch FROM backend_start) * 1000000)::int8 \
        FROM pg_stat_activity WHERE backend_type = 'checkpointer')",
];

/// The answers; `None` where the server refused or sent no row.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) state: Option<Row>,
    pub(super) system: Option<Row>,
    pub(super) control: Option<Row>,
    pub(super) receiver: Option<Row>,
    pub(super) setting: Option<Row>,
    pub(super) replicas: Option<Rows>,
    pub(super) prepared: Option<Rows>,
    pub(super) xids: Option<Row>,
}

/// What the answers say. Pure.
pub(super) fn read(endpoint: Endpoint, answers: &Answers) -> Observation {
    let state = answers.state.as_ref();
    let role = state.and_then(|row| flag(row, 0)).map(|recovering| {
        if recovering {
            Role::Standby
        } else {
            Role::Primary
        }
    });
    let lsn_at = |column| state.and_then(|row| value::<Lsn>(row, column));
    let timeline_of = |row: &Option<Row>| row.as_ref().and_then(|row| value::<Timeline>(row, 0));
    let (flush_lsn, receive_lsn, replay_lsn) = (lsn_at(2), lsn_at(4), lsn_at(5));
    let received_timeline = timeline_of(&answers.receiver);
    let read_only = answers.setting.as_ref().and_then(read_setting);
    Observation {
        endpoint,
        role,
        writable: writable(role, read_only.as_ref()),
        barrier: answers.setting.as_ref().and_then(|row| nonempty(row, 3)),
        read_only,
        system_identifier: answers.system.as_ref().and_then(read_system_identifier),
        timeline: match role {
            Some(Role::Primary) => state.and_then(|row| value(row, 3)),
            Some(Role::Standby) => received_timeline.or_else(|| timeline_of(&answers.control)),
            None => None,
        },
        received_timeline,
        lsn: flush_lsn.or_else(|| receive_lsn.max(replay_lsn)),
        insert_lsn: lsn_at(1),
        flush_lsn,
        receive_lsn,
        replay_lsn,
        replay_age: state.and_then(|row| micros(row, 6)),
        replicas: answers
            .replicas
            .as_ref()
            .and_then(|rows| rows.iter().map(replica).collect()),
        prepared: answers
            .prepared
            .as_ref()
            .and_then(|rows| rows.iter().map(prepared).collect()),
        next_xid: answers.xids.as_ref().and_then(|row| value(row, 0)),
        unbroken_since: answers
            .xids
            .as_ref()
            .and_then(|row| value(row, 1))
            .map(ServerTime),
        server_version: state.and_then(|row| value(row, 7)),
        now: state.and_then(|row| value(row, 8)).map(ServerTime),
    }
}

fn writable(role: Option<Role>, setting: Option<&ReadOnlyDefault>) -> Option<bool> {
    match (role?, setting) {
        (Role::Standby, _) => Some(false),
        (Role::Primary, setting) => setting.map(|setting| !setting.on),
    }
}

/// Shown by PostgreSQL as a signed number, meant as an unsigned one.
fn read_system_identifier(row: &Row) -> Option<u64> {
    value::<i64>(row, 0).map(i64::cast_unsigned)
}

fn read_setting(row: &Row) -> Option<ReadOnlyDefault> {
    let on = match text(row, 0)? {
        "on" => true,
        "off" => false,
        _ => return None,
    };
    Some(ReadOnlyDefault {
        on,
        source: text(row, 1)?.to_owned(),
        file: nonempty(row, 2),
    })
}

fn replica(row: &Row) -> Option<Replica> {
    Some(Replica {
        pid: value(row, 0)?,
        application_name: nonempty(row, 1),
        client_addr: nonempty(row, 2),
        state: nonempty(row, 3),
        sync_state: nonempty(row, 4),
        replay_lsn: value(row, 5),
        // A standby may briefly report a position beyond the one read a moment earlier.
        lag_bytes: value::<i64>(row, 6).map(|bytes| u64::try_from(bytes).unwrap_or(0)),
        lag: micros(row, 7),
    })
}

pub(crate) fn prepared(row: &Row) -> Option<Prepared> {
    Some(Prepared {
        gid: text(row, 0)?.to_owned(),
        since: nonempty(row, 1),
        age: micros(row, 4),
        owner: nonempty(row, 2),
        database: nonempty(row, 3),
    })
}

fn micros(row: &Row, column: usize) -> Option<Duration> {
    value::<i64>(row, column)
        .map(|micros| Duration::from_micros(u64::try_from(micros).unwrap_or(0)))
}

fn nonempty(row: &Row, column: usize) -> Option<String> {
    text(row, column)
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
}

fn last_rows(answer: Result<Vec<Rows>, ServerError>) -> Option<Rows> {
    answer.ok()?.pop()
}

fn first(rows: Option<Rows>) -> Option<Row> {
    rows?.into_iter().next()
}
