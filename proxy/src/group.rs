//! What fails over as one: a gate, its targets, its sessions.
//!
//! Built once by `app`, shared by the fronts and by `control`. It has no behaviour of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::Semaphore;

use crate::gate::Gate;
use crate::http::HttpFigures;
use crate::http::classify::Rules;
use crate::pg::catalog::Catalogs;
use crate::pg::classify::Policy;
use crate::requests::Requests;
use crate::sessions::Sessions;
use crate::unknown::UnknownLedger;
use crate::upstream::{Region, Targets};

/// One group and its parts.
pub struct Group {
    /// Its name in the configuration.
    pub name: String,
    /// Admits its writes.
    pub gate: Arc<Gate>,
    /// The accepted target, the candidate and all regions.
    pub targets: Arc<Targets>,
    /// Live sessions.
    pub sessions: Arc<Sessions>,
    /// Open and held connections of the TCP front.
    pub connections: Arc<Requests>,
    /// The region that may serve reads while the accepted target's cannot be reached; kept ready by
    /// control.
    pub nearby: ArcSwapOption<Region>,
    /// How each HTTP listener judges requests.
    pub rules: Vec<(SocketAddr, Arc<Rules>)>,
    /// HTTP requests that write.
    pub requests: Arc<Requests>,
    /// What its HTTP listeners count.
    pub http: Arc<HttpFigures>,
    /// What its databases hold, for verdicts.
    pub catalogs: Catalogs,
    /// Writes with an unknown outcome.
    pub unknown: Arc<UnknownLedger>,
    /// Settings of the PostgreSQL front.
    pub settings: Settings,
    /// Bounds how many sessions log in ahead or move at once, so that a repoint is no login storm.
    pub moves: Arc<Semaphore>,
    /// Hears of each login upstream, so that a later start knows the backends of this one.
    pub logins: Box<dyn Logins>,
}

/// Hears of logins upstream (see `control`: after an unclean stop, a drain waits for them).
pub trait Logins: Send + Sync {
    /// A backend was opened for a session.
    fn opened(&self, region: &str, pid: i32);
    /// A backend was closed by us.
    fn closed(&self, region: &str, pid: i32);
}

/// For tests and for groups without durable state.
pub struct NoLogins;

impl Logins for NoLogins {
    fn opened(&self, _: &str, _: i32) {}
    fn closed(&self, _: &str, _: i32) {}
}

/// Settings of the PostgreSQL front, resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a login upstream may take.
    pub login_timeout: Duration,
    /// How long a client may take for its startup packet.
    pub startup_timeout: Duration,
    /// How long a statement waits for a target that cannot be reached, before it is refused.
    pub reach_timeout: Duration,
    /// Which effects pass as reads.
    pub policy: Policy,
    /// Ask for the transaction's id before each COMMIT.
    pub track_xid: bool,
    /// SQLSTATE of a refusal by the fence.
    pub sqlstate: &'static str,
    /// Most sessions at once.
    pub sessions: usize,
    /// Told to refused clients: come back after this long.
    pub retry_after: Duration,
}
