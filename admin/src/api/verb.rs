//! The verbs: their names on the command line and in paths.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an operator can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// Conditions of a move, checked without moving.
    Preflight,
    /// Opens a run and fences.
    Prepare,
    /// Waits until what was admitted has ended.
    WatchDrain,
    /// Evidence, certificate, point of no return, promotion.
    Promote,
    /// Opens writes on a proven primary.
    OpenWrites,
    /// Checks the state after the move.
    Verify,
    /// The planned move, whole.
    Switchover,
    /// The unplanned move, whole.
    Failover,
    /// Takes a run back before its point of no return.
    Abort,
    /// Goes on with an interrupted run.
    Resume,
    /// Who is connected, and what keeps a session from moving.
    Sessions,
    /// What the gate would say to a statement.
    ExplainSql,
    /// Writes of unknown outcome.
    Unknown,
    /// Applies the configuration file again.
    Reload,
    /// A rehearsal: never past the point of no return.
    Drill,
    /// The report of a run.
    Report,
    /// What the gate would say to a request.
    ExplainHttp,
    /// Shows and verifies the audit chain.
    Audit,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 18] = [
        Self::Preflight,
        Self::Prepare,
        Self::WatchDrain,
        Self::Promote,
        Self::OpenWrites,
        Self::Verify,
        Self::Switchover,
        Self::Failover,
        Self::Abort,
        Self::Resume,
        Self::Sessions,
        Self::ExplainSql,
        Self::Unknown,
        Self::Reload,
        Self::Drill,
        Self::Report,
        Self::ExplainHttp,
        Self::Audit,
    ];

    /// The name, as in a path and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Prepare => "prepare",
            Self::WatchDrain => "watch-drain",
            Self::Promote => "promote",
            Self::OpenWrites => "open-writes",
            Self::Verify => "verify",
            Self::Switchover => "switchover",
            Self::Failover => "failover",
            Self::Abort => "abort",
            Self::Resume => "resume",
            Self::Sessions => "sessions",
            Self::ExplainSql => "explain-sql",
            Self::Unknown => "unknown",
            Self::Reload => "reload",
            Self::Drill => "drill",
            Self::Report => "report",
            Self::ExplainHttp => "explain-http",
            Self::Audit => "audit",
        }
    }

    /// The verb of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verb| verb.name() == name)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
