//! The JSON documents of the admin API: the only types that cross the socket.
//!
//! Rules that hold for all: every top-level document carries `"api": 1`; times are RFC 3339 in
//! UTC; log positions (LSN) and system identifiers are text, since they do not fit a JavaScript
//! number; what is not known is `null`, never 0. Documents may gain fields, so readers ignore
//! unknown ones; requests refuse unknown fields, so that a misspelt flag is never dropped silently.

mod audit;
mod certificate;
mod check;
mod doc;
mod drain;
mod error;
mod exit;
mod http;
mod loss;
mod measured;
mod plan;
mod preflight;
mod request;
mod run;
mod session;
mod sql;
mod status;
mod step;
mod time;
mod unknown;
mod verb;

pub use audit::AuditPage;
pub use certificate::{Certificate, Evidence, EvidenceKind};
pub use check::Request;
pub use doc::{API, Api, Doc};
pub use drain::{Drain, DrainOutcome, LaneCounts, Straggler, StragglerKind};
pub use error::{ApiError, Code, ErrorDoc};
pub use exit::Exit;
pub use http::{ExplainHttp, ExplainHttpListener, HttpVerdict};
pub use loss::{DivergedLog, Loss};
pub use measured::Measured;
pub use plan::{Plan, PlannedStep};
pub use preflight::{Finding, Level, Preflight};
pub use request::{
    Abort, DrillRequest, ExplainHttpRequest, ExplainSqlRequest, FailoverRequest, OpenWrites,
    PreflightRequest, Prepare, Promote, Reload, ReloadReport, Resume, SwitchoverRequest,
    UnknownAck, Verify, WatchDrain,
};
pub use run::{Event, Left, Run, RunKind, RunProgress, RunState};
pub use session::{Moves, Pin, Replication, ReplicationKind, Session, SessionList, SessionState};
pub use sql::{ExplainSql, ExplainStatement, Verdict};
pub use status::{
    FenceAnswer, GroupStatus, InFlight, LaneStatus, Lanes, Phase, RegionStatus, Role, Status,
};
pub use step::{Step, StepRecord, StepState};
pub use time::Timestamp;
pub use unknown::{UnknownList, UnknownState, UnknownWrite};
pub use verb::Verb;

#[cfg(test)]
mod tests;
