//! What a server shows of its surroundings: settings, sessions, slots, missing rights.
//!
//! Asked for before a move and now and then, never within a write gap. As in `probe`, what was not
//! answered is `None` or absent, never "none". A session's columns that the observer may not see are
//! `None` too: without pg_monitor a busy server looks idle.

use std::collections::BTreeMap;
use std::time::Duration;

use super::privilege::{Need, missing_grants};
use super::wire::rows::{flag, text, value};
use super::wire::{Client, QueryError, Row};

/// Sessions that are read at most, the oldest transactions first. Stands in the question itself.
#[cfg(test)]
const SESSIONS: usize = 200;

/// A client's session on a server, ours or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSession {
    /// Process id.
    pub pid: i32,
    /// Role.
    pub user: Option<String>,
    /// Database.
    pub database: Option<String>,
    /// What it calls itself; `None` where it may not be seen.
    pub application: Option<String>,
    /// Address of its client.
    pub client: Option<String>,
    /// For how long its transaction has been open; `None` outside of one, and where not shown.
    pub in_transaction: Option<Duration>,
    /// It has a transaction id: it has written.
    pub has_written: bool,
    /// Its state may not be seen.
    pub masked: bool,
}

/// A replication slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Logical, or else physical.
    pub logical: bool,
    /// Somebody streams from it now.
    pub active: bool,
    /// It goes with its session.
    pub temporary: bool,
    /// Kept up on standbys; `None` before PostgreSQL 17, which has no such thing.
    pub failover: Option<bool>,
    /// On a standby: kept up from the primary.
    pub synced: Option<bool>,
    /// Why it is of no use any more.
    pub invalid: Option<String>,
    /// Of a logical slot.
    pub database: Option<String>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Settings by name, as far as they may be seen.
    pub settings: BTreeMap<String, String>,
    /// A setting comes from a file of Patroni's.
    pub patroni_file: Option<bool>,
    /// Client sessions but the asking one.
    pub sessions: Option<Vec<ServerSession>>,
    /// Replication slots.
    pub slots: Option<Vec<Slot>>,
    /// Sessions begun since statistics began, of all databases; `None` before PostgreSQL 14.
    pub sessions_begun: Option<u64>,
    /// Replay is paused, on a standby.
    pub replay_paused: Option<bool>,
    /// Statements that would give the observer's role what it lacks; `None` when not known.
    pub grants: Option<Vec<String>>,
}

impl Survey {
    /// A setting that may be seen.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }
}

/// Asks a server for its surroundings, and what its observer lacks for these needs.
///
/// # Errors
/// Only when the connection is of no further use.
pub async fn survey(client: &mut Client, needs: &[Need]) -> Result<Survey, QueryError> {
    let answers = client.query_batch(&QUESTIONS).await?;
    let mut answers = answers.into_iter();
    let mut next = || answers.next()?.ok()?.pop();
    let (settings, file, sessions, slots, paused) = (next(), next(), next(), next(), next());
    let begun = next();
    let grants = match missing_grants(client, needs).await {
        Ok(grants) => Some(grants),
        Err(error) if !client.is_usable() => return Err(error),
        Err(_) => None,
    };
    let first = |rows: Option<Vec<Row>>| rows?.into_iter().next();
    Ok(Survey {
        settings: settings.iter().flatten().filter_map(setting).collect(),
        patroni_file: first(file).and_then(|row| flag(&row, 0)),
        sessions: sessions.map(|rows| rows.iter().filter_map(session).collect()),
        slots: slots.map(|rows| rows.iter().filter_map(slot).collect()),
        sessions_begun: first(begun).and_then(|row| value(&row, 0)),
        replay_paused: first(paused).and_then(|row| flag(&row, 0)),
        grants,
    })
}

