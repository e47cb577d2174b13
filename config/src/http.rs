//! The HTTP front: its listeners, and the routes by which a request is judged.
//!
//! Without a route the method decides: what RFC 9110 calls safe is a read, everything else a
//! write. Routes are looked through in the order of the file and the first that fits decides.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use crate::defaults;
use crate::error::ProblemKind;
use crate::gate::Answer;
use crate::network::{self, Network};
use crate::pattern::{self, Pattern};
use crate::raw::{Findings, Section};
use crate::units;
use crate::value::{self, Word, Wrong, shown};

/// The keys of this kind, beside those that all kinds share.
pub(crate) const KEYS: &[&str] = &[
    "tls",
    "cors",
    "trusted_proxies",
    "health",
    "connections",
    "streams",
    "header_bytes",
    "header_timeout",
    "body_timeout",
    "idle_timeout",
    "read_timeout",
    "write_deadline",
    "websocket",
    "sse",
    "route",
];

/// `[[group.X.listen]]` with `kind = "http"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpListener {
    /// The socket to listen on.
    pub address: SocketAddr,
    /// HTTPS, with HTTP/2 by ALPN; none: HTTP/1.1 and HTTP/2 with prior knowledge.
    pub tls: Option<HttpTls>,
    /// Whether a refusal can be read by scripts of other origins.
    pub cors: Cors,
    /// Peers whose `Forwarded` and `X-Forwarded-*` are believed and added to.
    pub trusted_proxies: Vec<Network>,
    /// The path that is answered here, whatever the phase.
    pub health: Option<String>,
    /// Connections at a time.
    pub connections: usize,
    /// Streams at a time of one HTTP/2 connection; half of them may be held.
    pub streams: usize,
    /// Bytes of a request's line and headers.
    pub header_bytes: usize,
    /// From a connection's or a request's first byte to the end of its headers.
    pub header_timeout: Duration,
    /// Between two pieces of a request's body.
    pub body_timeout: Duration,
    /// A connection without a request.
    pub idle_timeout: Duration,
    /// A read without a byte from upstream.
    pub read_timeout: Duration,
    /// From a write's admission to the end of its answer; then its outcome is unknown.
    pub write_deadline: Duration,
    /// What becomes of WebSockets.
    pub websocket: Streams,
    /// What becomes of server-sent events.
    pub sse: Streams,
    /// In the order of the file.
    pub routes: Vec<Route>,
}

/// `tls.*` of an HTTP listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpTls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// Clients must show a certificate that one of these signed.
    pub client_ca: Option<PathBuf>,
}

/// `[[group.X.listen.route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Methods it is for, case-sensitive; none: all.
    pub methods: Vec<String>,
    /// Hosts it is for; none: all.
    pub host: Option<Pattern>,
    /// Paths it is for; none: all.
    pub path: Option<Pattern>,
    /// How a request that fits is judged.
    pub verdict: RouteVerdict,
    /// gRPC methods that only read, as `package.Service/Method`.
    pub reads: Vec<Pattern>,
    /// Bytes of a body that is read to judge it; beyond, it is a write.
    pub body_bytes: usize,
    /// How a fence answers here; none: as the fence says.
    pub answer: Option<Answer>,
    /// In place of the listener's.
    pub write_deadline: Option<Duration>,
    /// In place of the listener's.
    pub websocket: Option<Streams>,
    /// In place of the listener's.
    pub sse: Option<Streams>,
}

/// How a request is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteVerdict {
    /// By its method.
    Method,
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// By the operation that its GraphQL document selects.
    Graphql,
    /// By the list of gRPC methods that read.
    Grpc,
}

/// Whether a refusal can be read by scripts of other origins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cors {
    /// No such header: a script sees a network error.
    Off,
    /// The request's own origin is allowed to read it.
    Reflect,
}

/// What becomes of a stream that stays open: a WebSocket, server-sent events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// It may write: it counts as a write, and a fence closes it.
    Fence,
    /// It only reads: closed when the target moves.
    Repoint,
    /// It only reads, and stays until one of its ends closes it.
    Keep,
}

