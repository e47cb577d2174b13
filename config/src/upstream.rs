//! Regions, the servers in them, and our own login to those servers.
//!
//! A region's `postgres` is written like a libpq keyword string, because that is what an operator
//! has at hand; only what we use of it is accepted, and everything else is refused by name.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::address;
use crate::defaults;
use crate::error::ProblemKind;
use crate::moment::{self, Program};
use crate::passfile::Password;
use crate::raw::{Findings, Section};
use crate::tls::RegionTls;
use crate::units;
use crate::value::{self, Word, Wrong};

/// One upstream server address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A host name or an IP address, as written.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// `[group.X.region.Y]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The region's name, unique in its group.
    pub name: String,
    /// Its PostgreSQL server; every region of a group has one, or none has.
    pub postgres: Option<Endpoint>,
    /// Its HTTP origin; there if the group has an HTTP listener.
    pub http: Option<String>,
    /// What is spoken to that origin.
    pub http_version: HttpVersion,
    /// Who signs that origin's certificate, PEM; none: whom the system trusts.
    pub http_ca: Option<PathBuf>,
    /// Its other servers, by the name that TCP listeners know them by, in the order of the file.
    pub tcp: Vec<(String, Endpoint)>,
    /// The user all sessions log in as upstream; none: the session's own.
    pub user: Option<String>,
    /// The password for that login; a passfile may hold those of the sessions' own users too.
    pub password: Password,
    /// Its member's name in Patroni; none: found by host and port.
    pub member: Option<String>,
    /// How a password may be used where the server asks for one.
    pub password_methods: Vec<Method>,
    /// TLS towards it, for the sessions as for the observer.
    pub tls: RegionTls,
}

/// A way to use a password that a server may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// SCRAM-SHA-256, with channel binding where the server has it.
    Scram,
    /// A hash that can be replayed against other servers that hold the same.
    Md5,
    /// In clear text.
    Cleartext,
}

/// What is spoken to an HTTP origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// By ALPN under TLS, HTTP/1.1 without.
    Auto,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge where there is no TLS. gRPC needs it.
    Http2,
}

/// `[group.X.observer]`: our own login for probes, evidence and promotion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observer {
    /// The role; promotion and the barrier need a superuser or the rights that `preflight` names.
    pub user: String,
    /// The database to log in to.
    pub database: String,
    /// The password for that login.
    pub password: Password,
    /// Time between two probes of one server.
    pub interval: Duration,
    /// A probe without an answer for this long has failed.
    pub timeout: Duration,
}

/// `[group.X.driver]`: how a candidate is promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// What promotes.
    pub means: DriverMeans,
    /// How long a promotion may take.
    pub timeout: Duration,
}

/// What promotes a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DriverMeans {
    /// SQL through the observer's login.
    Postgres,
    /// Patroni's REST API, at the first of these addresses that answers.
    Patroni(Vec<String>),
    /// A program, JSON in and JSON out.
    Command(Program),
}

/// The word in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverKind {
    Postgres,
    Patroni,
    Command,
}

/// `[group.X.reads]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reads {
    /// A region further behind than this serves no reads in the primary's stead.
    pub max_lag: Duration,
    /// Where reads go while the primary cannot be reached.
    pub away: Away,
}

/// Where HTTP reads go while the primary's region cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// Nowhere else.
    Stay,
    /// To another region that is not too far behind.
    Other,
}

/// `[group.X.objectives]`: what a report measures a run against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objectives {
    /// The longest write gap that is acceptable.
    pub rto: Option<Duration>,
    /// The most recent data, in time, that may be lost.
    pub rpo: Option<Duration>,
}

impl Region {
    /// Reads one region; `None` if it has a problem.
    pub(crate) fn read(
        name: String,
        section: &Section<'_>,
        found: &mut Findings<'_>,
    ) -> Option<Self> {
        let postgres = section.read("postgres", found, address::postgres);
        // Whether it may be left out is a matter of the group; see `resolve`.
        if postgres.is_none() && section.is_given("postgres") {
            return None;
        }
        let user = section.read("user", found, value::text("a role's name"));
        let http = section.read("http", found, address::http);
        let http_version = section.word("http_version", defaults::HTTP_VERSION, found);
        let file = "a file in PEM format";
        let http_ca = section.read("http_ca", found, value::text(file));
        let tcp = Self::services(&section.section("tcp"), found);
        let password = Password::read(section, found);
        let member = section.read("member", found, value::text("a Patroni member's name"));
        Some(Self {
            name,
            postgres,
            http,
            http_version,
            http_ca: http_ca.map(PathBuf::from),
            tcp,
            user,
            password,
            member,
            password_methods: section
                .read("password_methods", found, value::list_of::<Method>)
                .unwrap_or_else(|| defaults::PASSWORD_METHODS.to_vec()),
            tls: RegionTls::read(section, found),
        })
    }
}

