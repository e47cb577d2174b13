//! The plain PostgreSQL driver: `pg_promote` on the observer's connection.
//!
//! Conditional on the server: the statement that promotes compares in the same breath that it is
//! in recovery, that it is of this system, and which timeline it receives.
//!
//! Not `pg_promote(true)`, which looks every 100 ms; we ask each millisecond. And the request is
//! repeated while the server stays in recovery. The reason: when the old primary dies, the startup
//! process asks for a new walreceiver. If the promotion arrives before that one has started (for
//! some milliseconds, right when a failover is most likely to act), the startup process calls it
//! off, finds its last failure to be recent, and sleeps for `wal_retrieve_retry_interval`, 5 s by
//! default, because the walreceiver that would have woken it never ran. A second request wakes it.
//! Repeating is harmless: it carries the same condition, and the trigger file it may leave behind
//! is removed when the server starts the next time.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::{Driver, DriverError, Pinned, Promotion};
use crate::upstream::wire::rows::{flag, value};
use crate::upstream::wire::{Client, Login, QueryError, Row};
use crate::upstream::{
    Endpoint, Mismatch, Need, Observation, Timeline, glance, missing_grants, probe,
};

/// Between two looks at a server that is being promoted.
const POLL: Duration = Duration::from_millis(1);
/// After this long in recovery the request is repeated, and again each time. A promotion takes 10
/// to 65 ms where nothing sleeps; shorter would signal the postmaster for nothing, longer adds to
/// the gap in which nobody can write.
const REPEAT: Duration = Duration::from_millis(20);

/// Observes and promotes one server through a connection that is kept.
#[derive(Debug)]
pub struct Postgres {
    endpoint: Endpoint,
    login: Login,
    client: Mutex<Option<Client>>,
}

impl Postgres {
    /// Names the server; logs in when it is first needed.
    pub fn new(endpoint: Endpoint, login: Login) -> Self {
        Self {
            endpoint,
            login,
            client: Mutex::new(None),
        }
    }

    /// Logs in ahead of time and asks once what a promotion will ask, so that it has not to wait
    /// for a login, nor for a new backend to fill its caches. Returns what it saw.
    ///
    /// # Errors
    /// See [`DriverError`]; missing rights are found out here too.
    pub async fn connect(&self) -> Result<Observation, DriverError> {
        let mut slot = self.client.lock().await;
        let client = self.connected(&mut slot).await?;
        let grants = missing_grants(client, &[Need::Promote]).await?;
        if !grants.is_empty() {
            return Err(DriverError::Privilege { grants });
        }
        glance(client).await?;
        Ok(probe(client).await?)
    }

    async fn connected<'a>(
        &self,
        slot: &'a mut Option<Client>,
    ) -> Result<&'a mut Client, DriverError> {
        match slot.take().filter(Client::is_usable) {
            Some(client) => Ok(slot.insert(client)),
            None => Ok(slot.insert(Client::connect(&self.endpoint, &self.login).await?)),
        }
    }

    async fn promote_pinned(
        &self,
        pinned: Pinned,
        deadline: Instant,
    ) -> Result<Promotion, DriverError> {
        let mut slot = self.client.lock().await;
        let client = self.connected(&mut slot).await?;
        let start = Instant::now();
        let (by_us, repeats, seen) = match request(client, pinned).await? {
            Answer::Requested => {
                let (repeats, seen) =
                    until_out_of_recovery(client, pinned, start, deadline).await?;
                (true, repeats, seen)
            }
            Answer::Already => (false, 0, None),
        };
        let took = start.elapsed();
        let observation = match seen {
            Some(seen) => seen,
            None => probe(client).await?,
        };
        Ok(Promotion {
            by_us,
            took,
            repeats,
            observation,
        })
    }
}

impl Driver for Postgres {
    fn observe(&self) -> BoxFuture<'_, Result<Observation, DriverError>> {
        Box::pin(async {
            let mut slot = self.client.lock().await;
            Ok(probe(self.connected(&mut slot).await?).await?)
        })
    }

    fn promote(
        &self,
        pinned: Pinned,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Promotion, DriverError>> {
        Box::pin(self.promote_pinned(pinned, deadline))
    }
}

/// What a request found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Requested,
    Already,
}

