//! What the operator decides: effects PostgreSQL lets pass in read-only mode although they
//! outlive the statement, and how strictly unknown functions are taken.
//!
//! An effect that is let pass makes its statement `Uncertain`, never `Read`: it runs while
//! fenced, but one in flight when the fence falls is still waited for.

use std::str::FromStr;

use super::finding::{Finding, Verdict};

macro_rules! effects {
    ($($(#[doc = $doc:expr])+ $variant:ident = $word:literal,)+) => {
        /// Something durable that PostgreSQL's read-only mode does not stop.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Effect { $($(#[doc = $doc])+ $variant,)+ }

        impl Effect {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its word in configuration and output; also the rule it decides by.
            pub fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

effects! {
    /// ALTER SYSTEM.
    AlterSystem = "alter-system",
    /// A transaction id taken by hand (`txid_current`): the session then counts as a writer.
    AssignXid = "assign-xid",
    /// SQL sent to another server (`dblink`).
    Dblink = "dblink",
    /// EXPLAIN ANALYZE of a statement that creates a table.
    ExplainCreate = "explain-create",
    /// Large objects written through `lo_*`.
    LargeObjects = "large-objects",
    /// Tables that lie on another server, where a SELECT may write; `file_fdw` is none of them.
    ForeignTables = "foreign-tables",
    /// LOAD of a library into the session's backend.
    Load = "load",
    /// LOCK TABLE in ACCESS EXCLUSIVE mode, which is logged for standbys; weaker locks pass.
    Lock = "lock",
    /// Messages for logical decoding (`pg_logical_emit_message`).
    LogicalMessage = "logical-message",
    /// VACUUM, ANALYZE, CLUSTER, REINDEX and the functions doing parts of their work.
    Maintenance = "maintenance",
    /// NOTIFY and `pg_notify`.
    Notify = "notify",
    /// Replication slots and origins.
    Replication = "replication",
    /// Functions that change the server itself (`pg_promote`, backup mode, system collations).
    Server = "server",
    /// Files and programs on the server: COPY TO a file or PROGRAM, `lo_export`, `pg_file_write`.
    ServerFiles = "server-files",
    /// Statistics reset or overwritten.
    Statistics = "statistics",
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase = "two-phase",
    /// Write-ahead log switched or marked (`pg_switch_wal`, `pg_create_restore_point`).
    Wal = "wal",
}

/// A word that names no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{word}\" is not an effect; accepted are {}", Effects::words())]
pub struct UnknownEffect {
    /// The word as given.
    pub word: String,
}

impl FromStr for Effect {
    type Err = UnknownEffect;

    fn from_str(word: &str) -> Result<Self, UnknownEffect> {
        let found = Self::ALL.iter().copied().find(|each| each.word() == word);
        found.ok_or_else(|| UnknownEffect {
            word: word.to_owned(),
        })
    }
}

/// A set of effects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Effects(u32);

impl Effects {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// The set and this effect.
    #[must_use]
    pub fn with(self, effect: Effect) -> Self {
        Self(self.0 | 1 << effect as u32)
    }

    /// Both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `effect` is in the set.
    pub fn contains(self, effect: Effect) -> bool {
        self.0 & (1 << effect as u32) != 0
    }

    fn words() -> String {
        Effect::ALL
            .iter()
            .map(|each| each.word())
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl FromIterator<Effect> for Effects {
    fn from_iter<I: IntoIterator<Item = Effect>>(effects: I) -> Self {
        effects.into_iter().fold(Self::NONE, Self::with)
    }
}

/// The operator's choices. The default is the safe side: no effect passes, and what is unknown is
/// left to wall two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    /// Effects that pass while fenced.
    pub pass: Effects,
    /// `functions.volatile = "refuse"`: a function, operator or type that is not known counts as
    /// a write instead of being left to wall two.
    pub strict: bool,
    /// The session has temporary tables, so a name without a schema may be one. PostgreSQL's
    /// read-only mode lets those be changed, and no others: what changes tables is left to it.
    pub temporaries: bool,
}

impl Policy {
    /// What an effect makes of its statement.
    pub(super) fn effect(&self, effect: Effect) -> Finding {
        let verdict = if self.pass.contains(effect) {
            Verdict::Uncertain
        } else {
            Verdict::Write
        };
        let mut finding = Finding::new(verdict, effect.word(), None);
        finding.nature.effects = Effects::NONE.with(effect);
        finding
    }

    /// A write that PostgreSQL tells from one to a temporary table.
    pub(super) fn unless_temporary(&self, rule: &'static str) -> Finding {
        let verdict = if self.temporaries {
            Verdict::Uncertain
        } else {
            Verdict::Write
        };
        Finding::new(verdict, rule, None)
    }

    /// What a name that is not known makes of its statement.
    pub(super) fn unknown(&self, rule: &'static str, name: impl Into<String>) -> Finding {
        let verdict = if self.strict {
            Verdict::Write
        } else {
            Verdict::Uncertain
        };
        Finding::new(verdict, rule, Some(name.into()))
    }
}
