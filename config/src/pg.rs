//! The PostgreSQL front: its listeners and how it judges statements.
//!
//! A listener is one address with one way to log in. How statements are judged belongs to the
//! group, not to a listener, because a fence stops and drains all listeners of a group together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::certmap::CertMap;
use crate::defaults;
use crate::effect::Effect;
use crate::error::ProblemKind;
use crate::raw::{Findings, Section};
use crate::tls::{self, Demand, ServerTls};
use crate::userlist::Userlist;
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
    /// Users with their secrets, in PgBouncer's format.
    pub users_file: Option<PathBuf>,
    /// Asks the accepted server for the secret of a user that is in no file; `$1` is the user.
    pub auth_query: Option<String>,
    /// Which users a client certificate is good for.
    pub cert_map: Option<PathBuf>,
    /// Who may log in here; none: whoever proves to be somebody.
    pub users: Option<Vec<String>>,
    /// Which databases are served here; none: all.
    pub databases: Option<Vec<String>>,
    /// TLS towards clients.
    pub tls: Option<ServerTls>,
}

/// How a session proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Everyone who reaches the listener is believed.
    Trust,
    /// SCRAM-SHA-256 is verified here.
    Scram,
    /// The client's certificate says who it is.
    Cert,
    /// Client and server settle it between them; such sessions cannot be moved.
    Passthrough,
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
        let words = "\"trust\", \"scram\", \"cert\", \"passthrough\"";
        let auth = section.require("auth", found, words, Auth::read);
        let sqlstate = section.word("sqlstate", defaults::SQLSTATE, found);
        let demand = match auth {
            Some(Auth::Cert) => Demand::VerifyCa,
            _ => defaults::LISTEN_TLS,
        };
        let users_file = section.read("users_file", found, users_file);
        let query = "a query for a user's name and secret, with $1 for the name";
        let auth_query = section.read("auth_query", found, value::text(query));
        let cert_map = section.read("cert_map", found, cert_map);
        let users = section.read("users", found, value::names);
        let databases = section.read("databases", found, value::names);
        let tls = ServerTls::read(section, demand, found);
        let listener = Self {
            address: address?,
            auth: auth?,
            sqlstate,
            users_file,
            auth_query,
            cert_map,
            users,
            databases,
            tls,
        };
        listener.check(section, found);
        listener.warn(section, found);
        Some(listener)
    }

    /// Each way to log in with what it needs, and nothing that it would not look at.
    fn check(&self, section: &Section<'_>, found: &mut Findings<'_>) {
        let auth = self.auth;
        let secrets = section.is_given("users_file") || section.is_given("auth_query");
        if auth == Auth::Scram && !secrets {
            let wrong = Wrong::value(
                "needs the users' secrets",
                "users_file or auth_query beside it",
            );
            found.problem(
                section.at("auth"),
                section.path("auth"),
                ProblemKind::Missing,
                wrong,
            );
        }
        let demand = self.tls.as_ref().map(|tls| tls.mode);
        if auth == Auth::Cert && demand != Some(Demand::VerifyCa) {
            let wrong = Wrong::value(
                "needs TLS with client certificates",
                "tls.cert, tls.key and tls.client_ca beside it, tls.mode = \"verify-ca\"",
            );
            found.problem(
                section.at("auth"),
                section.path("auth"),
                ProblemKind::Missing,
                wrong,
            );
        }
        let unused = [
            ("users_file", auth == Auth::Passthrough),
            ("auth_query", auth != Auth::Scram),
            ("cert_map", auth != Auth::Cert),
        ];
        for (key, unused) in unused {
            if unused && section.is_given(key) {
                let what = format!("is not looked at under auth = {:?}", auth.word());
                let wrong = Wrong::value(what, "a listener without it");
                found.problem(
                    section.at(key),
                    section.path(key),
                    ProblemKind::Conflict,
                    wrong,
                );
            }
        }
    }

    fn warn(&self, section: &Section<'_>, found: &mut Findings<'_>) {
        if self.auth == Auth::Trust && !self.address.ip().is_loopback() {
            let what = "believes everyone who reaches an address that is not of this machine alone; \
                        let only the network you trust reach it";
            found.warning(section.at("auth"), section.path("auth"), what.to_owned());
        }
    }
}

const USERS: &str =
    "a file of \"name\" \"secret\" lines that other users may not read (mode 0640 or less)";

fn users_file(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(value::text(USERS)(value)?);
    tls::closed(&path, USERS)?;
    loaded(&path, Userlist::load(&path), USERS)
}

fn cert_map(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let accepted = "a file of lines with a common name and a user";
    let path = PathBuf::from(value::text(accepted)(value)?);
    loaded(&path, CertMap::load(&path), accepted)
}

fn loaded<T>(path: &Path, read: Result<T, String>, accepted: &str) -> Result<PathBuf, Wrong> {
    read.map(|_| path.to_owned())
        .map_err(|what| Wrong::value(what, accepted))
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
    const WORDS: &'static [(&'static str, Self)] = &[
        ("trust", Self::Trust),
        ("scram", Self::Scram),
        ("cert", Self::Cert),
        ("passthrough", Self::Passthrough),
    ];
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
