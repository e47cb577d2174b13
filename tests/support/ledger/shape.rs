//! The shapes of client that the ledger plays: each has its own way to be surprised by a move.

use std::fmt;

use serde::Serialize;

/// One way of using PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// Autocommit, simple protocol.
    Simple,
    /// Autocommit with parameters: Parse, Bind, Execute, Sync in one go.
    Extended,
    /// BEGIN, INSERT, INSERT, COMMIT, each awaited.
    Transaction,
    /// A statement prepared once and used ever after.
    Prepared,
    /// Several Executes per Sync, and several Syncs sent before the first answer.
    Pipelined,
    /// Autocommit that doesn't wait for the disk: `SET synchronous_commit = off`.
    AsyncCommit,
    /// `COPY … FROM STDIN`, simple protocol as psql does it.
    Copy,
    /// Autocommit SELECT.
    Read,
    /// SELECT in a READ ONLY transaction.
    ReadOnlyTransaction,
    /// BEGIN, SELECT, a pause, INSERT, a pause, INSERT, COMMIT.
    Paused,
    /// Writes only while its settings and its role are as it set them.
    Settings,
    /// `EXECUTE` of what `PREPARE` of SQL made once.
    SqlPrepared,
    /// Writes only while it listens to what it listened to once.
    Listener,
    /// A cursor inside a transaction, with a write between two fetches.
    Cursor,
    /// The unnamed statement, parsed once and executed ever after.
    Unnamed,
}

impl Shape {
    /// Shapes that write.
    pub const WRITERS: [Self; 7] = [
        Self::Simple,
        Self::Extended,
        Self::Transaction,
        Self::Prepared,
        Self::Pipelined,
        Self::AsyncCommit,
        Self::Copy,
    ];
    /// Shapes that write and rest on what their session has; one that lost it writes nothing and
    /// says so. They are slow on purpose, so gaps are not measured by them.
    pub const STATEFUL: [Self; 6] = [
        Self::Paused,
        Self::Settings,
        Self::SqlPrepared,
        Self::Listener,
        Self::Cursor,
        Self::Unnamed,
    ];
    /// Shapes that only read.
    pub const READERS: [Self; 2] = [Self::Read, Self::ReadOnlyTransaction];

    /// Whether it writes.
    #[must_use]
    pub fn writes(self) -> bool {
        Self::WRITERS.contains(&self) || Self::STATEFUL.contains(&self)
    }

    /// Whether its acknowledgements promise durability. One that gave up waiting for the disk has
    /// no claim in a crash; in a planned move it must lose nothing all the same.
    #[must_use]
    pub const fn durable(self) -> bool {
        !matches!(self, Self::AsyncCommit)
    }

    /// Rows that one operation inserts.
    #[must_use]
    pub const fn rows(self) -> i16 {
        match self {
            Self::Simple
            | Self::Extended
            | Self::Prepared
            | Self::AsyncCommit
            | Self::Settings
            | Self::SqlPrepared
            | Self::Listener
            | Self::Cursor
            | Self::Unnamed => 1,
            Self::Transaction | Self::Paused => 2,
            Self::Pipelined => 3,
            Self::Copy => 4,
            Self::Read | Self::ReadOnlyTransaction => 0,
        }
    }

    /// Its number in the table of rows.
    #[must_use]
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The shape of a number in the table.
    #[must_use]
    pub fn from_code(code: i16) -> Option<Self> {
        let mut all = Self::WRITERS.into_iter().chain(Self::STATEFUL);
        all.find(|shape| shape.code() == code)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Transaction => "transaction",
            Self::Prepared => "prepared",
            Self::Pipelined => "pipelined",
            Self::AsyncCommit => "async commit",
            Self::Copy => "copy",
            Self::Read => "read",
            Self::ReadOnlyTransaction => "read-only tx",
            Self::Paused => "paused tx",
            Self::Settings => "settings",
            Self::SqlPrepared => "sql prepared",
            Self::Listener => "listener",
            Self::Cursor => "cursor",
            Self::Unnamed => "unnamed",
        })
    }
}
