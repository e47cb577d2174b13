//! Moving a session to another server without closing the client's connection.
//!
//! A login is made with the client's own startup parameters, then its state is replayed: settings,
//! role, prepared statements. That is done ahead of the promotion, while the candidate is still a
//! hot standby, so that at open only what a standby does not allow (LISTEN) and what has changed
//! since is left. What cannot be replayed pins the session; only such sessions are ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

use super::classify::{Kind, Verdict, judge, rule};
use super::frame::put;
use super::message::{Report, parameter, query};
use super::refuse;
use super::server::Server;
use super::session::{End, Session};
use super::track::Prepared;
use crate::gate::{Lane, Phase};
use crate::group::Group;
use crate::sessions::SessionState;
use crate::upstream::wire::{Login, LoginError, login};
use crate::upstream::{Region, Target};

/// Waits between attempts to reach a target: short at first, since a promotion takes milliseconds.
const RETRY: [u64; 6] = [5, 10, 25, 50, 100, 250];

/// Reported parameters that the client can change without a SET statement of its own (set_config,
/// a function): carried over by value.
const BY_VALUE: [&str; 6] = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "standard_conforming_strings",
];

/// Not shown as the server says them.
pub(crate) const VIRTUAL: [&str; 2] = ["default_transaction_read_only", "in_hot_standby"];

/// What pins a session and cannot be seen in the statements it sent.
const PINS: &str = "SELECT 'it has temporary tables' WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_class \
     WHERE relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
     UNION ALL SELECT 'it has a cursor WITH HOLD' WHERE EXISTS \
     (SELECT 1 FROM pg_catalog.pg_cursors WHERE is_holdable) \
     UNION ALL SELECT 'it holds session advisory locks' WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_locks \
     WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())";

