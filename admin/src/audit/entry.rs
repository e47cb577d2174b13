//! One record, and its one form as bytes.
//!
//! A record is a JSON object whose keys stand in alphabetical order, without spaces, with whole
//! numbers only: for such objects that is the canonical form of RFC 8785. A line that is not in this
//! form was not written by this program, even if it means the same.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::merkle::{Hash, leaf_hash};
use crate::api::{Timestamp, Verb};

/// The longest line that is read or written, bytes. The texts in it are sentences; a longer line is
/// no record of ours, and must not make a verifier take all memory.
pub(super) const LONGEST: usize = 64 * 1024;

/// The longest text within a record, bytes; longer ones are cut and say so.
const LONGEST_TEXT: usize = 4 * 1024;

/// What happened. What is not known or does not apply is null.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Wall-clock time.
    pub at: Timestamp,
    /// Time since the machine's start, suspensions included, milliseconds: not set back by anybody.
    pub boot_ms: u64,
    /// What kind of event.
    pub event: Event,
    /// Who, or `writefence` where nobody asked.
    pub actor: String,
    /// How it ended, as a word: `accepted`, `done`, `fenced`, or an error's code.
    pub outcome: String,
    /// The group concerned.
    pub group: Option<String>,
    /// The run concerned.
    pub run: Option<String>,
    /// The verb that was used.
    pub verb: Option<Verb>,
    /// The group's epoch.
    pub epoch: Option<u64>,
    /// The operator's reason.
    pub reason: Option<String>,
    /// Further facts by name, as text.
    pub facts: BTreeMap<String, String>,
}

/// Kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The daemon began or ended a life.
    Daemon,
    /// A verb was accepted or refused.
    Verb,
    /// A phase is about to change or has changed.
    Phase,
    /// A step of a run ended.
    Step,
    /// A run changed its state or learned something it rests on.
    Run,
    /// A run that moved the primary ended: the summary.
    RegionFailover,
    /// A write of unknown outcome was acknowledged or resolved.
    Unknown,
    /// The configuration was read again.
    Reload,
    /// Two sides were seen that could both take writes.
    SplitBrain,
    /// Records could not be written, and are missing before this one.
    Gap,
}

/// A record in its place: the entry, its number, and the hash of the record before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1 over all segments.
    pub seq: u64,
    /// The leaf hash of the record before; of nothing for the first.
    pub prev: Hash,
    /// What happened.
    pub entry: Entry,
}

/// A line that is not a record of ours.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    /// It is longer than any record.
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    /// It cannot be read.
    #[error("it is not a record: {0}")]
    NotARecord(String),
    /// It can be read, and is written in another way than this program writes.
    #[error("it is not in the form in which records are written")]
    OtherForm,
}

/// The fields on disk. Their order here is their order there: alphabetical.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    actor: String,
    at: Timestamp,
    boot_ms: u64,
    epoch: Option<u64>,
    event: Event,
    facts: BTreeMap<String, String>,
    group: Option<String>,
    outcome: String,
    prev: String,
    reason: Option<String>,
    run: Option<String>,
    seq: u64,
    v: u32,
    verb: Option<Verb>,
}

/// Format of a record.
const VERSION: u32 = 1;

impl Entry {
    /// An event of this moment that nobody asked for; the rest is for the caller to fill in.
    #[must_use]
    pub fn new(event: Event, outcome: impl Into<String>) -> Self {
        Self {
            at: Timestamp::now(),
            boot_ms: 0,
            event,
            actor: "writefence".to_owned(),
            outcome: outcome.into(),
            group: None,
            run: None,
            verb: None,
            epoch: None,
            reason: None,
            facts: BTreeMap::new(),
        }
    }

    /// Adds a fact.
    #[must_use]
    pub fn fact(mut self, name: &str, text: impl fmt::Display) -> Self {
        self.facts.insert(name.to_owned(), text.to_string());
        self
    }
}

impl Line {
    /// The record's bytes, without the newline that ends its line.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let entry = &self.entry;
        let raw = Raw {
            actor: cut(&entry.actor),
            at: entry.at,
            boot_ms: entry.boot_ms,
            epoch: entry.epoch,
            event: entry.event,
            facts: entry
                .facts
                .iter()
                .map(|(k, v)| (k.clone(), cut(v)))
                .collect(),
            group: entry.group.as_deref().map(cut),
            outcome: cut(&entry.outcome),
            prev: self.prev.to_string(),
            reason: entry.reason.as_deref().map(cut),
            run: entry.run.as_deref().map(cut),
            seq: self.seq,
            v: VERSION,
            verb: entry.verb,
        };
        serde_json::to_vec(&raw)
            .expect("a record has only string keys and plain values, which JSON can always hold")
    }

    /// Reads a line, without its newline.
    ///
    /// # Errors
    /// [`LineError`]: this program did not write it.
    pub fn decode(bytes: &[u8]) -> Result<Self, LineError> {
        if bytes.len() > LONGEST {
            return Err(LineError::TooLong);
        }
        let raw: Raw =
            serde_json::from_slice(bytes).map_err(|e| LineError::NotARecord(e.to_string()))?;
        if raw.v != VERSION {
            let text = format!(
                "its format is {}, this program reads format {VERSION}",
                raw.v
            );
            return Err(LineError::NotARecord(text));
        }
        let prev = Hash::parse(&raw.prev)
            .ok_or_else(|| LineError::NotARecord("`prev` is not a hash".to_owned()))?;
        let line = Self {
            seq: raw.seq,
            prev,
            entry: Entry {
                at: raw.at,
                boot_ms: raw.boot_ms,
                event: raw.event,
                actor: raw.actor,
                outcome: raw.outcome,
                group: raw.group,
                run: raw.run,
                verb: raw.verb,
                epoch: raw.epoch,
                reason: raw.reason,
                facts: raw.facts,
            },
        };
        if line.encode() != bytes {
            return Err(LineError::OtherForm);
        }
        Ok(line)
    }

    /// The record's hash as a leaf, which the next record names.
    #[must_use]
    pub fn hash(&self) -> Hash {
        leaf_hash(&self.encode())
    }
}

fn cut(text: &str) -> String {
    if text.len() <= LONGEST_TEXT {
        return text.to_owned();
    }
    let mut end = LONGEST_TEXT;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // Cut again, it stays as it is: a record that was read is encoded to the same bytes.
    let end = end.saturating_sub(CUT.len());
    let mut start = end;
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    format!("{}{CUT}", &text[..start])
}

const CUT: &str = " … (cut)";

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