/// Promotes if and only if the server is in the pinned state. Without a walreceiver, as after the
/// death of the primary, the timeline is what the control file has seen replayed.
fn statement(pinned: Pinned) -> String {
    format!(
        "SELECT r, s, t, CASE WHEN r AND s = {} AND t = {} THEN pg_promote(false) END \
         FROM (SELECT pg_is_in_recovery() AS r, \
           (SELECT system_identifier FROM pg_control_system()) AS s, \
           coalesce((SELECT received_tli FROM pg_stat_wal_receiver), \
             (SELECT greatest(c.timeline_id, m.min_recovery_end_timeline) \
              FROM pg_control_checkpoint() AS c, pg_control_recovery() AS m)) AS t \
           OFFSET 0) AS seen",
        pinned.system_identifier.cast_signed(),
        pinned.timeline
    )
}

/// object_not_in_prerequisite_state: recovery is not in progress.
const NOT_RECOVERING: &str = "55000";

async fn request(client: &mut Client, pinned: Pinned) -> Result<Answer, DriverError> {
    let mut answer = client.row(&statement(pinned)).await;
    // Recovery may end between the comparison and the request; the second look then finds so.
    let ended = |error: &QueryError| {
        error
            .server()
            .is_some_and(|it| it.sqlstate == NOT_RECOVERING)
    };
    if answer.as_ref().is_err_and(ended) {
        answer = client.row(&statement(pinned)).await;
    }
    match answer {
        Ok(row) => read(&row, pinned),
        Err(error) if error.is_privilege() => Err(privilege(client, error).await),
        Err(error) => Err(error.into()),
    }
}

/// Reads the answer to `statement`.
pub(super) fn read(row: &Row, pinned: Pinned) -> Result<Answer, DriverError> {
    let system = value::<i64>(row, 1).map(i64::cast_unsigned);
    match (flag(row, 0), flag(row, 3)) {
        (Some(false), _) => return Ok(Answer::Already),
        (None, _) => return Err(DriverError::OtherServer(Mismatch::RoleUnknown)),
        (Some(true), Some(true)) => return Ok(Answer::Requested),
        (Some(true), Some(false)) => return Err(DriverError::NotStarted),
        (Some(true), None) => {}
    }
    match system {
        None => Err(DriverError::OtherServer(Mismatch::IdentifierUnknown)),
        Some(found) if found != pinned.system_identifier => {
            let wanted = pinned.system_identifier;
            Err(DriverError::OtherServer(Mismatch::SystemIdentifier {
                found,
                wanted,
            }))
        }
        Some(_) => {
            let found = value::<Timeline>(row, 2);
            Err(DriverError::OtherTimeline {
                found,
                wanted: pinned.timeline,
            })
        }
    }
}

async fn privilege(client: &mut Client, error: QueryError) -> DriverError {
    match missing_grants(client, &[Need::Promote]).await {
        Ok(grants) if !grants.is_empty() => DriverError::Privilege { grants },
        Ok(_) | Err(_) => error.into(),
    }
}

/// Whether a repeated request was declined because the first is being carried out: at the end of
/// recovery the control file shows the new timeline a moment before the server says that it has
/// left recovery.
pub(super) fn is_under_way(error: &DriverError) -> bool {
    match error {
        DriverError::OtherTimeline { found, wanted } => found.is_some_and(|found| found > *wanted),
        DriverError::Login(_)
        | DriverError::Query(_)
        | DriverError::OtherServer(_)
        | DriverError::Privilege { .. }
        | DriverError::NotStarted
        | DriverError::Asked(_)
        | DriverError::StillInRecovery { .. } => false,
    }
}

/// Returns how often the request was repeated, and what was seen of the new primary.
async fn until_out_of_recovery(
    client: &mut Client,
    pinned: Pinned,
    start: Instant,
    deadline: Instant,
) -> Result<(u32, Option<Observation>), DriverError> {
    let (mut repeats, mut asked) = (0, start);
    loop {
        let seen = glance(client).await?;
        if seen.is_some() {
            return Ok((repeats, seen));
        }
        let now = Instant::now();
        if now >= deadline {
            return Err(DriverError::StillInRecovery { after: now - start });
        }
        if now >= asked + REPEAT {
            match request(client, pinned).await {
                Ok(Answer::Already) => return Ok((repeats, None)),
                Ok(Answer::Requested) => repeats += 1,
                Err(error) if is_under_way(&error) => {}
                Err(error) => return Err(error),
            }
            asked = now;
        }
        sleep(POLL).await;
    }
}
