//! The list of downstream sessions, with what keeps each from moving.
//!
//! No statement text: that never leaves the daemon.

use serde::{Deserialize, Serialize};

/// `GET /v1/groups/{g}/sessions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionList {
    /// The group.
    pub group: String,
    /// Every session, oldest first.
    pub sessions: Vec<Session>,
    /// Replication connections. They hold no permit, and are ended when the primary moves.
    #[serde(default)]
    pub replication: Vec<Replication>,
}

/// One replication connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replication {
    /// Names it within the daemon.
    pub id: String,
    /// What it was opened for.
    pub kind: ReplicationKind,
    /// Database user.
    pub user: String,
    /// The client's address.
    pub client: String,
    /// As the client gave it.
    pub application_name: Option<String>,
    /// The region it is logged in to; null while it is logged in to none.
    pub region: Option<String>,
    /// Process id of its sender on the server.
    pub pid: Option<i32>,
    /// How long it has been connected, milliseconds.
    pub since_ms: u64,
}

/// What a replication connection was opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicationKind {
    /// The whole log (`replication=true`).
    Physical,
    /// The changes of one database (`replication=database`).
    Logical,
}

/// One downstream connection and what it is paired with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Names it within the daemon.
    pub id: String,
    /// Database user.
    pub user: String,
    /// Database.
    pub database: String,
    /// The client's address.
    pub client: Option<String>,
    /// As the client gave it.
    pub application_name: Option<String>,
    /// The region it is logged in to; null while it is logged in to none.
    pub region: Option<String>,
    /// What it is doing.
    pub state: SessionState,
    /// Process id of its backend on the server.
    pub pid: Option<i32>,
    /// Whether it could be moved to another target now, keeping its connection.
    pub movable: bool,
    /// What a move would do to it.
    pub moves: Moves,
    /// What would be set, prepared or listened to again on another target.
    pub replays: Vec<String>,
    /// Why it cannot be moved; empty if movable.
    pub pins: Vec<Pin>,
    /// How long it has been in this state, milliseconds.
    pub since_ms: u64,
}

/// What a session is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Logging in to a target for the first time.
    LoggingIn,
    /// Between statements, outside a transaction.
    Idle,
    /// A statement is with the server.
    Executing,
    /// Between statements, inside a transaction.
    InTransaction,
    /// A transaction that an AND CHAIN began is open and nothing is running.
    ChainedTransaction,
    /// A write of it waits for the gate.
    Held,
    /// Its client is gone, its write is not yet known to have ended.
    Orphaned,
    /// Being logged in to another target.
    Moving,
}

/// What a move would do to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moves {
    /// It is logged in elsewhere, and that is all.
    Movable,
    /// It is logged in elsewhere and its state is made there again.
    Replayable,
    /// It has something that cannot be made again: it is ended, with the reason.
    MustEnd,
    /// It is in a transaction or busy, and its server cannot be asked. It is asked before it is
    /// moved.
    Unknown,
}

/// Something a session has that cannot be taken along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// A stable word, such as `temporary_table`.
    pub kind: String,
    /// The sentence shown to the operator, and to the client when its session is ended.
    pub reason: String,
}
