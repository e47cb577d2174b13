//! What a check found, as words that name the record.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::merkle::Hash;
use crate::api::{ApiError, Code};

/// One thing that is wrong. The check goes on behind it as far as it can tell anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// `edited`, `missing`, `reordered`, `torn`, `rolled_back`, `replaced`, `checkpoint`.
    pub kind: String,
    /// The record concerned, counted from 1; null where it is no single one.
    pub record: Option<u64>,
    /// The file.
    pub file: String,
    /// What was found, as a sentence.
    pub sentence: String,
}

/// The answer of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Records that were read.
    pub records: u64,
    /// Files that were read.
    pub segments: u64,
    /// The root of the records as found.
    pub root: String,
    /// The size that the newest checkpoint vouches for; null without one.
    pub signed_size: Option<u64>,
    /// Whether a key was given, so that the signatures were checked.
    pub signatures_checked: bool,
    /// What is wrong; empty if nothing is.
    pub damage: Vec<Damage>,
}

impl Damage {
    pub(super) fn new(
        kind: &str,
        record: impl Into<Option<u64>>,
        file: &str,
        sentence: impl Into<String>,
    ) -> Self {
        Self {
            kind: kind.to_owned(),
            record: record.into(),
            file: file.to_owned(),
            sentence: sentence.into(),
        }
    }
}

impl Verdict {
    pub(super) fn new(root: Hash) -> Self {
        Self {
            records: 0,
            segments: 0,
            root: root.to_string(),
            signed_size: None,
            signatures_checked: false,
            damage: Vec::new(),
        }
    }

    /// An error if anything is wrong, naming the first of it.
    ///
    /// # Errors
    /// `audit_damaged`.
    pub fn result(&self) -> Result<(), ApiError> {
        let Some(first) = self.damage.first() else {
            return Ok(());
        };
        let more = match self.damage.len() {
            1 => String::new(),
            n => format!(" (and {} more)", n - 1),
        };
        Err(ApiError::new(
            Code::AuditDamaged,
            format!("the audit does not hold: {first}{more}"),
        )
        .hint(
            "keep the directory as it is; compare with a copy or a checkpoint kept elsewhere, and \
             with the runs' own journals",
        ))
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            record,
            file,
            sentence,
        } = self;
        match record {
            Some(record) => write!(f, "{kind}: record {record} in {file}: {sentence}"),
            None => write!(f, "{kind}: {file}: {sentence}"),
        }
    }
}
