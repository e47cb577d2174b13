//! Every default and every bound, with its unit and its reason: the only place numbers live.
//!
//! A bound is there to catch a slip of the pen, not to teach; where no sensible limit exists it is
//! wide. The example file shows the same values and a test compares the two.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::gate::{Answer, Begin, Order, Scope};
use crate::http::{Cors, RouteVerdict, Streams};
use crate::pg::{Sqlstate, Volatile};
use crate::tcp::{NewConnections, OldConnections};
use crate::telemetry::{LogFormat, LogLevel};
use crate::tls::Demand;
use crate::upstream::{Away, Driver, HttpVersion, Method};

/// A value with the range it may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds<T> {
    pub(crate) default: T,
    pub(crate) least: T,
    pub(crate) most: T,
}

const fn ms(default: u64, least: u64, most: u64) -> Bounds<Duration> {
    Bounds {
        default: Duration::from_millis(default),
        least: Duration::from_millis(least),
        most: Duration::from_millis(most),
    }
}

const fn count(default: usize, least: usize, most: usize) -> Bounds<usize> {
    Bounds {
        default,
        least,
        most,
    }
}

const fn size(default: usize, least: usize, most: usize) -> Bounds<usize> {
    count(default, least, most)
}

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;
const MIB: usize = 1 << 20;

// The file itself.

/// Bytes of a configuration file. Thousands of regions fit; a log or a dump given by mistake is
/// refused before it is parsed.
pub(crate) const FILE_BYTES: usize = MIB;

/// Bytes of a passfile, for the same reason.
pub(crate) const PASSFILE_BYTES: usize = MIB;

/// Bytes of a users file: some half a million users.
pub(crate) const USERS_BYTES: usize = 64 * MIB;

/// Syntax problems shown. After a few, the rest are echoes of the first.
pub(crate) const SYNTAX_PROBLEMS: usize = 10;

// [admin]

/// Where packages put sockets that do not outlive a boot.
pub(crate) const SOCKET: &str = "/run/writefence/admin.sock";

/// Bytes of a socket's path: the kernel's `sun_path` holds 108 with the final zero.
pub(crate) const SOCKET_PATH_BYTES: usize = 107;

/// Loopback, because metrics tell much about a database and are not guarded by a login.
pub(crate) const ADMIN_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);

/// Must survive a reboot and a redeployment: it is what a fence is remembered by.
pub(crate) const STATE_DIR: &str = "/var/lib/writefence";

// [log]

/// A person reads it first; collectors switch to JSON.
pub(crate) const LOG_FORMAT: LogFormat = LogFormat::Text;

/// Phase, target and run changes: a few lines a day.
pub(crate) const LOG_LEVEL: LogLevel = LogLevel::Info;

// [limits]

/// Sessions: as many as ten application servers with large pools. Each needs two file
/// descriptors, so more than half of `ulimit -n` cannot be served anyway.
pub(crate) const SESSIONS: Bounds<usize> = count(5_000, 1, 1_000_000);

/// A login over the slowest link takes two seconds. Longer lets a peer that sends nothing keep
/// one of the sessions; shorter cuts off clients on a machine that is starting up.
pub(crate) const LOGIN_TIMEOUT: Bounds<Duration> = ms(15 * SECOND, 100, HOUR);

/// A server across the world answers within a second, one behind a dead route never. Below the
/// drain's deadline, so that a session stuck in a login does not decide a drain.
pub(crate) const CONNECT_TIMEOUT: Bounds<Duration> = ms(5 * SECOND, 50, HOUR);

/// Held writes of a group: twice the sessions, so that HTTP requests have room beside them. Full,
/// the newcomer is refused and says so.
pub(crate) const HELD: Bounds<usize> = count(10_000, 0, 10_000_000);

/// Bytes of held writes of a group: some 6 KiB each at the count above. It is memory that a
/// fence may take on top of normal service, so it must fit into the container's limit.
pub(crate) const HELD_BYTES: Bounds<usize> = count(64 * MIB, 0, 1 << 40);

/// Held writes let go per millisecond: a full room is empty in 0.2 s. Much more and the new
/// primary, its caches still cold, meets all of them at once; much less and the gap grows.
pub(crate) const RELEASE_BURST: Bounds<usize> = count(50, 1, 100_000);

/// Logins to a new target at a time. PostgreSQL forks a process for each; a few dozen keep a
/// server's cores busy, and thousands at once would delay the writes that wait.
pub(crate) const MOVES: Bounds<usize> = count(32, 1, 10_000);

/// No limit of its own beside that of all sessions: how many one user needs is not ours to guess.
pub(crate) const SESSIONS_PER_USER: Bounds<usize> = count(0, 0, 1_000_000);