/// Why a login on another server did not come about.
#[derive(Debug, Error)]
pub(crate) enum MoveError {
    #[error("login failed")]
    Login(#[from] LoginError),
    #[error("the connection was lost during the replay: {0}")]
    Lost(#[from] std::io::Error),
    #[error("its state could not be replayed: {message} (SQLSTATE {sqlstate})")]
    Replay { sqlstate: String, message: String },
    #[error("given up")]
    Abandoned,
}

impl MoveError {
    /// Worth another attempt: nothing is wrong with the session itself.
    fn passes(&self) -> bool {
        match self {
            Self::Lost(_) | Self::Abandoned => true,
            Self::Replay { .. } => false,
            Self::Login(LoginError::Server { source: e, .. }) => {
                // Starting up, shutting down, too many connections: passing states of a server.
                matches!(e.sqlstate.as_str(), "57P01" | "57P02" | "57P03" | "53300")
            }
            Self::Login(
                LoginError::Unreachable { .. }
                | LoginError::Timeout { .. }
                | LoginError::Closed { .. },
            ) => true,
            Self::Login(_) => false,
        }
    }

    /// The error and all that caused it, in one line.
    pub(crate) fn chain(&self) -> String {
        chain(self)
    }
}

/// An error and all that caused it, in one line.
pub(crate) fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

/// A login with the session's state in it.
pub(crate) struct Ready {
    pub(crate) server: Server,
    /// Version of the state that was replayed.
    version: u64,
    /// The unnamed statement that was replayed.
    unnamed: Option<Arc<Prepared>>,
}

/// What has to be replayed, copied out of the session.
#[derive(Clone)]
struct State {
    version: u64,
    sets: Vec<String>,
    values: Vec<(String, String)>,
    statements: Vec<Arc<Prepared>>,
    unnamed: Option<Arc<Prepared>>,
    sql: Vec<String>,
    /// What the session ran last: explained once, it finds the new server's caches filled.
    warm: Vec<String>,
}

/// How a session logs in: the client's parameters, and our user where the target names one.
pub(crate) fn login_as(target: &Target, startup: &[(String, String)], timeout: Duration) -> Login {
    let mut params = startup.to_vec();
    if let Some(user) = &target.user {
        // The database of a client that names none is its user's; that must not change.
        if !params.iter().any(|(n, _)| n == "database")
            && let Some((_, client)) = params.iter().find(|(n, _)| n == "user").cloned()
        {
            params.push(("database".into(), client));
        }
        params.retain(|(n, _)| n != "user");
        params.insert(0, ("user".into(), user.clone()));
    }
    Login {
        params,
        password: target.password.clone(),
        timeout,
    }
}

async fn prepare(
    group: Arc<Group>,
    target: Arc<Target>,
    startup: Arc<Vec<(String, String)>>,
    state: State,
    bounded: bool,
) -> Result<Ready, MoveError> {
    // The bound keeps a repoint from being a login storm; who has a statement waiting goes past it.
    let _turn = if bounded {
        Some(
            Arc::clone(&group.moves)
                .acquire_owned()
                .await
                .map_err(|_| MoveError::Abandoned)?,
        )
    } else {
        None
    };
    let as_whom = login_as(&target, &startup, group.settings.login_timeout);
    let connected = login(&target.endpoint, &as_whom).await.inspect_err(|_| {
        group
            .sessions
            .totals
            .login_failures
            .fetch_add(1, Ordering::Relaxed);
    })?;
    group.logins.opened(target.region.as_str(), connected.pid);
    let mut server = Server::new(connected, target);
    replay(&mut server, &state).await?;
    warm_up(&mut server, &state).await?;
    Ok(Ready {
        server,
        version: state.version,
        unnamed: state.unnamed,
    })
}

/// Sends the state and waits for its answers.
async fn replay(server: &mut Server, state: &State) -> Result<(), MoveError> {
    let mut messages = Vec::new();
    let mut readies = 0;
    for sql in state.sets.iter().chain(&state.sql) {
        query(&mut messages, sql);
        readies += 1;
    }
    for (name, value) in &state.values {
        if server.param(name) != Some(value) {
            let value = value.replace('\'', "''");
            query(
                &mut messages,
                &format!(
                    "SELECT pg_catalog.set_config('{name}', E'{}', false)",
                    value.replace('\\', "\\\\")
                ),
            );
            readies += 1;
        }
    }
    let frames: Vec<_> = state.statements.iter().filter_map(|p| p.frame()).collect();
    if !frames.is_empty() {
        frames.iter().for_each(|f| messages.extend_from_slice(f));
        put(&mut messages, b'S', &[]);
        readies += 1;
    }
    if readies == 0 {
        return Ok(());
    }
    let answer = server.ask(&messages, readies).await?;
    match answer.error {
        Some((sqlstate, message)) => Err(MoveError::Replay { sqlstate, message }),
        None => Ok(()),
    }
}

/// A new backend needs milliseconds for its first statement on a table, most of them to fill its
/// caches. Explaining what the session ran last does that ahead of time and executes nothing; the
/// unnamed statement goes last, since a simple query would destroy it. Failures do not matter.
async fn warm_up(server: &mut Server, state: &State) -> Result<(), MoveError> {
    let mut messages = Vec::new();
    let mut readies = 0;
    for text in &state.warm {
        query(&mut messages, &format!("EXPLAIN {text}"));
        readies += 1;
    }
    if let Some(frame) = state.unnamed.as_ref().and_then(|p| p.frame()) {
        messages.extend_from_slice(frame);
        put(&mut messages, b'S', &[]);
        readies += 1;
    }
    if readies > 0 {
        server.ask(&messages, readies).await?;
    }
    Ok(())
}

impl Session {
    fn state(&self) -> State {
        let version = self
            .track
            .sets
            .version
            .wrapping_add(self.track.statements.version());
        let values = self.server.as_ref().map(|s| {
            let carried = s
                .params
                .iter()
                .filter(|(n, _)| BY_VALUE.contains(&n.as_str()));
            carried.cloned().collect()
        });
        State {
            version,
            sets: self.track.sets.replay().map(str::to_owned).collect(),
            values: values.unwrap_or_default(),
            statements: self.track.statements.named().cloned().collect(),
            unnamed: self.track.statements.unnamed().cloned(),
            warm: Vec::new(),
            sql: self.track.statements.sql.values().cloned().collect(),
        }
    }

    /// Texts that can be explained: single statements that read or write rows.
    fn warm(&self) -> Vec<String> {
        let plain = |text: &&[u8]| {
            let judged = judge(text, self.track.reported, &self.eyes);
            let [statement] = judged.statements.as_slice() else {
                return false;
            };
            let rows = statement.verdict == Verdict::Read || statement.rule == rule::DML;
            rows && statement.kind == Kind::Other
        };
        let texts = self.track.recent().into_iter().filter(plain);
        texts
            .map(|t| String::from_utf8_lossy(t).into_owned())
            .collect()
    }

    /// Why the session cannot be moved, as far as it is known.
    fn pins(&self) -> Vec<String> {
        self.track
            .sets
            .pins()
            .cloned()
            .chain(self.track.statements.pin())
            .collect()
    }

    /// A login on the accepted target is ready to be taken.
    pub(crate) fn ready_to_move(&self) -> bool {
        let serial = self.group.targets.serial();
        self.ready
            .as_ref()
            .is_some_and(|r| r.server.target.serial == serial)
    }

    /// Starts a login on the target that this session will need: the candidate while there is one,
    /// else the accepted target where the session is still elsewhere.
    pub(crate) fn log_in_ahead(&mut self) {
        let targets = &self.group.targets;
        let wanted = targets.candidate().unwrap_or_else(|| targets.accepted());
        let have = |s: &Server| s.target.serial == wanted.serial;
        if self.ready.as_ref().is_some_and(|r| !have(&r.server)) {
            self.drop_ready();
        }
        let at_hand = self.server.as_ref().is_some_and(have) || self.ready.is_some();
        if at_hand || self.ahead.is_some() || !self.pins().is_empty() {
            return;
        }
        self.ahead = Some(tokio::spawn(prepare(
            Arc::clone(&self.group),
            wanted,
            Arc::clone(&self.startup),
            State {
                warm: self.warm(),
                ..self.state()
            },
            self.parked.is_none(),
        )));
    }

    fn drop_ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            ready.server.leg.farewell();
            self.group
                .logins
                .closed(ready.server.target.region.as_str(), ready.server.pid);
            self.handle.set_ahead(None, 0);
        }
    }

