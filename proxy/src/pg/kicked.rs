//! A backend that was ended alone, by `pg_terminate_backend` or with its database, beside one that is
//! ended because its server stops: PostgreSQL says 57P01 to both.
//!
//! A client that a DBA ends is to be ended, as without us; a client whose server stops keeps its
//! connection, and that promise outranks. So a session ends only where it is proven that its server
//! goes on: a postmaster that shuts down refuses logins before it ends the first backend, so one that
//! lets us in and has been running since before the session's own login has not shut down. Anything
//! else, a fence above all, keeps the session. What was in flight is unknown as it always is.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::replay::login_as;
use super::session::{End, Session};
use crate::gate::{Lane, Look, Phase};
use crate::upstream::Target;
use crate::upstream::wire::{Client, Login, LoginError};

/// FATAL by which a server ends one backend, and all of them.
const ENDED: &[u8] = b"57P01";

/// How long the proof may take, the turns of other sessions included.
const WITHIN: Duration = Duration::from_secs(2);

/// So long after a change of phase a backend may still have been ended by that fence's barrier.
const CALM: Duration = Duration::from_secs(5);

/// How long the server has been running, by its own clock: durations are compared, never clocks.
const AGE: &str = "SELECT pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() \
                   OPERATOR(pg_catalog.-) pg_catalog.pg_postmaster_start_time())";

/// What a login showed of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// It runs, and since then at the latest.
    Since(Instant),
    /// It runs, and would not let this user in.
    Refuses,
    /// It stops, or is gone, or nothing is known.
    Unproven,
}

/// The last look at the accepted target's server. Sessions that are ended together share one.
#[derive(Default)]
pub struct Lives(Mutex<Option<(Instant, u64, Life)>>);

impl Lives {
    /// What a login shows that was begun after `asked`: a new one, or that of somebody who asked too.
    async fn look(&self, asked: Instant, target: &Target, login: Login, through: bool) -> Life {
        let mut last = self.0.lock().await;
        if let Some((begun, serial, life)) = *last
            && begun >= asked
            && serial == target.serial
            && (through || life != Life::Refuses)
        {
            return life;
        }
        let begun = Instant::now();
        let life = look(target, &login).await;
        *last = Some((begun, target.serial, life));
        life
    }
}

async fn look(target: &Target, login: &Login) -> Life {
    let mut client = match Client::connect(&target.endpoint, login).await {
        Ok(client) => client,
        // It asks who we are: a server that stops does not get as far.
        Err(
            LoginError::NoPassword { .. }
            | LoginError::NotAllowed { .. }
            | LoginError::OtherVerifier { .. },
        ) => return Life::Refuses,
        Err(LoginError::Server { source: said, .. }) if is_about_us(&said.sqlstate) => {
            return Life::Refuses;
        }
        Err(_) => return Life::Unproven,
    };
    let row = client.row(AGE).await.ok();
    let age = row
        .as_ref()
        .and_then(|row| row.first()?.as_deref()?.parse().ok());
    let age = age.and_then(|age| Duration::try_from_secs_f64(age).ok());
    match age.and_then(|age| Instant::now().checked_sub(age)) {
        Some(since) => Life::Since(since),
        None => Life::Unproven,
    }
}

/// Refusals that no server gives for being stopped or full: the database or the role is gone or not
/// allowed any more.
fn is_about_us(sqlstate: &str) -> bool {
    sqlstate.starts_with("28") || sqlstate == "3D000" || sqlstate == "42501"
}

/// What is known when a backend was ended, as long as the session's server is still at hand.
pub(super) struct Suspicion {
    target: std::sync::Arc<Target>,
    logged_in: Instant,
    heard: Instant,
    look: Look,
}

impl Session {
    /// Whether these last words may be about this session alone.
    pub(super) fn suspect(&self, sqlstate: &[u8]) -> Option<Suspicion> {
        let server = self.server.as_ref()?;
        let heard = Instant::now();
        let calm = |at: Instant| heard.duration_since(at) >= CALM;
        let open = self.look.phase == Phase::Open && !self.look.releasing;
        let suspicious = sqlstate == ENDED
            && open
            && self.is_undisturbed(self.look, &server.target)
            && self.turned.is_none_or(calm);
        suspicious.then(|| Suspicion {
            target: std::sync::Arc::clone(&server.target),
            logged_in: server.since,
            heard,
            look: self.look,
        })
    }

    /// The gate shows the same as before, and writes go to the same server.
    fn is_undisturbed(&self, before: Look, target: &Target) -> bool {
        self.group.gate.look(Lane::Sql) == before
            && self.group.targets.accepted().serial == target.serial
    }

    /// Whether it is proven that the server goes on, so that the end was meant for this session.
    pub(super) async fn was_meant(&self, suspicion: &Suspicion) -> bool {
        let Suspicion { target, .. } = suspicion;
        let login = login_as(target, &self.who, WITHIN);
        let through = self.passed_through;
        let look = self
            .group
            .lives
            .look(suspicion.heard, target, login, through);
        let proven = match timeout(WITHIN, look).await {
            // Its backend was of the server that runs now, so that server was not stopped.
            Ok(Life::Since(since)) => since < suspicion.logged_in,
            // Where it cannot log in, it could go nowhere either.
            Ok(Life::Refuses) => true,
            Ok(Life::Unproven) | Err(_) => false,
        };
        // A fence or a move that came meanwhile keeps it.
        proven && self.is_undisturbed(suspicion.look, target)
    }

    /// The client is told what a direct connection would have been, and its connection ends.
    pub(super) fn kicked(&mut self, last_words: &[u8], undecided: bool, region: &str) -> End {
        tracing::info!(
            session = self.handle.id(),
            user = self.handle.user(),
            client = %self.handle.client(),
            region,
            "its backend was ended on a server that goes on: the session ends with it"
        );
        if undecided {
            // The server's own words would pass for "not executed".
            let mut report = super::refuse::unknown(region);
            report.severity = "FATAL";
            return End::told(report);
        }
        self.client.queue().extend_from_slice(last_words);
        End::Server
    }
}
