//! The names of the upstream side: region, endpoint, target, identity.
//!
//! A `Target` is one PostgreSQL server of a group as it is configured, plus the identity under
//! which it was accepted. Values here are plain and immutable; which target is in force is kept
//! in `repoint`.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use writefence_config::{Password, Secret, Tcp};

use super::{Link, Lsn, Timeline};

/// The name of a region, as configured. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(Arc<str>);

impl Region {
    /// Names a region.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name as written in the configuration.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a server listens: a host name or address, and a TCP port; how it is spoken to there, and
/// where that name led when it was last asked for, which are no part of what it is.
///
/// A name is resolved once and kept by all clones together: the server whose identity was checked is
/// the one that sessions log in to, whatever DNS says meanwhile. Control asks for it again with every
/// fence and whenever nobody answers, and sessions follow where the same server has answered.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Host name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// TLS and passwords.
    pub link: Arc<Link>,
    /// What the kernel does for connections to it. Shared, because errors carry endpoints.
    pub tcp: Arc<Tcp>,
    addresses: Arc<ArcSwap<Vec<SocketAddr>>>,
}

impl Endpoint {
    /// Names a server's listening address, spoken to in plain text with SCRAM only.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self::with_tcp(host, port, Tcp::default())
    }

    /// The same, with other wishes to the kernel.
    pub fn with_tcp(host: impl Into<String>, port: u16, tcp: Tcp) -> Self {
        Self {
            host: host.into(),
            port,
            link: Arc::default(),
            tcp: Arc::new(tcp),
            addresses: Arc::default(),
        }
    }

    /// The same address, spoken to in this way.
    #[must_use]
    pub fn over(self, link: Link) -> Self {
        Self {
            link: Arc::new(link),
            ..self
        }
    }

    /// Where the name led; empty until it was asked for.
    pub fn addresses(&self) -> Arc<Vec<SocketAddr>> {
        self.addresses.load_full()
    }

    /// Keeps where the name leads.
    pub fn keep(&self, addresses: Vec<SocketAddr>) {
        self.addresses.store(Arc::new(addresses));
    }

    /// Whether it is a name that DNS decides about.
    pub fn is_name(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_err()
    }

    /// The same name, to be asked for anew without changing what is kept.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self {
            addresses: Arc::default(),
            ..self.clone()
        }
    }
}

impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }
}

impl Eq for Endpoint {}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What makes a primary this primary and no other.
///
/// The timeline alone is not unique: two standbys promoted from the same timeline, unable to see
/// each other's history, both take the next number. The point of the fork tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Made by initdb, the same on all physical copies.
    pub system_identifier: u64,
    /// The timeline the server writes on.
    pub timeline: Timeline,
    /// Where this timeline left its parent; `None` when unknown and on timeline 1.
    pub fork_lsn: Option<Lsn>,
}

impl Identity {
    /// Whether both name the same primary. A fork point that only one side knows is not held
    /// against it; two known ones must agree.
    pub fn same_as(&self, other: &Self) -> bool {
        let forks_agree = match (self.fork_lsn, other.fork_lsn) {
            (Some(mine), Some(theirs)) => mine == theirs,
            (None, _) | (_, None) => true,
        };
        self.system_identifier == other.system_identifier
            && self.timeline == other.timeline
            && forks_agree
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "system {} timeline {}",
            self.system_identifier, self.timeline
        )?;
        match self.fork_lsn {
            Some(lsn) => write!(f, " forked at {lsn}"),
            None => Ok(()),
        }
    }
}

/// One server of a group: where it is, how to log in, and as what it was accepted.
#[derive(Clone, Debug)]
pub struct Target {
    /// The region it serves.
    pub region: Region,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Upstream user that replaces the client's own; `None` passes the client's name on.
    pub user: Option<String>,
    /// Passwords: that user's, or those of the sessions' own users.
    pub passwords: Password,
    /// The identity under which it was accepted as primary; `None` until the first check.
    pub identity: Option<Identity>,
    /// Changes exactly when sessions must be logged in anew: a session whose own serial differs
    /// from the accepted target's is on the wrong server.
    pub serial: u64,
}

impl Target {
    /// The password that is configured for a login of this user, who is replaced by the target's own
    /// where it has one. A password from the environment is that of the target's own user only.
    pub fn password_for(&self, database: &str, user: &str) -> Option<Secret<String>> {
        let Endpoint { host, port, .. } = &self.endpoint;
        match (&self.user, &self.passwords) {
            (Some(own), passwords) => passwords.lookup(host, *port, database, own),
            (None, Password::File(file)) => file.lookup(host, *port, database, user),
            (None, Password::Value(_) | Password::None) => None,
        }
    }
}