    /// Puts the session on the accepted target, with the wall down. Afterwards either the server is
    /// the target, or the client has been refused and there is no server.
    pub(crate) async fn get_to_target(&mut self) -> Result<(), End> {
        if self.server.is_some() && !self.stale() {
            return self.lower().await;
        }
        if self.server.is_some() && (!self.track.watched || self.track.may_be_pinned) {
            self.look_for_pins().await?;
        }
        self.track.watched = false;
        let region = self.group.targets.accepted().region.clone();
        if let Some(pin) = self.pins().first() {
            self.handle.set_pins(self.pins());
            return Err(self.unmovable(&region, pin));
        }
        self.handle.set_state(SessionState::Moving);
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let e = match self.ready_on_target().await {
                Ok(ready) => match self.swap(ready).await {
                    Ok(()) => return Ok(()),
                    Err(e) => e,
                },
                Err(e) => e,
            };
            if !e.passes() {
                return Err(self.unmovable(&region, &e.chain()));
            }
            let waited = started.elapsed();
            let look = self.group.gate.look(Lane::Sql);
            let fenced = look.phase != Phase::Open && self.permit.is_none();
            if waited >= self.group.settings.reach_timeout || fenced {
                let report = refuse::unreachable(region.as_str(), waited, &e.chain());
                return self.without_server(&report).await;
            }
            let pause = RETRY.get(attempt).or(RETRY.last()).copied().unwrap_or(250);
            attempt += 1;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn unmovable(&self, region: &Region, reason: &str) -> End {
        let (id, user) = (self.handle.id(), self.handle.user());
        tracing::info!(session = id, user, %region, reason, "a session ends: it cannot be moved");
        self.group
            .sessions
            .totals
            .ended_unmovable
            .fetch_add(1, Ordering::Relaxed);
        End::told(refuse::unmovable(region.as_str(), reason))
    }

    async fn without_server(&mut self, report: &Report) -> Result<(), End> {
        self.drop_server();
        self.release();
        self.refuse_group(report).await
    }

    async fn ready_on_target(&mut self) -> Result<Ready, MoveError> {
        let accepted = self.group.targets.accepted();
        if let Some(ahead) = self.ahead.take() {
            // It may be for this target or for another; if it is not done soon, a login of our own
            // is quicker than its turn.
            let soon = Duration::from_millis(20);
            let abort = ahead.abort_handle();
            match tokio::time::timeout(soon, ahead).await {
                Ok(Ok(Ok(ready))) => {
                    self.drop_ready();
                    self.ready = Some(ready);
                }
                Ok(_) => {}
                Err(_) => abort.abort(),
            }
        }
        if self.ready_to_move()
            && let Some(ready) = self.ready.take()
        {
            return Ok(ready);
        }
        self.drop_ready();
        let (group, startup) = (Arc::clone(&self.group), Arc::clone(&self.startup));
        prepare(group, accepted, startup, self.state(), false).await
    }

    /// Takes over a ready login and lets go of the old one.
    async fn swap(&mut self, mut ready: Ready) -> Result<(), MoveError> {
        ready.server.leg.check_alive().await?;
        let now = self.state();
        let mut unnamed = ready.unnamed.take();
        if ready.version != now.version {
            unnamed = None;
            let mut discard = Vec::new();
            query(&mut discard, "DISCARD ALL");
            ready.server.ask(&discard, 1).await?;
            replay(&mut ready.server, &now).await?;
        }
        self.finish_replay(&mut ready.server, unnamed).await?;
        let old = self.server.replace(ready.server);
        self.wall.gone();
        self.sealed = false;
        self.handle.set_walled(false);
        self.handle.set_ahead(None, 0);
        self.last_words = None;
        let Some(new) = &self.server else {
            return Ok(());
        };
        self.handle
            .set_backend(Some((new.target.region.clone(), new.pid)));
        self.track.reported = new.reading();
        let told = old.as_ref().map(|o| o.params.clone()).unwrap_or_default();
        for (name, value) in &new.params {
            let known = told.iter().any(|(n, v)| n == name && v == value);
            if !known && !VIRTUAL.contains(&name.as_str()) && !told.is_empty() {
                parameter(self.client.queue(), name, value);
            }
        }
        if let Some(old) = old {
            old.leg.farewell();
            self.group
                .logins
                .closed(old.target.region.as_str(), old.pid);
            self.group
                .sessions
                .totals
                .moved
                .fetch_add(1, Ordering::Relaxed);
        }
        self.recheck();
        Ok(())
    }

    /// What only a primary allows, or what belongs to the last moment.
    async fn finish_replay(
        &mut self,
        server: &mut Server,
        replayed: Option<Arc<Prepared>>,
    ) -> Result<(), MoveError> {
        let mut messages = Vec::new();
        let mut readies = 0;
        for channel in &self.track.sets.listens {
            query(
                &mut messages,
                &format!("LISTEN \"{}\"", channel.replace('"', "\"\"")),
            );
            readies += 1;
        }
        let listens = !self.track.sets.listens.is_empty();
        let unnamed = self.track.statements.unnamed().and_then(|p| p.frame());
        // Parsed ahead already, and no simple query in between has destroyed it.
        let there = !listens && replayed.as_ref().and_then(|p| p.frame()) == unnamed;
        if let Some(frame) = unnamed.filter(|_| !there) {
            messages.extend_from_slice(frame);
            put(&mut messages, b'S', &[]);
            readies += 1;
        }
        if readies == 0 {
            return Ok(());
        }
        let answer = server.ask(&messages, readies).await?;
        if let Some((sqlstate, message)) = answer.error {
            return Err(MoveError::Replay { sqlstate, message });
        }
        if !self.track.sets.listens.is_empty() {
            let notice = Report {
                severity: "NOTICE",
                sqlstate: "00000".into(),
                message: "the session has moved to another server; notifications sent meanwhile may be missing".into(),
                detail: Some(format!("LISTEN was repeated on region \"{}\".", server.target.region)),
                hint: None,
            };
            notice.notice(self.client.queue());
        }
        Ok(())
    }

    /// The session cannot be moved, as far as it is known.
    pub(crate) fn pinned(&self) -> bool {
        !self.pins().is_empty()
    }

    /// Asks the server for what pins the session there.
    pub(crate) async fn look_for_pins(&mut self) -> Result<(), End> {
        self.pins_wanted = false;
        self.track.watched = true;
        self.track.may_be_pinned = false;
        let mut message = Vec::new();
        query(&mut message, PINS);
        let found = self.question(&message, 1).await?;
        for reason in found.into_iter().flat_map(|a| a.rows).flatten() {
            self.track.sets.pin_found(reason);
        }
        self.handle.set_pins(self.pins());
        Ok(())
    }

    /// There is no server and a read waits: any server of the group will do that answers, the
    /// candidate first, since it is what the session moves to. False: the client was refused.
    pub(crate) async fn reach_for_read(&mut self) -> Result<bool, End> {
        let accepted = self.group.targets.accepted();
        if self.ready.is_none() {
            self.log_in_ahead();
            if let Some(ahead) = self.ahead.take()
                && let Ok(Ok(ready)) = ahead.await
            {
                self.ready = Some(ready);
            }
        }
        let made = match self.ready.take() {
            Some(ready) => Ok(ready),
            None => {
                let (group, startup) = (Arc::clone(&self.group), Arc::clone(&self.startup));
                prepare(group, Arc::clone(&accepted), startup, self.state(), false).await
            }
        };
        let result = match made {
            Ok(ready) => self.swap(ready).await,
            Err(e) => Err(e),
        };
        match result {
            Ok(()) => {
                self.chores().await?;
                Ok(self.server.is_some())
            }
            Err(e) => {
                let report =
                    refuse::unreachable(accepted.region.as_str(), Duration::ZERO, &e.chain());
                self.refuse_group(&report).await?;
                Ok(false)
            }
        }
    }

    /// The gate is open, a group waits, and there is no server.
    pub(crate) async fn need_server(&mut self) -> Result<(), End> {
        self.get_to_target().await?;
        if self.permit.is_none() && self.server.is_some() {
            self.handle.set_state(SessionState::Idle);
        }
        Ok(())
    }
}