impl Region {
    fn services(section: &Section<'_>, found: &mut Findings<'_>) -> Vec<(String, Endpoint)> {
        let names = section.keys();
        let service = |name: String| {
            let endpoint = section.read(&name, found, address::tcp)?;
            Some((name, endpoint))
        };
        names.into_iter().filter_map(service).collect()
    }

    /// The server that TCP listeners know by this name.
    pub fn service(&self, name: &str) -> Option<&Endpoint> {
        let (_, endpoint) = self.tcp.iter().find(|(known, _)| known == name)?;
        Some(endpoint)
    }
}

impl Observer {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        let user = section.read("user", found, value::text("a role's name"));
        let database = section.read("database", found, value::text("a database's name"));
        Self {
            user: user.unwrap_or_else(|| defaults::OBSERVER_USER.to_owned()),
            database: database.unwrap_or_else(|| defaults::OBSERVER_DATABASE.to_owned()),
            password: Password::read(section, found),
            interval: section.duration("interval", &defaults::OBSERVER_INTERVAL, found),
            timeout: section.duration("timeout", &defaults::OBSERVER_TIMEOUT, found),
        }
    }
}

impl Reads {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        Self {
            max_lag: section.duration("max_lag", &defaults::MAX_LAG, found),
            away: section.word("away", defaults::AWAY, found),
        }
    }
}

impl Objectives {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        let mut objective = |key| section.read(key, found, units::duration(&defaults::OBJECTIVE));
        Self {
            rto: objective("rto"),
            rpo: objective("rpo"),
        }
    }
}

impl Driver {
    /// Reads it; with a problem it is as if nothing was given, and the problem counts.
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        let kind = section.word("kind", defaults::DRIVER, found);
        let of = |key: &str, kind: &str, found: &mut Findings<'_>| {
            let wrong = Wrong::value(format!("is for kind = {kind:?}"), "a file without it");
            found.problem(
                section.at(key),
                section.path(key),
                ProblemKind::Conflict,
                wrong,
            );
        };
        if kind != DriverKind::Patroni && section.is_given("url") {
            of("url", "patroni", found);
        }
        if kind != DriverKind::Command && section.is_given("command") {
            of("command", "command", found);
        }
        let means = match kind {
            DriverKind::Postgres => DriverMeans::Postgres,
            DriverKind::Patroni => {
                let example = "the address of Patroni's REST API, or a list of several";
                let urls = section.require("url", found, example, moment::urls);
                DriverMeans::Patroni(urls.unwrap_or_default())
            }
            DriverKind::Command => {
                let example = "a list such as [\"/usr/local/bin/program\", \"argument\"]";
                let program = section.require("command", found, example, moment::program);
                DriverMeans::Command(program.unwrap_or_default())
            }
        };
        Self {
            means,
            timeout: section.duration("timeout", &defaults::DRIVER_TIMEOUT, found),
        }
    }

    pub(crate) fn kind(&self) -> DriverKind {
        match self.means {
            DriverMeans::Postgres => DriverKind::Postgres,
            DriverMeans::Patroni(_) => DriverKind::Patroni,
            DriverMeans::Command(_) => DriverKind::Command,
        }
    }
}

impl Word for DriverKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("postgres", Self::Postgres),
        ("patroni", Self::Patroni),
        ("command", Self::Command),
    ];
}

impl Word for HttpVersion {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("1.1", Self::Http1),
        ("2", Self::Http2),
    ];
}

impl Word for Away {
    const WORDS: &'static [(&'static str, Self)] = &[("stay", Self::Stay), ("other", Self::Other)];
}

impl Word for Method {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("scram-sha-256", Self::Scram),
        ("md5", Self::Md5),
        ("password", Self::Cleartext),
    ];
}
