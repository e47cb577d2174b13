//! One statement group: a Query, a FunctionCall, or an extended-protocol run up to its Sync.

use std::sync::Arc;

use super::Prepared;
use super::spoken::{Spoken, spoken};
use crate::pg::classify::{Eyes, Judgement, Reading, Verdict, judge, rule};

/// Which messages make the group up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    #[default]
    Extended,
    Query,
    Function,
    /// Not a group: marks where CopyDone or CopyFail stands among what was sent.
    CopyEnd,
    /// A Sync sent into a COPY. The server ignores it, unless the COPY had failed before.
    CopySync,
}

/// A message of an extended group that matters later.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Parse(Box<[u8]>, Arc<Prepared>),
    /// Not executed so far. The planner may run functions already, and parameters theirs.
    Bind(Option<Arc<Prepared>>),
    /// `None`: what it runs is not known, so it counts as a write.
    Execute(Option<Arc<Prepared>>),
    /// The Execute before it, so many times more.
    Again(u32),
    Close(Box<[u8]>),
}

/// What was sent, and how far its answers have come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) shape: Shape,
    pub(crate) text: Vec<u8>,
    /// How the server cuts the text into tokens.
    pub(crate) reading: Reading,
    pub(crate) too_long: bool,
    pub(crate) items: Vec<Item>,
    /// Bytes of texts that they hold.
    pub(super) texts: usize,
    pub(crate) parsed: usize,
    pub(crate) completed: usize,
    pub(crate) failed: bool,
    /// A Query went out before its Sync: whose the answers are cannot be told.
    pub(crate) mingled: bool,
    /// A command tag came that changes the session's state.
    pub(crate) notable: bool,
    /// The tag of a SET came.
    pub(crate) set: bool,
    /// It runs a statement whose Parse stood in a group before it that was not answered yet. Should
    /// that Parse fail or be skipped, an older statement of the name is run in its stead.
    pub(crate) relies: bool,
    /// The same, and it has failed: what it ran is not known.
    pub(super) misled: bool,
    /// What its texts speak of, once it is answered.
    pub(super) spoken: Spoken,
}

/// A buffer larger than this is given back rather than kept for reuse.
const REUSE: usize = 1024;

impl Group {
    /// False for what only marks a place among the groups.
    pub(crate) fn is_one(&self) -> bool {
        !matches!(self.shape, Shape::CopyEnd | Shape::CopySync)
    }

    /// True when the group can be kept for reuse without holding much memory.
    pub(crate) fn reusable(&self) -> bool {
        self.text.capacity() <= REUSE && self.items.capacity() <= 32
    }

    /// Empties it, keeping its buffers.
    pub(crate) fn clear(&mut self) {
        let (mut text, mut items) = (
            std::mem::take(&mut self.text),
            std::mem::take(&mut self.items),
        );
        text.clear();
        items.clear();
        *self = Self {
            text,
            items,
            ..Self::default()
        };
    }

    /// Looks through its texts for what tags do not tell; true when there is something to learn.
    pub(super) fn tells(&mut self) -> bool {
        let mut heard = match self.shape {
            Shape::Query => spoken(&self.text),
            Shape::Extended | Shape::Function | Shape::CopyEnd | Shape::CopySync => {
                Spoken::default()
            }
        };
        for item in &self.items {
            if let Item::Execute(Some(prepared)) = item {
                heard = heard.and(prepared.spoken());
            }
        }
        self.spoken = heard;
        self.notable || heard != Spoken::default()
    }

    /// What was sent of it has been answered, or is not going to be.
    pub(crate) fn caught_up(&self) -> bool {
        self.failed
            || self.mingled
            || (self.parsed >= self.parses() && self.completed >= self.executes())
    }

    /// Bytes that it takes here.
    pub(super) fn weight(&self) -> usize {
        self.texts + self.items.len() * size_of::<Item>()
    }

    /// How many Parses it has.
    pub(super) fn parses(&self) -> usize {
        let is_parse = |item: &&Item| matches!(item, Item::Parse(..));
        self.items.iter().filter(is_parse).count()
    }

    /// How many Executes it has.
    pub(crate) fn executes(&self) -> usize {
        let times = self.items.iter().map(|item| match item {
            Item::Execute(_) => 1,
            Item::Again(times) => *times as usize,
            Item::Parse(..) | Item::Bind(_) | Item::Close(_) => 0,
        });
        times.sum()
    }

    /// The judgements of all that it runs; `None` where something is not known.
    pub(crate) fn judgements(&self, eyes: &Eyes) -> Option<Vec<Arc<Judgement>>> {
        match self.shape {
            Shape::Function => None,
            Shape::CopyEnd | Shape::CopySync => Some(Vec::new()),
            Shape::Query if self.too_long => None,
            Shape::Query => Some(vec![Arc::new(judge(&self.text, self.reading, eyes))]),
            Shape::Extended if self.relies => None,
            Shape::Extended => self
                .items
                .iter()
                .filter_map(|item| match item {
                    Item::Execute(prepared) => {
                        Some(prepared.as_ref().and_then(|p| p.judgement(eyes)))
                    }
                    Item::Parse(..) | Item::Bind(_) | Item::Again(_) | Item::Close(_) => None,
                })
                .collect(),
        }
    }

    /// The judgements of what it binds and has not executed; `None` where something is not known.
    pub(crate) fn bound(&self, eyes: &Eyes) -> Option<Vec<Arc<Judgement>>> {
        let binds = self.items.iter().filter_map(|item| match item {
            Item::Bind(prepared) => Some(prepared),
            Item::Parse(..) | Item::Execute(_) | Item::Again(_) | Item::Close(_) => None,
        });
        binds
            .map(|p| p.as_ref().and_then(|p| p.judgement(eyes)))
            .collect()
    }

    /// True when nothing in it can have left session state that only the server knows of: advisory
    /// locks, temporary tables. DML is taken not to, by its triggers as little as by itself.
    pub(crate) fn leaves_nothing(&self, eyes: &Eyes) -> bool {
        self.judgements(eyes).is_some_and(|all| {
            let mut statements = all.iter().flat_map(|j| &j.statements);
            statements.all(|s| {
                matches!(s.verdict, Verdict::Read | Verdict::Boundary) || s.rule == rule::DML
            })
        })
    }

    /// The text that tells people what it is.
    pub(crate) fn words(&self) -> &[u8] {
        match self.shape {
            Shape::Query => &self.text,
            Shape::Function => b"function call",
            Shape::CopyEnd | Shape::CopySync => b"",
            Shape::Extended => self
                .items
                .iter()
                .find_map(|item| match item {
                    Item::Execute(Some(p)) => Some(p.text()),
                    Item::Execute(None)
                    | Item::Parse(..)
                    | Item::Bind(_)
                    | Item::Again(_)
                    | Item::Close(_) => None,
                })
                .unwrap_or_default(),
        }
    }
}
