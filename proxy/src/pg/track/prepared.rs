//! Prepared statements and portals by name, as far as they must be known.
//!
//! A Parse is kept whole (bounded) so that it can be sent again to another server; its verdict is
//! made once, when it is first needed. Statement names live until closed, portals until the end of
//! their transaction.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::spoken::{Spoken, spoken};
use super::{Group, Item};
use crate::pg::classify::{Eyes, Judgement, Reading, judge};
use crate::pg::message::parse_head;

/// All Parse messages a session keeps, in bytes; a session beyond it cannot be moved.
const KEPT: usize = 4 * 1024 * 1024;

/// A prepared statement as its Parse message said it.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The whole message; empty when it was too long to keep.
    frame: Box<[u8]>,
    spoken: Spoken,
    /// How the server read its text when it was parsed; that is not done again.
    reading: Reading,
    /// The judgement, and the generation of the catalog it was made with.
    judged: Mutex<Option<(u64, Arc<Judgement>)>>,
}

impl Prepared {
    /// Of a Parse message that is there whole.
    pub(crate) fn new(frame: &[u8], reading: Reading) -> Arc<Self> {
        Arc::new(Self {
            frame: frame.into(),
            spoken: parse_head(frame).map_or_else(Spoken::default, |(_, text)| spoken(text)),
            reading,
            judged: Mutex::default(),
        })
    }

    /// Of one that was too long to keep.
    pub(crate) fn unkept() -> Arc<Self> {
        Arc::new(Self {
            frame: Box::default(),
            spoken: Spoken::default(),
            reading: Reading::default(),
            judged: Mutex::default(),
        })
    }

    /// The message, if it was kept.
    pub(crate) fn frame(&self) -> Option<&[u8]> {
        (!self.frame.is_empty()).then_some(&self.frame)
    }

    /// Bytes that it takes here.
    pub(super) fn size(&self) -> usize {
        size_of::<Self>() + self.frame.len()
    }

    /// Its statement text; empty when it was not kept.
    pub(crate) fn text(&self) -> &[u8] {
        parse_head(&self.frame).map_or(b"", |(_, text)| text)
    }

    /// What its text speaks of.
    pub(super) fn spoken(&self) -> Spoken {
        self.spoken
    }

    /// Its judgement; `None` when its text is not known. It is made once for each catalog: a
    /// function in it may have been replaced.
    pub(crate) fn judgement(&self, eyes: &Eyes) -> Option<Arc<Judgement>> {
        let (_, text) = parse_head(&self.frame)?;
        // Asked for before judging: a catalog that is replaced meanwhile costs one more judging.
        let generation = eyes.generation();
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, judgement)) = &*judged
            && *of == generation
        {
            return Some(Arc::clone(judgement));
        }
        let judgement = Arc::new(judge(text, self.reading, eyes));
        *judged = Some((generation, Arc::clone(&judgement)));
        Some(judgement)
    }
}

/// A name as PostgreSQL keeps it: names of prepared statements are cut to NAMEDATALEN.
fn cut(name: &[u8]) -> &[u8] {
    name.get(..63).unwrap_or(name)
}

#[derive(Clone, Debug)]
enum Bound {
    To(Arc<Prepared>),
    Unknown,
}

/// Statements and portals of a session.
#[derive(Debug, Default)]
pub(crate) struct Statements {
    named: HashMap<Box<[u8]>, Arc<Prepared>>,
    unnamed: Option<Arc<Prepared>>,
    kept: usize,
    version: u64,
    unnamed_portal: Option<Bound>,
    portals: HashMap<Box<[u8]>, Bound>,
    /// A Bind whose names could not be read went out in this transaction.
    unread_bind: bool,
    /// Texts of SQL-level PREPARE, by name.
    pub(crate) sql: HashMap<String, String>,
}

impl Statements {
    /// The statement of this name; the empty name is the unnamed one.
    pub(crate) fn get(&self, name: &[u8]) -> Option<Arc<Prepared>> {
        if name.is_empty() {
            self.unnamed.clone()
        } else {
            self.named.get(name).cloned()
        }
    }

