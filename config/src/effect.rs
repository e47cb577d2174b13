//! Effects that outlive a statement although PostgreSQL's read-only mode lets them pass.
//!
//! All of them are writes here unless `[group.X.sql] pass` names them. Some are harmless in one
//! house and fatal in another: a NOTIFY that reaches nobody after the switch is lost, a VACUUM is
//! merely repeated. The words are those by which a verdict names its rule.

use toml::de::DeValue;

use crate::value::{Word, Wrong};

/// One such effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// ALTER SYSTEM.
    AlterSystem,
    /// A transaction id taken by hand.
    AssignXid,
    /// SQL sent to another server.
    Dblink,
    /// EXPLAIN ANALYZE of a statement that creates a table.
    ExplainCreate,
    /// Tables that lie on another server.
    ForeignTables,
    /// Large objects.
    LargeObjects,
    /// LOAD of a library.
    Load,
    /// LOCK TABLE in a mode that standbys replay.
    Lock,
    /// Messages for logical decoding.
    LogicalMessage,
    /// VACUUM, ANALYZE, CLUSTER, REINDEX.
    Maintenance,
    /// NOTIFY.
    Notify,
    /// Replication slots and origins.
    Replication,
    /// Functions that change the server itself.
    Server,
    /// Files and programs on the server.
    ServerFiles,
    /// Statistics reset or overwritten.
    Statistics,
    /// PREPARE TRANSACTION and its ends.
    TwoPhase,
    /// Write-ahead log switched or marked.
    Wal,
}

impl Effect {
    /// Its word in the file and in verdicts.
    pub fn word(self) -> &'static str {
        Word::word(self)
    }

    /// All of them, in the order of their words.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::WORDS.iter().map(|(_, effect)| *effect)
    }

    /// Reads a list of words; an effect given twice counts once.
    pub(crate) fn list(value: &DeValue<'_>) -> Result<Vec<Self>, Wrong> {
        let accepted = || Self::WORDS.iter().map(|(word, _)| format!("{word:?}"));
        let accepted = || format!("a list of {}", accepted().collect::<Vec<_>>().join(", "));
        let Some(elements) = value.as_array() else {
            return Err(Wrong::value("is not a list", accepted()));
        };
        let mut effects = Vec::new();
        for element in elements.iter() {
            let effect = <Self as Word>::read(element.get_ref()).map_err(|wrong| Wrong {
                accepted: accepted(),
                ..wrong
            })?;
            if !effects.contains(&effect) {
                effects.push(effect);
            }
        }
        Ok(effects)
    }
}

impl Word for Effect {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("alter-system", Self::AlterSystem),
        ("assign-xid", Self::AssignXid),
        ("dblink", Self::Dblink),
        ("explain-create", Self::ExplainCreate),
        ("foreign-tables", Self::ForeignTables),
        ("large-objects", Self::LargeObjects),
        ("load", Self::Load),
        ("lock", Self::Lock),
        ("logical-message", Self::LogicalMessage),
        ("maintenance", Self::Maintenance),
        ("notify", Self::Notify),
        ("replication", Self::Replication),
        ("server", Self::Server),
        ("server-files", Self::ServerFiles),
        ("statistics", Self::Statistics),
        ("two-phase", Self::TwoPhase),
        ("wal", Self::Wal),
    ];
}
