//! What a statement does to its session or transaction, apart from whether it writes.
//!
//! The session follows these: it opens and closes transactions, replays settings after a repoint
//! and closes the ways out of wall two. Values of SET are not here; the session replays the
//! statement's own text.

/// The access mode a transaction statement asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// READ ONLY.
    ReadOnly,
    /// READ WRITE, also where both are given: the graver one is assumed.
    ReadWrite,
}

/// The kind of a statement. Names of settings and channels are as the server folds them; settings
/// are lower-case throughout, because the server compares them that way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the SQL command of its name")]
pub enum Kind {
    Other,
    Begin {
        access: Option<Access>,
    },
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint,
    Release,
    RollbackTo,
    PrepareTransaction,
    CommitPrepared,
    RollbackPrepared,
    SetTransaction {
        access: Option<Access>,
    },
    SetSessionCharacteristics {
        access: Option<Access>,
    },
    Set {
        name: String,
        local: bool,
    },
    Reset {
        name: String,
    },
    ResetAll,
    Show {
        name: String,
    },
    DiscardAll,
    Discard,
    Listen {
        channel: String,
    },
    Unlisten {
        channel: Option<String>,
    },
    Prepare {
        name: String,
    },
    Execute {
        name: String,
    },
    Deallocate {
        name: Option<String>,
    },
    DeclareCursor {
        hold: bool,
    },
    Fetch,
    CreateTemp,
    CopyFrom,
    CopyTo,
    /// CALL and DO: their code may end the transaction it runs in.
    Procedure,
}

/// The two settings wall two stands on.
pub(crate) fn is_read_only_setting(name: &str) -> bool {
    name.eq_ignore_ascii_case("transaction_read_only")
        || name.eq_ignore_ascii_case("default_transaction_read_only")
}

impl Kind {
    pub(super) fn is_transaction_end(&self) -> bool {
        match self {
            Self::Commit { .. } | Self::Rollback { .. } | Self::PrepareTransaction => true,
            Self::Other
            | Self::Begin { .. }
            | Self::Savepoint
            | Self::Release
            | Self::RollbackTo
            | Self::CommitPrepared
            | Self::RollbackPrepared
            | Self::SetTransaction { .. }
            | Self::SetSessionCharacteristics { .. }
            | Self::Set { .. }
            | Self::Reset { .. }
            | Self::ResetAll
            | Self::Show { .. }
            | Self::DiscardAll
            | Self::Discard
            | Self::Listen { .. }
            | Self::Unlisten { .. }
            | Self::Prepare { .. }
            | Self::Execute { .. }
            | Self::Deallocate { .. }
            | Self::DeclareCursor { .. }
            | Self::Fetch
            | Self::CreateTemp
            | Self::CopyFrom
            | Self::CopyTo
            | Self::Procedure => false,
        }
    }

    /// ROLLBACK TO is one because it undoes a SET LOCAL made after its savepoint; AND CHAIN
    /// because the new transaction inherits the access mode of the old one.
    pub(super) fn is_way_out(&self) -> bool {
        match self {
            Self::Begin { access }
            | Self::SetTransaction { access }
            | Self::SetSessionCharacteristics { access } => *access == Some(Access::ReadWrite),
            Self::Commit { chain } | Self::Rollback { chain } => *chain,
            Self::Set { name, .. } | Self::Reset { name } => is_read_only_setting(name),
            Self::RollbackTo | Self::ResetAll | Self::DiscardAll => true,
            Self::Other
            | Self::Savepoint
            | Self::Release
            | Self::PrepareTransaction
            | Self::CommitPrepared
            | Self::RollbackPrepared
            | Self::Show { .. }
            | Self::Discard
            | Self::Listen { .. }
            | Self::Unlisten { .. }
            | Self::Prepare { .. }
            | Self::Execute { .. }
            | Self::Deallocate { .. }
            | Self::DeclareCursor { .. }
            | Self::Fetch
            | Self::CreateTemp
            | Self::CopyFrom
            | Self::CopyTo
            | Self::Procedure => false,
        }
    }
}