    /// Whether a statement of this name, as the server cuts names, is kept here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.named.keys().any(|n| cut(n) == name.as_bytes())
    }

    /// Forgets named statements that the server does not have.
    pub(super) fn keep_only(&mut self, names: &[String]) {
        let gone = |n: &[u8]| !names.iter().any(|name| cut(n) == name.as_bytes());
        let gone: Vec<_> = self.named.keys().filter(|n| gone(n)).cloned().collect();
        gone.iter().for_each(|name| self.remove(name));
    }

    /// The named statements in no order, as they have to be sent again.
    pub(crate) fn named(&self) -> impl Iterator<Item = &Arc<Prepared>> {
        self.named.values()
    }

    /// The unnamed statement, while it exists.
    pub(crate) fn unnamed(&self) -> Option<&Arc<Prepared>> {
        self.unnamed.as_ref()
    }

    /// Rises with every change of the named statements.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Why the statements cannot all be replayed.
    pub(crate) fn pin(&self) -> Option<String> {
        if self.kept > KEPT {
            return Some(format!(
                "its prepared statements take more than {KEPT} bytes"
            ));
        }
        self.named
            .values()
            .any(|p| p.frame().is_none())
            .then(|| "a prepared statement is too long to be kept".to_owned())
    }

    pub(crate) fn bind(&mut self, portal: &[u8], statement: Option<Arc<Prepared>>) {
        let bound = statement.map_or(Bound::Unknown, Bound::To);
        if portal.is_empty() {
            self.unnamed_portal = Some(bound);
        } else {
            self.portals.insert(portal.into(), bound);
        }
    }

    /// A Close of a portal goes out.
    pub(super) fn unbind(&mut self, portal: &[u8]) {
        if portal.is_empty() {
            self.unnamed_portal = None;
        } else {
            self.portals.remove(portal);
        }
    }

    pub(crate) fn bind_unknown(&mut self) {
        self.unread_bind = true;
    }

    /// What an Execute of this portal runs.
    pub(crate) fn bound(&self, portal: &[u8]) -> Option<Arc<Prepared>> {
        if self.unread_bind {
            return None;
        }
        let bound = if portal.is_empty() {
            self.unnamed_portal.as_ref()
        } else {
            self.portals.get(portal)
        };
        match bound {
            Some(Bound::To(prepared)) => Some(Arc::clone(prepared)),
            Some(Bound::Unknown) | None => None,
        }
    }

    pub(crate) fn forget_unnamed(&mut self) {
        self.unnamed = None;
    }

    /// DEALLOCATE of a name; protocol-level and SQL-level names are one namespace.
    pub(crate) fn deallocate(&mut self, name: &str) {
        self.remove(name.as_bytes());
        self.sql.remove(name);
    }

    /// DEALLOCATE ALL or DISCARD ALL.
    pub(crate) fn deallocate_all(&mut self) {
        self.named = HashMap::new();
        self.sql = HashMap::new();
        self.kept = 0;
        self.version += 1;
    }

    fn remove(&mut self, name: &[u8]) {
        if let Some(old) = self.named.remove(name) {
            self.kept = self.kept.saturating_sub(old.frame.len());
            self.version += 1;
        }
    }

    /// A group was answered: its Parses up to the first failure exist now, its Closes took effect.
    pub(crate) fn settle(&mut self, group: &Group) {
        if group.items.is_empty() {
            return;
        }
        let mut parsed = 0;
        for item in &group.items {
            match item {
                Item::Parse(name, prepared) => {
                    parsed += 1;
                    if parsed > group.parsed {
                        return;
                    }
                    if name.is_empty() {
                        self.unnamed = Some(Arc::clone(prepared));
                    } else {
                        self.remove(name);
                        self.kept += prepared.frame.len();
                        self.version += 1;
                        self.named.insert(name.clone(), Arc::clone(prepared));
                    }
                }
                // A Close after a failure was skipped by the server, but whoever closes a name
                // does not use it again; forgetting it costs at most a replay.
                Item::Close(name) if name.is_empty() => self.unnamed = None,
                Item::Close(name) if !group.failed => self.remove(name),
                Item::Close(_) | Item::Bind(_) | Item::Execute(_) | Item::Again(_) => {}
            }
        }
    }

    /// Portals end with their transaction.
    pub(crate) fn end_of_transaction(&mut self) {
        self.unnamed_portal = None;
        self.unread_bind = false;
        if !self.portals.is_empty() {
            self.portals = HashMap::new();
        }
    }
}
