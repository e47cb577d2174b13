//! Session state that a move must carry: settings, LISTEN, SQL-level PREPARE; and what cannot move.
//!
//! Learned from command tags: only a group whose tag says SET, LISTEN, … is parsed, once it is
//! answered, and only the statements that completed take effect. A transaction's settings take
//! effect with its COMMIT. The statements' own texts are replayed, never a guess at their values.

use std::collections::BTreeMap;

use super::{Group, Item, Shape, Statements, Tx};
use crate::pg::classify::{Judgement, Kind, Policy, judge};

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
        Some(b'U') => tag.starts_with(b"UNLISTEN"),
        Some(b'P') => tag.starts_with(b"PREPARE"),
        _ => false,
    }
}

/// The settings of a session, in the order in which they have to be replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionSets {
    /// Name and statement text, oldest first; a name stands once.
    sets: Vec<(String, String)>,
    /// Channels listened to.
    pub(crate) listens: Vec<String>,
    /// Why the session cannot be moved, learned from what it ran.
    pins: BTreeMap<&'static str, String>,
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

    /// Why the session cannot be moved.
    pub(crate) fn pins(&self) -> impl Iterator<Item = &String> {
        self.pins.values()
    }

    /// The server said what pins the session.
    pub(crate) fn pin_found(&mut self, reason: String) {
        self.pins.insert("found", reason);
    }

    fn pin(&mut self, kind: &'static str, reason: String) {
        self.pins.insert(kind, reason);
    }

    fn reset_all(&mut self) {
        // SET ROLE and SET SESSION AUTHORIZATION are not touched by RESET ALL (GUC_NO_RESET_ALL).
        self.sets
            .retain(|(n, _)| n == "role" || n == "session_authorization");
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
}

impl Effects {
    /// Applies what an answered group did. `before` is the transaction status it began in.
    pub(crate) fn apply(
        &mut self,
        group: &Group,
        before: Tx,
        policy: &Policy,
        sets: &mut SessionSets,
        statements: &mut Statements,
    ) {
        self.in_transaction = before != Tx::Idle;
        let mut left = group.completed;
        match group.shape {
            Shape::Query if group.too_long => sets.pin(
                "text",
                "it ran a statement too long to be kept, whose tag says that it changed session state".into(),
            ),
            Shape::Query => {
                let judgement = judge(&group.text, policy);
                self.walk(&judgement, &group.text, &mut left, sets, statements);
            }
            Shape::Extended => {
                for item in &group.items {
                    let Item::Execute(Some(prepared)) = item else { continue };
                    if let Some(judgement) = prepared.judgement(policy) {
                        self.walk(&judgement, prepared.text(), &mut left, sets, statements);
                    }
                }
            }
            Shape::Function | Shape::CopyEnd | Shape::CopySync => {}
        }
        if !self.in_transaction && group.failed {
            // The group was one implicit transaction, which its failure undid.
            self.waiting.clear();
        } else if !self.in_transaction {
            self.commit(sets);
        }
    }

    /// The transaction is over; what was not committed by a COMMIT is dropped.
    pub(crate) fn end_of_transaction(&mut self) {
        self.waiting.clear();
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
                self.commit(sets);
                self.in_transaction = *chain;
            }
            Kind::Rollback { chain } => {
                self.waiting.clear();
                self.in_transaction = *chain;
            }
            Kind::RollbackTo if !self.waiting.is_empty() => sets.pin(
                "savepoint",
                "it changed settings in a transaction that went back to a savepoint".into(),
            ),
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
                sets.pin("cursor", "it declared a cursor WITH HOLD".into());
            }
            Kind::CreateTemp => sets.pin("temp", "it created a temporary object".into()),
            Kind::Other
            | Kind::RollbackTo
            | Kind::Set { local: true, .. }
            | Kind::DeclareCursor { hold: false }
            | Kind::Savepoint
            | Kind::Release
            | Kind::PrepareTransaction
            | Kind::CommitPrepared
            | Kind::RollbackPrepared
            | Kind::SetTransaction { .. }
            | Kind::Show { .. }
            | Kind::Discard
            | Kind::Execute { .. }
            | Kind::Fetch
            | Kind::CopyFrom
            | Kind::CopyTo => {}
        }
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
