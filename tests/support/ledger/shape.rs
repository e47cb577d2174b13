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
    /// `POST` to an API that writes one row.
    ApiWrite,
    /// `POST` to an API that writes three rows, one after the other.
    ApiSteps,
    /// `GET` of an API that reads.
    ApiRead,
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
    /// Shapes that write through the HTTP front, where there is one.
    pub const API: [Self; 2] = [Self::ApiWrite, Self::ApiSteps];
    /// Shapes that only read.
    pub const READERS: [Self; 2] = [Self::Read, Self::ReadOnlyTransaction];

    /// Whether it writes.
    #[must_use]
    pub fn writes(self) -> bool {
        [&Self::WRITERS[..], &Self::STATEFUL, &Self::API]
            .iter()
            .any(|all| all.contains(&self))
    }

    /// Whether its acknowledgements promise durability. One that gave up waiting for the disk has
    /// no claim in a crash; in a planned move it must lose nothing all the same.
    #[must_use]
    pub const fn durable(self) -> bool {
        !matches!(self, Self::AsyncCommit)
    }

    /// Whether its rows come and go together.
    #[must_use]
    pub const fn is_atomic(self) -> bool {
        !matches!(self, Self::ApiSteps)
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
            | Self::Unnamed
            | Self::ApiWrite => 1,
            Self::Transaction | Self::Paused => 2,
            Self::Pipelined | Self::ApiSteps => 3,
            Self::Copy => 4,
            Self::Read | Self::ReadOnlyTransaction | Self::ApiRead => 0,
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
        let sql = Self::WRITERS.into_iter().chain(Self::STATEFUL);
        let mut all = sql.chain(Self::API);
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
            Self::ApiWrite => "api write",
            Self::ApiSteps => "api steps",
            Self::ApiRead => "api read",
        })
    }
}
