//! A login on another server with the session's state in it.
//!
//! Made with the client's own startup parameters; then settings, role and prepared statements are
//! replayed. A setting that cannot be replayed stops the move. A statement that cannot be prepared
//! does not: it could not be executed where it is now either, since a prepared statement is planned
//! anew when what it names has changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thiserror::Error;

use super::frame::put;
use super::left::left;
use super::message::query;
use super::params::Pairs;
use super::server::Server;
use super::track::{DEFAULTS, Defaults, Prepared, set_config};
use crate::group::Group;
use crate::sessions::LoggingIn;
use crate::upstream::Target;
use crate::upstream::wire::{Login, LoginError, Proof, login_told};

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
    pub(crate) fn passes(&self) -> bool {
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
    /// Version of the state that was replayed; `None` when a part of it was not taken.
    pub(crate) version: Option<u64>,
    /// The unnamed statement that was replayed.
    pub(crate) unnamed: Option<Arc<Prepared>>,
    /// Until the session has taken it.
    pub(crate) under_way: LoggingIn,
}

/// What has to be replayed, copied out of the session.
#[derive(Clone)]
pub(crate) struct State {
    pub(crate) version: u64,
    /// What its login took from its role and database, where that is known.
    pub(crate) defaults: Option<Arc<Defaults>>,
    pub(crate) sets: Vec<String>,
    /// Parameters as the client was last told them.
    pub(crate) values: Vec<(String, String)>,
    pub(crate) statements: Vec<Arc<Prepared>>,
    pub(crate) unnamed: Option<Arc<Prepared>>,
    pub(crate) sql: Vec<String>,
    /// What the session ran last: explained once, it finds the new server's caches filled.
    pub(crate) warm: Vec<String>,
}

/// A statement of this name is there already: it was taken the first time.
const DUPLICATE: &str = "42P05";

/// Who a session's client is.
#[derive(Debug)]
pub(crate) struct Who {
    /// Its startup parameters, as they are sent upstream.
    pub(crate) params: Arc<Pairs>,
    /// The protocol's minor version that it speaks: asked for upstream too, where the server may
    /// speak a lower one.
    pub(crate) minor: u16,
    /// What its own login left behind.
    pub(crate) proof: Proof,
}

impl Who {
    fn param(&self, name: &str) -> Option<&str> {
        let found = self.params.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// How a session logs in: the client's parameters, and our user where the target names one. A
/// password that is configured for the server goes before what the client's login left.
pub(crate) fn login_as(target: &Target, who: &Who, timeout: Duration) -> Login {
    let mut params = who.params.to_vec();
    let client = who.param("user").unwrap_or_default();
    // The database of a client that names none is its user's; that must not change.
    let database = who.param("database").filter(|d| !d.is_empty());
    let database = database.unwrap_or(client);
    if let Some(user) = &target.user {
        if who.param("database").is_none() {
            params.push(("database".into(), database.to_owned()));
        }
        params.retain(|(n, _)| n != "user");
        params.insert(0, ("user".into(), user.clone()));
    }
    let configured = target.password_for(database, client);
    let proof = match configured {
        Some(password) => Proof::Password(password),
        // The client's own is no use for another user.
        None if target.user.is_some() => Proof::None,
        None => who.proof.clone(),
    };
    Login {
        params,
        minor: who.minor,
        proof,
        timeout,
    }
}

/// Logs in and replays.
pub(crate) async fn prepare(
    group: Arc<Group>,
    target: Arc<Target>,
    who: Arc<Who>,
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
    let timeout = group.settings.load().login_timeout;
    let as_whom = login_as(&target, &who, timeout);
    let under_way = group.sessions.logs_in(&target.region);
    let told = |address| under_way.at(address);
    let connected = tokio::select! {
        connected = login_told(&target.endpoint, &as_whom, &told) => connected,
        // Another server is wanted by now, and this one may never answer.
        () = left(&group, target.serial) => return Err(MoveError::Abandoned),
    };
    let connected = connected.inspect_err(|_| {
        group
            .sessions
            .totals
            .login_failures
            .fetch_add(1, Ordering::Relaxed);
    })?;
    group.logins.opened(target.region.as_str(), connected.pid);
    let mut server = Server::new(connected, target, &group.params);
    let whole = replay(&mut server, &state).await?;
    warm_up(&mut server, &state).await?;
    Ok(Ready {
        server,
        version: whole.then_some(state.version),
        unnamed: state.unnamed,
        under_way,
    })
}

/// Sends the state and waits for its answers. False: a prepared statement was not taken, which on
/// a standby may only mean that its table has not arrived yet.
pub(crate) async fn replay(server: &mut Server, state: &State) -> Result<bool, MoveError> {
    if let Some(had) = &state.defaults {
        defaults(server, had).await?;
    }
    let mut messages = Vec::new();
    let mut readies = 0;
    for sql in &state.sets {
        query(&mut messages, sql);
        readies += 1;
    }
    for (name, value) in &state.values {
        if BY_VALUE.contains(&name.as_str()) && server.param(name) != Some(value) {
            query(&mut messages, &set_config(name, value));
            readies += 1;
        }
    }
    if readies > 0
        && let Some((sqlstate, message)) = server.ask(&messages, readies).await?.error
    {
        return Err(MoveError::Replay { sqlstate, message });
    }
    statements(server, state).await
}

/// Gives a login the defaults that the session's own had. What is not taken any more (a tablespace
/// that is gone) would not be taken by a login either, so it ends nothing.
async fn defaults(server: &mut Server, had: &Defaults) -> Result<(), MoveError> {
    let mut question = Vec::new();
    query(&mut question, DEFAULTS);
    let told = server.ask(&question, 1).await?;
    let Some(new) = Defaults::read(&told.rows).filter(|_| told.error.is_none()) else {
        return Ok(());
    };
    for sql in had.against(&new) {
        let mut message = Vec::new();
        query(&mut message, &sql);
        if let Some((sqlstate, message)) = server.ask(&message, 1).await?.error {
            tracing::info!(sqlstate, message, "a default of the login was not taken");
        }
    }
    Ok(())
}

/// Prepares all statements in one go; only where one fails, each by itself.
async fn statements(server: &mut Server, state: &State) -> Result<bool, MoveError> {
    let mut each = Vec::new();
    for text in &state.sql {
        let mut message = Vec::new();
        query(&mut message, text);
        each.push(message);
    }
    for frame in state.statements.iter().filter_map(|p| p.frame()) {
        let mut message = frame.to_vec();
        put(&mut message, b'S', &[]);
        each.push(message);
    }
    if each.is_empty()
        || server
            .ask(&each.concat(), each.len())
            .await?
            .error
            .is_none()
    {
        return Ok(true);
    }
    let mut whole = true;
    for message in &each {
        if let Some((sqlstate, message)) = server.ask(message, 1).await?.error
            && sqlstate != DUPLICATE
        {
            tracing::debug!(sqlstate, message, "a prepared statement was not taken");
            whole = false;
        }
    }
    Ok(whole)
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
