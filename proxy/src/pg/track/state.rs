//! Session state that a move must carry: settings, LISTEN, SQL-level PREPARE; and what cannot move.
//!
//! Learned from command tags: only a group whose tag says SET, LISTEN, … is parsed, once it is
//! answered, and only the statements that completed take effect. A transaction's settings take
//! effect with its COMMIT. What texts cannot tell is asked of the server when a move is near, and
//! its answer (`inventory`) replaces what was learned.

use std::collections::{BTreeMap, BTreeSet};

use super::inventory::set_config;
use super::spoken::{Call, calls};
use super::{Group, Item, Shape, Statements, Tx};
use crate::pg::classify::{Effect as Durable, Eyes, Judgement, Kind, Verdict, judge};
use crate::sessions::Pin;

/// True for command tags after which a session may have other state than before.
pub(crate) fn is_notable(tag: &[u8]) -> bool {
    match tag.first() {
        Some(b'S') => tag.starts_with(b"SET") || tag.starts_with(b"START"),
        Some(b'R') => tag.starts_with(b"RESET") || tag.starts_with(b"ROLLBACK"),
        Some(b'B') => tag.starts_with(b"BEGIN"),
        Some(b'C') => tag.starts_with(b"COMMIT") || tag.starts_with(b"CREATE"),
        Some(b'D') => {
            tag.starts_with(b"DEALLOCATE")
                || tag.starts_with(b"DISCARD")
                || tag.starts_with(b"DECLARE")
        }
        Some(b'L') => tag.starts_with(b"LISTEN") || tag.starts_with(b"LOAD"),
        Some(b'N') => tag.starts_with(b"NOTIFY"),
        Some(b'U') => tag.starts_with(b"UNLISTEN"),
        Some(b'P') => tag.starts_with(b"PREPARE"),
        _ => false,
    }
}

/// True for command tags after which a name may stand for something else. What only goes away
/// (DROP) is not among them: a name then stands for less, and tables are made too often.
pub(crate) fn changes_catalog(tag: &[u8]) -> bool {
    const MADE: &[&[u8]] = &[
        b"CREATE AGGREGATE",
        b"CREATE CAST",
        b"CREATE DOMAIN",
        b"CREATE EXTENSION",
        b"CREATE FOREIGN TABLE",
        b"CREATE FUNCTION",
        b"CREATE OPERATOR",
        b"CREATE POLICY",
        b"CREATE PROCEDURE",
        b"CREATE RULE",
        b"CREATE SCHEMA",
        b"CREATE TYPE",
        b"CREATE VIEW",
        b"IMPORT FOREIGN SCHEMA",
    ];
    match tag.first() {
        Some(b'A') => tag.starts_with(b"ALTER") && tag != b"ALTER SYSTEM" && tag != b"ALTER ROLE",
        Some(b'C' | b'I') => MADE.contains(&tag),
        _ => false,
    }
}

/// The settings of a session, in the order in which they have to be replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionSets {
    /// Name and statement text, oldest first; a name stands once.
    pub(super) sets: Vec<(String, String)>,
    /// Channels listened to.
    pub(crate) listens: Vec<String>,
    /// What may keep the session from moving, as far as what it ran tells: it may be gone by now,
    /// which only the server knows.
    suspected: BTreeMap<&'static str, String>,
    /// What keeps it from moving, as the server said.
    pub(super) found: Vec<Pin>,
    /// Custom parameters that it set without SET: their names, since no list of the server's has them.
    named: BTreeSet<String>,
    /// It set a parameter whose name its text does not tell.
    nameless: bool,
    /// It reads its own sequence values, which only its server has.
    reads_sequences: bool,
    /// Rises with every change, so that a login made ahead knows whether it is stale.
    pub(crate) version: u64,
}

impl SessionSets {
    /// Statement texts to replay, in order.
    pub(crate) fn replay(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().map(|(_, text)| text.as_str())
    }

