//! [`Control`]: what the daemon can be asked to do, one method per verb.
//!
//! The server calls it, the daemon implements it; tests implement it too. Every method answers
//! soon: long work is started, journalled and left to the daemon, and the answer is the document
//! as it stands then. Only [`Control::progress`] and [`Control::drain`] wait, for as long as the
//! caller says and no longer.
//!
//! Cancellation: the methods that change something are run to their end by the server even if
//! the caller hangs up; the futures of methods that only look may be dropped at any await.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::{
    Abort, ApiError, AuditPage, Drain, DrillRequest, ExplainHttp, ExplainHttpRequest, ExplainSql,
    ExplainSqlRequest, FailoverRequest, OpenWrites, Preflight, PreflightRequest, Prepare, Promote,
    Reload, ReloadReport, Resume, Run, RunProgress, SessionList, Status, SwitchoverRequest,
    UnknownAck, UnknownList, Verify, WatchDrain,
};
use crate::report::Report;

/// What every method answers.
pub type Answer<T> = Result<T, ApiError>;

/// Who called: the peer's credentials as the kernel gave them when it connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id, where the system tells it.
    pub pid: Option<i32>,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid={} gid={}", self.uid, self.gid)?;
        match self.pid {
            Some(pid) => write!(f, " pid={pid}"),
            None => Ok(()),
        }
    }
}

/// What the caller expects to find; compared before anything is done (compare and set).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Expect {
    /// The live run's id; else `wrong_run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The group's epoch; else `wrong_epoch`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
}

/// One call of a verb: by whom, for which group, under which expectation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who called.
    pub actor: Actor,
    /// The group in the path; not yet known to exist.
    pub group: String,
    /// The comparison asked for.
    pub expect: Expect,
}

/// How long a looking call may wait for something newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wait {
    /// Events up to this number are known to the caller.
    pub after: u64,
    /// The longest wait; zero answers at once. Bounded by the server.
    pub at_most: Duration,
}

/// The daemon, as its operators see it.
pub trait Control: Send + Sync + 'static {
    /// What is, per group. Never waits for a database.
    fn status(&self) -> impl Future<Output = Answer<Status>> + Send;

    /// Who is connected.
    fn sessions(&self, group: &str) -> impl Future<Output = Answer<SessionList>> + Send;

    /// Writes of unknown outcome.
    fn unknown_list(&self, group: &str) -> impl Future<Output = Answer<UnknownList>> + Send;

    /// A run and its events after `wait.after`: answers as soon as there is one, or the run is no
    /// longer being worked on, or the wait is over.
    fn progress(&self, run: &str, wait: Wait) -> impl Future<Output = Answer<RunProgress>> + Send;

    /// The report of a run, also of one that ended long ago.
    fn report(&self, run: &str) -> impl Future<Output = Answer<Report>> + Send;

    /// Records of the audit behind number `after`, at most `limit`.
    fn audit(&self, after: u64, limit: usize) -> impl Future<Output = Answer<AuditPage>> + Send;

    /// A drain: answers as soon as it has an outcome, or `at_most` is over.
    fn drain(
        &self,
        group: &str,
        id: &str,
        at_most: Duration,
    ) -> impl Future<Output = Answer<Drain>> + Send;

    /// Checks the conditions of a move, with probes bounded well below the caller's 5 s.
    fn preflight(
        &self,
        call: Call,
        request: PreflightRequest,
    ) -> impl Future<Output = Answer<Preflight>> + Send;

    /// What the gate would say to a text.
    fn explain_sql(
        &self,
        call: Call,
        request: ExplainSqlRequest,
    ) -> impl Future<Output = Answer<ExplainSql>> + Send;

    /// What the gate would say to an HTTP request.
    fn explain_http(
        &self,
        call: Call,
        request: ExplainHttpRequest,
    ) -> impl Future<Output = Answer<ExplainHttp>> + Send;

    /// Opens a run of single steps and fences.
    fn prepare(&self, call: Call, request: Prepare) -> impl Future<Output = Answer<Run>> + Send;

    /// Starts a drain of the fence in force.
    fn watch_drain(
        &self,
        call: Call,
        request: WatchDrain,
    ) -> impl Future<Output = Answer<Drain>> + Send;

    /// Starts evidence, certificate, point of no return, promotion.
    fn promote(&self, call: Call, request: Promote) -> impl Future<Output = Answer<Run>> + Send;

    /// Starts opening writes on a proven primary. Answers with the run it belongs to; without one
    /// (a first start without state) with a run of its own. When writes are open there already:
    /// the last run, or one that is `done` from the start.
    fn open_writes(
        &self,
        call: Call,
        request: OpenWrites,
    ) -> impl Future<Output = Answer<Run>> + Send;

    /// Starts the checks after the move.
    fn verify(&self, call: Call, request: Verify) -> impl Future<Output = Answer<Run>> + Send;

    /// Starts the planned move, whole.
    fn switchover(
        &self,
        call: Call,
        request: SwitchoverRequest,
    ) -> impl Future<Output = Answer<Run>> + Send;

    /// Starts the unplanned move, whole.
    fn failover(
        &self,
        call: Call,
        request: FailoverRequest,
    ) -> impl Future<Output = Answer<Run>> + Send;

    /// Starts a rehearsal, which goes back by itself.
    fn drill(&self, call: Call, request: DrillRequest) -> impl Future<Output = Answer<Run>> + Send;

    /// Starts taking the live run back.
    fn abort(&self, call: Call, request: Abort) -> impl Future<Output = Answer<Run>> + Send;

    /// Goes on with an interrupted run.
    fn resume(&self, call: Call, request: Resume) -> impl Future<Output = Answer<Run>> + Send;

    /// Takes note of writes of unknown outcome; answers with the list as it is then.
    fn unknown_ack(
        &self,
        call: Call,
        request: UnknownAck,
    ) -> impl Future<Output = Answer<UnknownList>> + Send;

    /// Reads the configuration file again and applies what can change live.
    fn reload(
        &self,
        actor: Actor,
        request: Reload,
    ) -> impl Future<Output = Answer<ReloadReport>> + Send;
}