/// As for users.
pub(crate) const SESSIONS_PER_DATABASE: Bounds<usize> = count(0, 0, 1_000_000);

/// Off: pools keep connections open on purpose, and one that is cut surprises them.
pub(crate) const IDLE_TIMEOUT: Bounds<Duration> = ms(0, 0, 30 * DAY);

/// Off, as PostgreSQL's own. A transaction that is forgotten open keeps a drain waiting up to its
/// grace, so it is worth setting where applications are known.
pub(crate) const IDLE_IN_TRANSACTION_TIMEOUT: Bounds<Duration> = ms(0, 0, 30 * DAY);

/// What PostgreSQL itself takes; messages stream, so a large one costs no memory here.
pub(crate) const MESSAGE: Bounds<usize> = count(1 << 30, 16 << 10, 1 << 30);

// [tcp]

/// Shorter costs packets on thousands of idle connections; longer leaves a peer that vanished
/// without a word unnoticed, and many firewalls forget a silent connection after a minute.
pub(crate) const KEEPALIVE_IDLE: Bounds<Duration> = ms(10 * SECOND, SECOND, HOUR);

/// With the next: a peer that is gone is noticed after 10 s + 3 x 3 s of silence.
pub(crate) const KEEPALIVE_INTERVAL: Bounds<Duration> = ms(3 * SECOND, SECOND, HOUR);

/// One lost packet is not the end of a peer; three in a row are.
pub(crate) const KEEPALIVE_PROBES: Bounds<usize> = count(3, 1, 127);

/// Towards servers. Without it a write towards a server that lost power is repeated by the kernel
/// for some 15 minutes, and its permit with it. Longer than a short break of the network.
pub(crate) const UNACKNOWLEDGED: Bounds<Duration> = ms(15 * SECOND, SECOND, HOUR);

// [console] has no defaults: nobody may use it who is not named.

// [group.X.region.Y]

/// PostgreSQL's registered port.
pub(crate) const POSTGRES_PORT: u16 = 5432;

/// The only method that shows neither the password nor anything it could be found from, and that
/// proves the server too.
pub(crate) const PASSWORD_METHODS: &[Method] = &[Method::Scram];

// [[group.X.listen]]

/// A certificate is configured to be used; a client that does not is told so.
pub(crate) const LISTEN_TLS: Demand = Demand::Require;

/// Names in a list of users or databases. Longer lists are better kept by the server.
pub(crate) const NAMES: usize = 10_000;

/// What a hot standby says; drivers and pools that know failover look for it.
pub(crate) const SQLSTATE: Sqlstate = Sqlstate::ReadOnly;

/// Connections of an HTTP or TCP listener: as the sessions, since each has two descriptors too.
pub(crate) const CONNECTIONS: Bounds<usize> = count(5_000, 1, 1_000_000);

// [[group.X.listen]] with kind = "http"

/// Off: whether other origins may call an API is for the API to say. On, the refusal says no more
/// than its status and body.
pub(crate) const CORS: Cors = Cors::Off;

/// Beside the paths of applications, which begin with a word.
pub(crate) const HEALTH: &str = "/-/healthy";

/// What most servers allow of one HTTP/2 connection. Half of them may be held, so that reads of
/// the same connection always find a stream.
pub(crate) const STREAMS: Bounds<usize> = count(128, 2, 10_000);

/// What large cookies and tokens need, twice over. More is memory that any client can take.
pub(crate) const HEADER_BYTES: Bounds<usize> = size(64 << 10, 1 << 10, MIB);

/// Headers come in one piece or two; a client that needs longer is not there to be served.
pub(crate) const HEADER_TIMEOUT: Bounds<Duration> = ms(15 * SECOND, 100, HOUR);

/// Between two pieces of a body. An admitted write waits for its body as part of its work, so a
/// client that stops sending would hold up a drain.
pub(crate) const BODY_TIMEOUT: Bounds<Duration> = ms(30 * SECOND, 100, HOUR);

/// A little above the minute after which load balancers drop a connection: who closes first should
/// not be the server, because a request may be on its way.
pub(crate) const HTTP_IDLE_TIMEOUT: Bounds<Duration> = ms(75 * SECOND, SECOND, DAY);

/// What proxies in front usually wait.
pub(crate) const READ_TIMEOUT: Bounds<Duration> = ms(60 * SECOND, 100, DAY);

/// Longer than any sound write. The write may well be done then, and nobody knows: it is recorded
/// as unknown and blocks a drain, so this is no place to be impatient.
pub(crate) const WRITE_DEADLINE: Bounds<Duration> = ms(60 * SECOND, 100, DAY);

/// What cannot be looked into may write.
pub(crate) const WEBSOCKET: Streams = Streams::Fence;

