//! The PostgreSQL front: its listeners and how it judges statements.
//!
//! A listener is one address with one way to log in. How statements are judged belongs to the
//! group, not to a listener, because a fence stops and drains all listeners of a group together.

use std::net::SocketAddr;

use crate::defaults;
use crate::effect::Effect;
use crate::raw::{Findings, Section};
use crate::value::{self, Word, Wrong};

/// `[[group.X.listen]]` with `kind = "postgres"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PgListener {
    /// The socket to listen on.
    pub address: SocketAddr,
    /// How a session proves who it is.
    pub auth: Auth,
    /// The SQLSTATE of a refusal.
    pub sqlstate: Sqlstate,
}

/// How a session proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Everyone who reaches the listener is believed.
    Trust,
}

/// The SQLSTATE a refused write carries; which one decides whether a driver retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sqlstate {
    /// `25006`, read_only_sql_transaction: what a hot standby answers.
    ReadOnly,
    /// `57P03`, cannot_connect_now: some pools take it as "try again later".
    CannotConnectNow,
    /// `40001`, serialization_failure: frameworks that retry transactions do so.
    SerializationFailure,
}

impl Sqlstate {
    /// The five characters as sent.
    pub const fn code(self) -> &'static str {
        match self {
            Self::ReadOnly => "25006",
            Self::CannotConnectNow => "57P03",
            Self::SerializationFailure => "40001",
        }
    }
}

/// What happens to a call of a volatile or unknown function while fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volatile {
    /// It runs read-only on the server, which decides.
    Uncertain,
    /// It is a write.
    Refuse,
}

/// `[group.X.sql]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sql {
    /// Ask for the transaction's id before each COMMIT, one round trip, so that a commit whose
    /// answer was lost can be looked up afterwards.
    pub track_xid: bool,
    /// Effects that pass while fenced although they outlive their statement.
    pub pass: Vec<Effect>,
    /// `functions.volatile`.
    pub volatile: Volatile,
}

impl PgListener {
    pub(crate) fn read(
        address: Option<SocketAddr>,
        section: &Section<'_>,
        found: &mut Findings<'_>,
    ) -> Option<Self> {
        // No default: believing everyone is a choice somebody has to have written down.
        let auth = section.require("auth", found, "\"trust\"", Auth::read);
        let sqlstate = section.word("sqlstate", defaults::SQLSTATE, found);
        if section.is_given("tls") {
            let wrong = Wrong::later("is not in this version", "a file without it");
            found.problem(section.at("tls"), section.path("tls"), wrong.kind, wrong);
        }
        let listener = Self {
            address: address?,
            auth: auth?,
            sqlstate,
        };
        listener.warn(section, found);
        Some(listener)
    }

    fn warn(&self, section: &Section<'_>, found: &mut Findings<'_>) {
        if self.auth == Auth::Trust && !self.address.ip().is_loopback() {
            let what = "believes everyone who reaches an address that is not of this machine alone; \
                        let only the network you trust reach it";
            found.warning(section.at("auth"), section.path("auth"), what.to_owned());
        }
    }
}

impl Sql {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        let functions = section.section("functions");
        Self {
            track_xid: section
                .read("track_xid", found, value::switch)
                .unwrap_or(defaults::TRACK_XID),
            pass: section
                .read("pass", found, Effect::list)
                .unwrap_or_default(),
            volatile: functions.word("volatile", defaults::VOLATILE, found),
        }
    }
}

impl Word for Auth {
    const WORDS: &'static [(&'static str, Self)] = &[("trust", Self::Trust)];
    const LATER: &'static [&'static str] = &["scram", "cert", "passthrough"];
}

impl Word for Sqlstate {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("25006", Self::ReadOnly),
        ("57P03", Self::CannotConnectNow),
        ("40001", Self::SerializationFailure),
    ];
}

impl Word for Volatile {
    const WORDS: &'static [(&'static str, Self)] =
        &[("uncertain", Self::Uncertain), ("refuse", Self::Refuse)];
}