impl HttpListener {
    pub(crate) fn read(
        address: Option<SocketAddr>,
        section: &Section<'_>,
        found: &mut Findings<'_>,
    ) -> Option<Self> {
        let networks = section.read("trusted_proxies", found, network::networks);
        let health = section.read("health", found, health);
        let routes = section.listed("route");
        Some(Self {
            tls: HttpTls::read(&section.section("tls"), found),
            cors: section.word("cors", defaults::CORS, found),
            trusted_proxies: networks.unwrap_or_default(),
            health: health.unwrap_or_else(|| Some(defaults::HEALTH.to_owned())),
            connections: section.count("connections", &defaults::CONNECTIONS, found),
            streams: section.count("streams", &defaults::STREAMS, found),
            header_bytes: section.size("header_bytes", &defaults::HEADER_BYTES, found),
            header_timeout: section.duration("header_timeout", &defaults::HEADER_TIMEOUT, found),
            body_timeout: section.duration("body_timeout", &defaults::BODY_TIMEOUT, found),
            idle_timeout: section.duration("idle_timeout", &defaults::HTTP_IDLE_TIMEOUT, found),
            read_timeout: section.duration("read_timeout", &defaults::READ_TIMEOUT, found),
            write_deadline: section.duration("write_deadline", &defaults::WRITE_DEADLINE, found),
            websocket: section.word("websocket", defaults::WEBSOCKET, found),
            sse: section.word("sse", defaults::SSE, found),
            routes: routes.iter().map(|one| Route::read(one, found)).collect(),
            address: address?,
        })
    }
}

impl HttpTls {
    fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Option<Self> {
        if !section.is_present() {
            return None;
        }
        let file = "a file in PEM format";
        let cert = section.require("cert", found, file, value::text(file));
        let key = section.require("key", found, file, value::text(file));
        let client_ca = section.read("client_ca", found, value::text(file));
        Some(Self {
            cert: cert?.into(),
            key: key?.into(),
            client_ca: client_ca.map(PathBuf::from),
        })
    }
}

impl Route {
    fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        let deadline = &defaults::WRITE_DEADLINE;
        let route = Self {
            methods: section.read("method", found, methods).unwrap_or_default(),
            host: section.read("host", found, pattern::host),
            path: section.read("path", found, pattern::path),
            verdict: section.word("verdict", defaults::ROUTE_VERDICT, found),
            reads: section
                .read("reads", found, pattern::grpc)
                .unwrap_or_default(),
            body_bytes: section.size("body_bytes", &defaults::VERDICT_BODY_BYTES, found),
            answer: section.read("answer", found, Answer::read),
            write_deadline: section.read("write_deadline", found, units::duration(deadline)),
            websocket: section.read("websocket", found, Streams::read),
            sse: section.read("sse", found, Streams::read),
        };
        route.check(section, found);
        route
    }

    /// A key that does nothing under this verdict is a misunderstanding; a route that makes reads
    /// of everything is legal and unlikely to be meant.
    fn check(&self, section: &Section<'_>, found: &mut Findings<'_>) {
        let mut only = |key: &str, with: RouteVerdict| {
            if section.is_given(key) && self.verdict != with {
                let what = format!("does nothing under verdict = {:?}", self.verdict.word());
                let wrong = Wrong::value(what, format!("verdict = {:?}", with.word()));
                let (at, path) = (section.at(key), section.path(key));
                found.problem(at, path, ProblemKind::Conflict, wrong);
            }
        };
        only("reads", RouteVerdict::Grpc);
        only("body_bytes", RouteVerdict::Graphql);
        let everything = self.methods.is_empty() && self.path.is_none();
        if self.verdict == RouteVerdict::Read && everything {
            let what = "takes every request of its hosts for a read, so no fence stops any of them";
            found.warning(
                section.at("verdict"),
                section.path("verdict"),
                what.to_owned(),
            );
        }
    }
}

/// A method or a list of them.
fn methods(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
    let wrong = |value: &DeValue<'_>| {
        let what = format!("{} is not a method", shown(value));
        Wrong::value(
            what,
            "\"POST\" or a list such as [\"PUT\", \"POST\"]; upper case matters",
        )
    };
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let one = |value: &DeValue<'_>| match value.as_str() {
        Some(text) if !text.is_empty() && text.chars().all(token) => Ok(text.to_owned()),
        _ => Err(wrong(value)),
    };
    match value.as_array() {
        Some(list) if list.is_empty() => Err(wrong(value)),
        Some(list) => list.iter().map(|value| one(value.get_ref())).collect(),
        None => Ok(vec![one(value)?]),
    }
}

/// A path, or `off`.
fn health(value: &DeValue<'_>) -> Result<Option<String>, Wrong> {
    match value.as_str() {
        Some("off") => Ok(None),
        Some(path) if path.starts_with('/') && path.chars().all(|c| c.is_ascii_graphic()) => {
            Ok(Some(path.to_owned()))
        }
        _ => {
            let what = format!("{} is not a path", shown(value));
            Err(Wrong::value(
                what,
                "a path such as \"/-/healthy\", or \"off\"",
            ))
        }
    }
}

impl Word for RouteVerdict {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("method", Self::Method),
        ("read", Self::Read),
        ("write", Self::Write),
        ("graphql", Self::Graphql),
        ("grpc", Self::Grpc),
    ];
}

impl Word for Cors {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("reflect", Self::Reflect)];
}

impl Word for Streams {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("fence", Self::Fence),
        ("repoint", Self::Repoint),
        ("keep", Self::Keep),
    ];
}