    /// The texts that set these names, in the order in which they were given.
    pub(crate) fn texts_of(&self, names: &[&str]) -> impl Iterator<Item = &str> {
        let named = self
            .sets
            .iter()
            .filter(move |(n, _)| names.contains(&n.as_str()));
        named.map(|(_, text)| text.as_str())
    }

    /// Records a setting made by the client.
    pub(crate) fn set(&mut self, name: &str, text: &str) {
        self.unset(name);
        self.sets.push((name.to_owned(), text.to_owned()));
        self.version += 1;
    }

    /// Records that a setting is back at its default.
    pub(crate) fn unset(&mut self, name: &str) {
        self.sets.retain(|(n, _)| n != name);
        self.version += 1;
    }

    /// It ran a text that could not be kept and changed its state: what it prepared is not known.
    pub(crate) fn unread(&self) -> bool {
        self.suspected.contains_key("long_text")
    }

    /// Why the session cannot be moved, as far as is known.
    pub(crate) fn pins(&self) -> impl Iterator<Item = Pin> {
        let nameless = self.nameless.then(|| Pin {
            kind: "custom_parameter",
            reason:
                "it set a parameter whose name is not in the text, or in one too long to be kept"
                    .to_owned(),
        });
        let suspected = self.suspected.iter().map(|(kind, reason)| Pin {
            kind,
            reason: reason.clone(),
        });
        self.found.iter().cloned().chain(suspected).chain(nameless)
    }

    /// Names of custom parameters that the server has to be asked for.
    pub(crate) fn custom_names(&self) -> impl Iterator<Item = &str> {
        let set = self.sets.iter().map(|(name, _)| name);
        let custom = set.chain(&self.named).filter(|name| name.contains('.'));
        custom.map(String::as_str)
    }

    /// What has to be set again, in words.
    pub(crate) fn names(&self) -> Vec<String> {
        self.sets
            .iter()
            .map(|(name, _)| format!("SET {name}"))
            .collect()
    }

    /// It uses lastval() or currval().
    pub(crate) fn reads_sequences(&self) -> bool {
        self.reads_sequences
    }

    /// The server has to be asked whether what the session seems to have is there.
    pub(crate) fn unsure(&self) -> bool {
        !self.suspected.is_empty()
    }

    /// The server was asked.
    pub(super) fn sure(&mut self, found: Vec<Pin>) {
        self.suspected.clear();
        self.found = found;
    }

    fn suspect(&mut self, kind: &'static str, reason: &str) {
        self.suspected.insert(kind, reason.to_owned());
    }

    fn reset_all(&mut self) {
        // SET ROLE and SET SESSION AUTHORIZATION are not touched by RESET ALL (GUC_NO_RESET_ALL).
        self.sets
            .retain(|(n, _)| n == "role" || n == "session_authorization");
        self.nameless = false;
        self.version += 1;
    }

    fn discard_all(&mut self) {
        let version = self.version + 1;
        *self = Self {
            version,
            ..Self::default()
        };
    }
}

fn is_select(text: &[u8]) -> bool {
    let word = text.trim_ascii_start().get(..6);
    word.is_some_and(|word| word.eq_ignore_ascii_case(b"select"))
}

#[derive(Clone, Debug)]
enum Effect {
    Set(String, String),
    Unset(String),
    ResetAll,
    Listen(String),
    Unlisten(Option<String>),
}

/// Effects of the open transaction, waiting for its end.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    waiting: Vec<Effect>,
    in_transaction: bool,
    /// The transaction has failed: its COMMIT is a ROLLBACK.
    failed: bool,
    /// It declared a cursor over something that read-only mode may not stop.
    pub(super) grave_cursor: bool,
    /// It will take a transaction id at its COMMIT, read-only or not.
    pub(super) notifies: bool,
    /// An AND CHAIN began it.
    pub(super) chained: bool,
}

