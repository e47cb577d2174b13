//! Where downstream connects: one listener is one address that speaks one protocol.
//!
//! The kinds share a section, `[[group.X.listen]]`, so a key of one kind can be written under
//! another; that is refused here, since it would do nothing. What a kind's keys mean is said in
//! its own file.

use std::net::SocketAddr;

use crate::address;
use crate::error::ProblemKind;
use crate::http::{self, HttpListener};
use crate::pg::PgListener;
use crate::raw::{Findings, Section};
use crate::tcp::{self, TcpListener};
use crate::value::{Word, Wrong};

/// Where downstream connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listener {
    /// PostgreSQL's protocol.
    Postgres(PgListener),
    /// HTTP/1.1 and HTTP/2.
    Http(Box<HttpListener>),
    /// Any other protocol over TCP, which is not looked into.
    Tcp(TcpListener),
}

/// The fronts a listener may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// `postgres`.
    Postgres,
    /// `http`.
    Http,
    /// `tcp`.
    Tcp,
}

/// Keys that mean the same under every kind that has them.
const SHARED: &[&str] = &["kind", "address", "tls", "connections"];

impl Listener {
    /// Reads one listener; `None` if it has a problem.
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Option<Self> {
        let accepted = "\"postgres\", \"http\", \"tcp\"";
        let kind = section.require("kind", found, accepted, ListenerKind::read);
        let example = "an address such as \"127.0.0.1:6432\"";
        let address = section.require("address", found, example, address::listen);
        let kind = kind?;
        refuse_keys_of_other_kinds(kind, section, found);
        match kind {
            ListenerKind::Postgres => PgListener::read(address, section, found).map(Self::Postgres),
            ListenerKind::Http => HttpListener::read(address, section, found)
                .map(Box::new)
                .map(Self::Http),
            ListenerKind::Tcp => TcpListener::read(address, section, found).map(Self::Tcp),
        }
    }

    /// The socket it listens on.
    pub const fn address(&self) -> SocketAddr {
        match self {
            Self::Postgres(listener) => listener.address,
            Self::Http(listener) => listener.address,
            Self::Tcp(listener) => listener.address,
        }
    }

    /// It, if it speaks PostgreSQL's protocol.
    pub const fn postgres(&self) -> Option<&PgListener> {
        match self {
            Self::Postgres(listener) => Some(listener),
            Self::Http(_) | Self::Tcp(_) => None,
        }
    }

    /// Which front it is.
    pub const fn kind(&self) -> ListenerKind {
        match self {
            Self::Postgres(_) => ListenerKind::Postgres,
            Self::Http(_) => ListenerKind::Http,
            Self::Tcp(_) => ListenerKind::Tcp,
        }
    }
}

fn refuse_keys_of_other_kinds(kind: ListenerKind, section: &Section<'_>, found: &mut Findings<'_>) {
    let of_others = |key: &str| match kind {
        ListenerKind::Postgres => http::KEYS.contains(&key) || tcp::KEYS.contains(&key),
        ListenerKind::Http => !http::KEYS.contains(&key),
        ListenerKind::Tcp => !tcp::KEYS.contains(&key) || key == "tls",
    };
    for key in section.keys() {
        let shared = SHARED.contains(&key.as_str()) && !(kind == ListenerKind::Tcp && key == "tls");
        // What no kind knows was told of already.
        let known = crate::keys::node(&format!("group.*.listen.[].{key}")).is_some();
        if known && !shared && of_others(&key) {
            let what = format!("does nothing under kind = {:?}", kind.word());
            let wrong = Wrong::value(what, "a listener of another kind, or none of it");
            found.problem(
                section.at(&key),
                section.path(&key),
                ProblemKind::Conflict,
                wrong,
            );
        }
    }
}

impl Word for ListenerKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("postgres", Self::Postgres),
        ("http", Self::Http),
        ("tcp", Self::Tcp),
    ];
}
