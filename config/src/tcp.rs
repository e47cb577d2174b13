//! The TCP front: a protocol that is not looked into, so a connection as a whole may be writing.

use std::net::SocketAddr;

use crate::defaults;
use crate::raw::{Findings, Section};
use crate::value::{self, Word};

/// The keys of this kind, beside those that all kinds share.
pub(crate) const KEYS: &[&str] = &["service", "new", "old", "connections"];

/// `[[group.X.listen]]` with `kind = "tcp"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpListener {
    /// The socket to listen on.
    pub address: SocketAddr,
    /// Which of a region's `tcp.NAME` addresses it leads to; every region of the group has it.
    pub service: String,
    /// What a new connection meets while fenced.
    pub new: NewConnections,
    /// What a fence does with those that are open.
    pub old: OldConnections,
    /// Connections at a time.
    pub connections: usize,
}

/// What a new connection meets while fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewConnections {
    /// It is accepted, and waits as a held write does.
    Hold,
    /// It is closed at once.
    Refuse,
}

/// What a fence does with the connections that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldConnections {
    /// Nothing more is taken from their clients; they end once the server has answered.
    Close,
    /// They stay, and count as writing until they end.
    Keep,
}

impl TcpListener {
    pub(crate) fn read(
        address: Option<SocketAddr>,
        section: &Section<'_>,
        found: &mut Findings<'_>,
    ) -> Option<Self> {
        let example = "the NAME of the regions' tcp.NAME";
        let service = section.require("service", found, example, value::text(example));
        let new = section.word("new", defaults::TCP_NEW, found);
        let old = section.word("old", defaults::TCP_OLD, found);
        let connections = section.count("connections", &defaults::CONNECTIONS, found);
        if old == OldConnections::Keep {
            let what = "connections that stay may write, so no drain says `drained` while one is \
                        open; use it where clients reconnect by themselves within drain.deadline";
            found.warning(section.at("old"), section.path("old"), what.to_owned());
        }
        Some(Self {
            address: address?,
            service: service?,
            new,
            old,
            connections,
        })
    }
}

impl Word for NewConnections {
    const WORDS: &'static [(&'static str, Self)] =
        &[("hold", Self::Hold), ("refuse", Self::Refuse)];
}

impl Word for OldConnections {
    const WORDS: &'static [(&'static str, Self)] = &[("close", Self::Close), ("keep", Self::Keep)];
}