impl Effects {
    /// Applies what an answered group did. `before` is the transaction status it began in.
    pub(crate) fn apply(
        &mut self,
        group: &Group,
        before: Tx,
        eyes: &Eyes,
        sets: &mut SessionSets,
        statements: &mut Statements,
    ) {
        self.in_transaction = before != Tx::Idle;
        self.failed = before == Tx::Failed;
        let mut left = group.completed;
        match group.shape {
            _ if !group.notable => {}
            _ if group.too_long || group.misled => {
                // The server tells of what it has, but not of custom parameters that nobody names.
                sets.nameless |= group.set;
                sets.suspect(
                    "long_text",
                    "it changed its settings in a statement that is not known",
                );
            }
            Shape::Query => {
                let judgement = judge(&group.text, group.reading, eyes);
                self.walk(&judgement, &group.text, &mut left, sets, statements);
            }
            Shape::Extended => {
                for item in &group.items {
                    match item {
                        Item::Execute(Some(prepared)) => {
                            if let Some(judgement) = prepared.judgement(eyes) {
                                let text = prepared.text();
                                self.walk(&judgement, text, &mut left, sets, statements);
                            } else {
                                sets.nameless |= group.set;
                            }
                        }
                        // What any of these does is the same when it is done again.
                        Item::Again(times) => left = left.saturating_sub(*times as usize),
                        Item::Execute(None) => sets.nameless |= group.set,
                        Item::Parse(..) | Item::Bind(_) | Item::Close(_) => {}
                    }
                }
            }
            Shape::Function | Shape::CopyEnd | Shape::CopySync => {}
        }
        sets.reads_sequences |= group.spoken.sequence;
        self.notifies |= group.spoken.notify;
        if group.spoken.set_config && !group.failed {
            self.heard(group, sets);
        }
        if !self.in_transaction && group.failed {
            // The group was one implicit transaction, which its failure undid.
            self.waiting.clear();
        } else if !self.in_transaction {
            self.commit(sets);
        }
    }

    /// Calls of set_config. Alone in a SELECT, a call is as good as a SET; anywhere else the server
    /// has to be asked whether it was executed, and when.
    fn heard(&mut self, group: &Group, sets: &mut SessionSets) {
        let executed = group.items.iter().filter_map(|item| match item {
            Item::Execute(Some(prepared)) => Some(prepared.text()),
            Item::Execute(None)
            | Item::Again(_)
            | Item::Parse(..)
            | Item::Bind(_)
            | Item::Close(_) => None,
        });
        for text in std::iter::once(group.text.as_slice()).chain(executed) {
            let plain = group.completed == 1 && is_select(text);
            for call in calls(text) {
                match call {
                    Call {
                        name: Some(name),
                        value: Some(value),
                    } if plain => {
                        let text = set_config(&name, &value);
                        self.waiting.push(Effect::Set(name, text));
                    }
                    Call { name: None, .. } if plain => sets.nameless = true,
                    Call { name, .. } => {
                        sets.named.extend(name);
                        sets.suspect(
                            "set_config",
                            "it called set_config, and its server could not be asked since",
                        );
                    }
                }
            }
        }
    }

    /// The transaction status behind the group that was applied last, as its statements tell it.
    pub(super) fn status(&self) -> Tx {
        match (self.in_transaction, self.failed) {
            (false, _) => Tx::Idle,
            (true, false) => Tx::Open,
            (true, true) => Tx::Failed,
        }
    }

    /// The transaction is over; what was not committed by a COMMIT is dropped.
    pub(crate) fn end_of_transaction(&mut self) {
        self.waiting.clear();
        self.grave_cursor = false;
        self.notifies = false;
        self.chained = false;
    }

    fn walk(
        &mut self,
        judgement: &Judgement,
        text: &[u8],
        left: &mut usize,
        sets: &mut SessionSets,
        statements: &mut Statements,
    ) {
        for statement in &judgement.statements {
            if *left == 0 {
                return;
            }
            *left -= 1;
            self.grave_cursor |= matches!(statement.kind, Kind::DeclareCursor { .. })
                && statement.verdict == Verdict::Write;
            self.notifies |=
                statement.rule == Durable::Notify.word() && statement.verdict == Verdict::Write;
            let own = text.get(statement.text.clone()).unwrap_or_default();
            let own = String::from_utf8_lossy(own).into_owned();
            self.one(&statement.kind, own, sets, statements);
        }
    }

