//! What the verbs take, beside the group in the path.
//!
//! Every request may also carry `run` and `epoch`, which are compared with the group before
//! anything is done ([`crate::Expect`]); the server takes them off before it reads the rest.
//! Durations are whole milliseconds. The rules between fields are in `check.rs`.

use serde::{Deserialize, Serialize};

use super::{FenceAnswer, RunKind};

/// `preflight --to R`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreflightRequest {
    /// The candidate's region.
    pub to: String,
    /// The move whose plan is wanted too: `switchover` or `failover`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<RunKind>,
}

/// `prepare --primary R --reason ID [--hold 20s | --reject]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// Must be the accepted primary's region.
    pub primary: String,
    /// Why, such as a ticket.
    pub reason: String,
    /// Instead of the configured answer.
    #[serde(default)]
    pub answer: Option<FenceAnswer>,
    /// Instead of the configured time a write is held; only with `hold`.
    #[serde(default)]
    pub hold_ms: Option<u64>,
}

/// `watch-drain [--region R] --max-wait 5m [--force]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatchDrain {
    /// If given, must be the accepted primary's region.
    #[serde(default)]
    pub region: Option<String>,
    /// When the drain gives up.
    pub max_wait_ms: u64,
    /// Cancels stragglers. Cancelling does not end them: their outcome still has to be seen.
    #[serde(default)]
    pub force: bool,
}

/// `promote --new-primary R --confirm [--accept-loss]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Promote {
    /// The candidate's region.
    pub new_primary: String,
    /// Must be true: there is no way back behind the point of no return.
    #[serde(default)]
    pub confirm: bool,
    /// Goes on although writes may be lost or unknown.
    #[serde(default)]
    pub accept_loss: bool,
}

/// `open-writes --primary R [--accept-loss]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenWrites {
    /// The region whose server is to take writes.
    pub primary: String,
    /// Goes on although the log does not show that nothing is lost.
    #[serde(default)]
    pub accept_loss: bool,
}

/// `verify --primary R`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verify {
    /// The region that should take writes now.
    pub primary: String,
}

/// `switchover --to R --reason ID [--budget 15s] [--force-stragglers]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwitchoverRequest {
    /// The candidate's region.
    pub to: String,
    /// Why, such as a ticket.
    pub reason: String,
    /// Instead of the configured time before the point of no return.
    #[serde(default)]
    pub budget_ms: Option<u64>,
    /// Cancels stragglers at the drain's deadline instead of rolling back.
    #[serde(default)]
    pub force_stragglers: bool,
}

/// `failover --to R --reason ID --accept-loss --confirm`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverRequest {
    /// The candidate's region.
    pub to: String,
    /// Why, such as an incident.
    pub reason: String,
    /// Must be true: what the old primary did not ship is lost.
    #[serde(default)]
    pub accept_loss: bool,
    /// Must be true.
    #[serde(default)]
    pub confirm: bool,
}

/// `drill --to R --reason ID [--fence-only] [--budget 15s]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillRequest {
    /// The region that would be the candidate.
    pub to: String,
    /// Why, such as the quarter's test.
    pub reason: String,
    /// Fences, drains, measures and reopens; the old primary itself is not touched.
    #[serde(default)]
    pub fence_only: bool,
    /// Instead of the configured time before the drill gives up.
    #[serde(default)]
    pub budget_ms: Option<u64>,
}

/// `abort`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Abort {}

/// `resume`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {}

/// `explain-sql TEXT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainSqlRequest {
    /// The text as a client would send it; several statements are allowed.
    pub sql: String,
    /// The database it is meant for; by default the only one in use, else the observer's.
    #[serde(default)]
    pub database: Option<String>,
}

/// `explain-http METHOD URL`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainHttpRequest {
    /// As a client would send it: upper case matters.
    pub method: String,
    /// A URL, or only its path and query.
    pub url: String,
    /// Lines such as `Name: value`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// The body, where it is text; null: none is given.
    #[serde(default)]
    pub body: Option<String>,
}

/// `unknown ack ID…|--all --reason TEXT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnknownAck {
    /// The writes to acknowledge; empty only with `all`.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Every write that is not acknowledged yet.
    #[serde(default)]
    pub all: bool,
    /// Why it is right to let them go; kept in the audit.
    pub reason: String,
}

/// `reload`: concerns the whole daemon, `POST /v1/reload`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reload {}

/// Answer of `reload`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// Keys whose new value is in force.
    pub applied: Vec<String>,
    /// Keys whose new value needs a restart; the old one stays in force.
    pub needs_restart: Vec<String>,
}