/// Events only come; closed when the target moves, clients ask the new region for them.
pub(crate) const SSE: Streams = Streams::Repoint;

/// A route without a verdict is there for its other keys.
pub(crate) const ROUTE_VERDICT: RouteVerdict = RouteVerdict::Method;

/// A GraphQL request larger than this is hardly a query. It is memory that a fence may take for
/// each request.
pub(crate) const VERDICT_BODY_BYTES: Bounds<usize> = size(256 << 10, 0, 64 * MIB);

/// Bytes of a compiled pattern: thousands of alternatives fit.
pub(crate) const PATTERN_BYTES: usize = MIB;

// [[group.X.listen]] with kind = "tcp"

/// As with writes: what waits has seen no error.
pub(crate) const TCP_NEW: NewConnections = NewConnections::Hold;

/// Only a connection that has ended is known not to write.
pub(crate) const TCP_OLD: OldConnections = OldConnections::Close;

// [group.X.region.Y] http

/// By agreement under TLS; without, HTTP/1.1, which every server speaks.
pub(crate) const HTTP_VERSION: HttpVersion = HttpVersion::Auto;

// [group.X.sql]

/// Off, because it costs every transaction a round trip. Off, a commit whose answer was lost can
/// be resolved only if a probe happened to see its transaction id.
pub(crate) const TRACK_XID: bool = false;

// `pass` has no constant: none of the effects passes, because each outlives its statement.

/// The server's read-only mode judges what the text cannot tell. Refusing instead would stop
/// most applications' reads too, since `random()` and every function of their own are volatile.
pub(crate) const VOLATILE: Volatile = Volatile::Uncertain;

// [group.X.observer]

/// The role every cluster has; the barrier and the promotion need a superuser's rights.
pub(crate) const OBSERVER_USER: &str = "postgres";

/// The database every cluster has.
pub(crate) const OBSERVER_DATABASE: &str = "postgres";

/// Two probes of a server are this far apart. A failure is told from a hiccup by several probes,
/// so this is the grain of that decision; one small query a second costs a server nothing.
pub(crate) const OBSERVER_INTERVAL: Bounds<Duration> = ms(SECOND, 100, HOUR);

/// A probe without an answer has failed: twice the interval, since a checkpoint on slow storage
/// delays a healthy server's answer by more than a second.
pub(crate) const OBSERVER_TIMEOUT: Bounds<Duration> = ms(2 * SECOND, 50, HOUR);

// [group.X.driver]

/// Needs nothing but the observer's login.
pub(crate) const DRIVER: Driver = Driver::Postgres;

// [group.X.fence]

/// A write that waits is no error to anyone; one that is refused is an error to most programs.
pub(crate) const ANSWER: Answer = Answer::Hold;

/// Longer than the run's budget, so that a run that rolls back still finds its writes waiting;
/// shorter than the 30 s after which drivers and load balancers give up by themselves.
pub(crate) const HOLD: Bounds<Duration> = ms(20 * SECOND, 1, HOUR);

/// Under hold, read-then-write transactions see no error; under reject, reads still flow.
pub(crate) const BEGIN: Begin = Begin::Auto;

/// An admitted request can still do its SQL.
pub(crate) const ORDER: Order = Order::HttpFirst;

/// Reads are undisturbed.
pub(crate) const SCOPE: Scope = Scope::Writes;

/// Requests that take longer than this are rare; the sql lane then closes under them, which
/// costs them an error and nobody a write.
pub(crate) const HTTP_DEADLINE: Bounds<Duration> = ms(5 * SECOND, 0, HOUR);

// [group.X.drain]

/// Most transactions end within it by themselves. Longer only delays everyone who waits.
pub(crate) const GRACE: Bounds<Duration> = ms(3 * SECOND, 0, HOUR);

/// After this a drain says `timed_out` and names who is in the way. It leaves the run seven
/// seconds of its budget for the promotion.
pub(crate) const DEADLINE: Bounds<Duration> = ms(8 * SECOND, 0, HOUR);

// [group.X.run]

/// A switchover takes about a second. One that has not come to its point of no return by now is
/// stuck, and rolling back while the held writes still wait costs nobody an error.
pub(crate) const BUDGET: Bounds<Duration> = ms(15 * SECOND, 1, HOUR);

// [group.X.reads]

/// Older data surprises users; a standby in a healthy group is far below.
pub(crate) const MAX_LAG: Bounds<Duration> = ms(5 * SECOND, 0, DAY);

/// A read from another region is better than an error, as long as its data is young enough.
pub(crate) const AWAY: Away = Away::Other;

// [group.X.objectives]

/// No default: what a business can bear is not ours to guess. Only the range is given here.
pub(crate) const OBJECTIVE: Bounds<Duration> = ms(0, 0, 30 * DAY);