    fn one(
        &mut self,
        kind: &Kind,
        text: String,
        sets: &mut SessionSets,
        statements: &mut Statements,
    ) {
        match kind {
            Kind::Begin { .. } => self.in_transaction = true,
            Kind::Commit { chain } => {
                self.end(sets);
                self.in_transaction = *chain;
                self.chained = *chain;
            }
            Kind::Rollback { chain } => {
                self.waiting.clear();
                self.in_transaction = *chain;
                self.chained = *chain;
                self.failed = false;
            }
            // Settings stay; the transaction is no longer this session's.
            Kind::PrepareTransaction => {
                self.end(sets);
                self.in_transaction = false;
            }
            Kind::RollbackTo => {
                self.failed = false;
                if !self.waiting.is_empty() {
                    // Which of them were made behind the savepoint, the server knows.
                    sets.suspect(
                        "savepoint",
                        "it changed settings in a transaction that went back to a savepoint",
                    );
                }
            }
            Kind::Set { name, local: false } => self.waiting.push(Effect::Set(name.clone(), text)),
            Kind::SetSessionCharacteristics { .. } => {
                self.waiting
                    .push(Effect::Set("session characteristics".into(), text));
            }
            Kind::Reset { name } => self.waiting.push(Effect::Unset(name.clone())),
            Kind::ResetAll => self.waiting.push(Effect::ResetAll),
            Kind::DiscardAll => {
                self.waiting.clear();
                sets.discard_all();
                statements.deallocate_all();
            }
            Kind::Listen { channel } => self.waiting.push(Effect::Listen(channel.clone())),
            Kind::Unlisten { channel } => self.waiting.push(Effect::Unlisten(channel.clone())),
            // PREPARE and DEALLOCATE are not transactional.
            Kind::Prepare { name } => {
                statements.sql.insert(name.clone(), text);
                sets.version += 1;
            }
            Kind::Deallocate { name: Some(name) } => statements.deallocate(name),
            Kind::Deallocate { name: None } => statements.deallocate_all(),
            Kind::DeclareCursor { hold: true } => {
                sets.suspect("held_cursor", "it declared a cursor WITH HOLD");
            }
            Kind::CreateTemp => sets.suspect("temporary_object", "it created a temporary object"),
            Kind::Other
            | Kind::Set { local: true, .. }
            | Kind::DeclareCursor { hold: false }
            | Kind::Savepoint
            | Kind::Release
            | Kind::CommitPrepared
            | Kind::RollbackPrepared
            | Kind::SetTransaction { .. }
            | Kind::Show { .. }
            | Kind::Discard
            | Kind::Execute { .. }
            | Kind::Fetch
            | Kind::CopyFrom
            | Kind::CopyTo
            | Kind::Procedure => {}
        }
    }

    /// COMMIT, or PREPARE TRANSACTION: of a failed transaction either is a ROLLBACK.
    fn end(&mut self, sets: &mut SessionSets) {
        if std::mem::take(&mut self.failed) {
            self.waiting.clear();
        }
        self.commit(sets);
    }

    fn commit(&mut self, sets: &mut SessionSets) {
        for effect in self.waiting.drain(..) {
            match effect {
                Effect::Set(name, text) => sets.set(&name, &text),
                Effect::Unset(name) => sets.unset(&name),
                Effect::ResetAll => sets.reset_all(),
                Effect::Listen(channel) => {
                    if !sets.listens.contains(&channel) {
                        sets.listens.push(channel);
                    }
                    sets.version += 1;
                }
                Effect::Unlisten(channel) => {
                    sets.listens
                        .retain(|c| channel.as_ref().is_some_and(|gone| c != gone));
                    sets.version += 1;
                }
            }
        }
    }
}
