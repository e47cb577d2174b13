//! What fails over as one: a gate, its targets, its sessions.
//!
//! Built once by `app`, shared by the fronts and by `control`. It has no behaviour of its own.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use tokio::sync::Semaphore;
use writefence_config::{Console, Tcp};

use crate::gate::Gate;
use crate::http::HttpFigures;
use crate::http::classify::Rules;
use crate::pg::catalog::Catalogs;
use crate::pg::classify::Policy;
use crate::pg::kicked::Lives;
use crate::pg::params::Params;
use crate::requests::Requests;
use crate::sessions::{Bounds, Sessions};
use crate::tcp::TcpFigures;
use crate::unknown::UnknownLedger;
use crate::upstream::{Region, Targets};

/// How each HTTP listener judges requests, by its address.
pub type Judges = Vec<(SocketAddr, Arc<Rules>)>;

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
    pub rules: ArcSwap<Judges>,
    /// HTTP requests that write.
    pub requests: Arc<Requests>,
    /// What its HTTP listeners count.
    pub http: Arc<HttpFigures>,
    /// What its TCP listeners count.
    pub tcp: Arc<TcpFigures>,
    /// What its databases hold, for verdicts.
    pub catalogs: Catalogs,
    /// Parameters that many sessions have alike.
    pub params: Params,
    /// The last look at whether the primary goes on, for sessions whose backend was ended.
    pub lives: Lives,
    /// Writes with an unknown outcome.
    pub unknown: Arc<UnknownLedger>,
    /// Settings of the PostgreSQL front, as they are now: a reload puts others in their place.
    pub settings: ArcSwap<Settings>,
    /// Bounds how many sessions log in ahead or move at once, so that a repoint is no login storm.
    pub moves: Arc<Semaphore>,
    /// Hears of each login upstream, so that a later start knows the backends of this one.
    pub logins: Box<dyn Logins>,
    /// What the console may ask of control; set once control is there.
    pub commands: OnceLock<Arc<dyn Commands>>,
}

impl Group {
    /// Another HTTP listener has come, or one has gone.
    pub fn set_rules(&self, address: SocketAddr, rules: Option<Arc<Rules>>) {
        self.rules.rcu(|known| {
            let mut all = Judges::clone(known);
            all.retain(|(at, _)| *at != address);
            all.extend(rules.clone().map(|rules| (address, rules)));
            all
        });
    }
}

/// What PgBouncer's console asks of control: the front itself changes no phase.
///
/// `by` is who asked, for the record. Every future may be dropped: what was begun goes on.
#[async_trait]
pub trait Commands: Send + Sync {
    /// Fences everything, reads too, and answers once that is durable.
    /// The answer names the pause.
    async fn pause(&self, by: &str) -> Result<String, Said>;
    /// Waits until nothing is in flight that this pause found. An error if another command overtakes
    /// it.
    async fn paused(&self, pause: &str) -> Result<(), Said>;
    /// Opens again what a pause has fenced, where it was.
    async fn resume(&self, by: &str) -> Result<(), Said>;
    /// Has the primary's name asked for again; followed only where the same server answers.
    async fn renew(&self) -> Result<(), Said>;
    /// Reads the configuration again; answers with the keys that need a restart.
    async fn reload(&self, by: &str) -> Result<Vec<String>, Said>;
    /// The configuration in force.
    fn config(&self) -> Vec<ConfigLine>;
}

/// Why control refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// One key of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigLine {
    /// Its path.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Its default, where it has one.
    pub default: Option<String>,
    /// A reload applies it.
    pub live: bool,
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
    /// Most sessions at once, of all, of a user and in a database.
    pub sessions: Bounds,
    /// A session that says nothing for this long is ended; zero: never.
    pub idle_timeout: Duration,
    /// The same inside of a transaction.
    pub idle_in_transaction_timeout: Duration,
    /// Most bytes of a client's message.
    pub message: usize,
    /// What the kernel does for connections of clients.
    pub tcp: Tcp,
    /// Who may use the console.
    pub console: Console,
    /// Told to refused clients: come back after this long.
    pub retry_after: Duration,
}