/// One string per question, in the order in which `survey` reads them. Columns of later versions
/// are asked for through JSON, so that an older server answers too.
const QUESTIONS: [&str; 6] = [
    "SELECT name, setting FROM pg_settings WHERE name IN ('synchronous_standby_names', \
       'recovery_target_timeline', 'recovery_min_apply_delay', 'wal_log_hints', 'data_checksums', \
       'max_connections', 'superuser_reserved_connections', 'sync_replication_slots', \
       'hot_standby_feedback', 'primary_slot_name', 'cluster_name', \
       'max_prepared_transactions', 'wal_keep_size', 'archive_mode')",
    "SELECT coalesce(bool_or(sourcefile LIKE '%/postgresql.base.conf'), false) FROM pg_settings \
     WHERE sourcefile IS NOT NULL",
    // Not more than SESSIONS: see there.
    "SELECT pid, usename, datname, application_name, client_addr, \
       (extract(epoch FROM clock_timestamp() - xact_start) * 1000000)::int8, \
       backend_xid IS NOT NULL, backend_start IS NULL OR query = '<insufficient privilege>' \
     FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
       AND coalesce(backend_type, 'client backend') = 'client backend' \
       AND usename IS NOT NULL \
     ORDER BY xact_start NULLS LAST LIMIT 200",
    "SELECT slot_name, slot_type = 'logical', active, temporary, to_jsonb(s) ->> 'failover', \
       to_jsonb(s) ->> 'synced', to_jsonb(s) ->> 'invalidation_reason', database \
     FROM pg_replication_slots AS s ORDER BY slot_name",
    "SELECT CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END",
    "SELECT sum((to_jsonb(d) ->> 'sessions')::int8)::int8 FROM pg_stat_database AS d",
];

fn setting(row: &Row) -> Option<(String, String)> {
    Some((text(row, 0)?.to_owned(), text(row, 1)?.to_owned()))
}

fn session(row: &Row) -> Option<ServerSession> {
    let some = |column| {
        text(row, column)
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
    };
    let micros = value::<i64>(row, 5).map(|n| u64::try_from(n).unwrap_or(0));
    Some(ServerSession {
        pid: value(row, 0)?,
        user: some(1),
        database: some(2),
        application: some(3),
        client: some(4),
        in_transaction: micros.map(Duration::from_micros),
        has_written: flag(row, 6) == Some(true),
        masked: flag(row, 7) != Some(false),
    })
}

fn slot(row: &Row) -> Option<Slot> {
    let said = |column| text(row, column).map(|text| text == "true");
    Some(Slot {
        name: text(row, 0)?.to_owned(),
        logical: flag(row, 1)?,
        active: flag(row, 2)?,
        temporary: flag(row, 3)?,
        failover: said(4),
        synced: said(5),
        invalid: text(row, 6).map(str::to_owned),
        database: text(row, 7).map(str::to_owned),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &[Option<&str>]) -> Row {
        columns.iter().map(|c| c.map(str::to_owned)).collect()
    }

    #[test]
    fn the_bound_of_sessions_is_the_one_that_is_asked_with() {
        assert!(QUESTIONS[2].ends_with(&format!("LIMIT {SESSIONS}")));
    }

    #[test]
    fn a_masked_session_is_not_an_idle_one() {
        let masked = [
            Some("7"),
            Some("u"),
            None,
            None,
            None,
            None,
            Some("f"),
            Some("t"),
        ];
        let found = session(&row(&masked)).unwrap();
        assert!(found.masked && found.in_transaction.is_none());
        let unsaid = [
            Some("7"),
            Some("u"),
            None,
            None,
            None,
            None,
            Some("f"),
            None,
        ];
        assert!(session(&row(&unsaid)).unwrap().masked);
    }

    #[test]
    fn a_slot_of_an_older_server_says_nothing_about_failover() {
        let old = [
            Some("s"),
            Some("t"),
            Some("f"),
            Some("f"),
            None,
            None,
            None,
            Some("d"),
        ];
        let found = slot(&row(&old)).unwrap();
        assert!(found.logical && found.failover.is_none() && found.synced.is_none());
        let new = [
            Some("s"),
            Some("t"),
            Some("f"),
            Some("f"),
            Some("true"),
            Some("false"),
            None,
            None,
        ];
        assert_eq!(slot(&row(&new)).unwrap().failover, Some(true));
    }
}
