//! A statement group as the steps it would run.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::pg::classify::{Eyes, Kind, Reading, Statement, Verdict, judge, rule};
use crate::pg::frame::{FrameError, PARSE_KEPT, head};
use crate::pg::message::{bind_head, body, execute_head, parse_head};
use crate::pg::track::{Prepared, Track};

/// A group larger than this is not looked into while fenced; it counts as a write.
pub(crate) const GROUP: usize = 256 * 1024;

/// The front of an inbox, seen as a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Not all of it has come.
    More,
    /// It ends here; `terminator` is the tag of its last message (`Q`, `F`, `S` or `H`).
    Whole { len: usize, terminator: u8 },
    /// Too large to be looked into.
    Over,
}

/// Finds the end of the group at the front of `buf`.
pub(crate) fn extent(buf: &[u8]) -> Result<Extent, FrameError> {
    let mut at = 0;
    while let Some(h) = head(buf.get(at..).unwrap_or_default())? {
        if at + h.total > GROUP {
            return Ok(Extent::Over);
        }
        if buf.len() < at + h.total {
            return Ok(Extent::More);
        }
        at += h.total;
        if matches!(h.tag, b'Q' | b'F' | b'S' | b'H') {
            return Ok(Extent::Whole {
                len: at,
                terminator: h.tag,
            });
        }
    }
    Ok(Extent::More)
}

/// The messages of a group, each with the place where it begins.
pub(super) fn frames(group: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = group.get(at..)?;
        let h = head(rest).ok()??;
        let frame = rest.get(..h.total)?;
        let begins = at;
        at += h.total;
        Some((begins, frame))
    })
}

/// One statement that a group would run.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) kind: Kind,
    pub(crate) verdict: Verdict,
    pub(crate) rule: &'static str,
    /// Its own text.
    pub(crate) text: String,
    /// Where it stands: in the text of its Query, or as an Execute in its group.
    pub(super) at: Range<usize>,
}

/// What a group would run.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// In order of execution.
    pub(crate) steps: Vec<Step>,
    /// Something in it is not known: a FunctionCall, a portal of unknown origin, too much text.
    pub(crate) opaque: Option<&'static str>,
    /// It is a single Query message.
    pub(crate) simple: bool,
}

impl View {
    /// Of a group about which nothing can be told.
    pub(crate) fn opaque(why: &'static str) -> Self {
        Self {
            opaque: Some(why),
            ..Self::default()
        }
    }
}

/// Reads a whole group. `track` resolves names that were prepared or bound before it.
pub(crate) fn view(group: &[u8], track: &Track, eyes: &Eyes) -> View {
    let mut reader = Reader {
        view: View::default(),
        track,
        eyes,
        reading: track.reading(),
        parsed: HashMap::new(),
        bound: HashMap::new(),
        prepared: HashMap::new(),
    };
    for (at, frame) in frames(group) {
        reader.message(at, frame);
    }
    reader.view
}

struct Reader<'a> {
    view: View,
    track: &'a Track,
    eyes: &'a Eyes,
    /// How the server will read the next text.
    reading: Reading,
    /// Statements parsed and portals bound in this group.
    parsed: HashMap<&'a [u8], Arc<Prepared>>,
    bound: HashMap<&'a [u8], Option<Arc<Prepared>>>,
    /// Statements of SQL-level PREPARE in this group.
    prepared: HashMap<String, (Verdict, &'static str)>,
}

impl<'a> Reader<'a> {
    fn message(&mut self, at: usize, frame: &'a [u8]) {
        match frame.first() {
            Some(b'Q') => {
                self.view.simple = true;
                let text = body(frame);
                let text = text.strip_suffix(b"\0").unwrap_or(text);
                for statement in &judge(text, self.reading, self.eyes).statements {
                    self.step(statement, text, statement.text.clone());
                }
            }
            Some(b'F') => self.view.opaque = Some("function call"),
            Some(b'P') => match parse_head(frame) {
                Some((name, _)) if frame.len() <= PARSE_KEPT => {
                    self.parsed.insert(name, Prepared::new(frame, self.reading));
                }
                Some((name, _)) => {
                    self.parsed.insert(name, Prepared::unkept());
                }
                None => self.view.opaque = Some("malformed Parse"),
            },
            Some(b'B') => match bind_head(frame) {
                Some((portal, name)) => {
                    let found = self.find(name);
                    self.bound.insert(portal, found);
                }
                None => self.view.opaque = Some("malformed Bind"),
            },
            Some(b'E') => {
                self.execute(at, frame);
                // It may change how a text behind it is read.
                self.reading = Reading::default();
            }
            _ => {}
        }
    }

    fn find(&self, name: &[u8]) -> Option<Arc<Prepared>> {
        let here = self.parsed.get(name).cloned();
        here.or_else(|| self.track.find(name))
    }

    fn execute(&mut self, at: usize, frame: &[u8]) {
        let Some(portal) = execute_head(frame) else {
            self.view.opaque = Some("malformed Execute");
            return;
        };
        let prepared = self
            .bound
            .get(portal)
            .cloned()
            .unwrap_or_else(|| self.track.statements.bound(portal));
        let Some((prepared, judgement)) =
            prepared.and_then(|p| p.judgement(self.eyes).map(|j| (p, j)))
        else {
            self.view.opaque = Some("a portal whose statement is not known");
            return;
        };
        match judgement.statements.as_slice() {
            [] => {}
            [statement] => self.step(statement, prepared.text(), at..at + frame.len()),
            [..] => self.view.opaque = Some("several statements prepared as one"),
        }
    }

    fn step(&mut self, statement: &Statement, text: &[u8], at: Range<usize>) {
        let (mut verdict, mut rule) = (statement.verdict, statement.rule);
        match &statement.kind {
            Kind::Prepare { name } => {
                let inside = inside(statement);
                self.prepared.insert(name.clone(), inside);
            }
            Kind::Execute { name } => {
                let due = self.executed(name);
                if due.0 > verdict {
                    (verdict, rule) = due;
                }
            }
            // What its query does, happens now.
            Kind::Fetch if self.track.grave_cursor() => {
                (verdict, rule) = (Verdict::Write, rule::CURSOR)
            }
            _ => {}
        }
        let own = text.get(statement.text.clone()).unwrap_or_default();
        self.view.steps.push(Step {
            kind: statement.kind.clone(),
            verdict,
            rule,
            text: String::from_utf8_lossy(own).into_owned(),
            at,
        });
    }

    /// What an SQL-level EXECUTE of this name runs. The names of PREPARE and of Parse are the same.
    fn executed(&self, name: &str) -> (Verdict, &'static str) {
        const NOT_KNOWN: (Verdict, &str) = (Verdict::Write, rule::EXECUTE);
        if let Some(&inside) = self.prepared.get(name) {
            return inside;
        }
        if let Some(text) = self.track.statements.sql.get(name) {
            let judged = judge(text.as_bytes(), Reading::default(), self.eyes);
            return judged.statements.first().map_or(NOT_KNOWN, inside);
        }
        if let Some(prepared) = self.find(name.as_bytes()) {
            // A BEGIN or SET prepared by the protocol would be run here unseen.
            return match prepared.judgement(self.eyes) {
                Some(judgement) => match judgement.statements.as_slice() {
                    [s] if s.kind == Kind::Other => (s.verdict, s.rule),
                    [] => (Verdict::Read, rule::EXECUTE),
                    [..] => NOT_KNOWN,
                },
                None => NOT_KNOWN,
            };
        }
        if self.track.sets.unread() {
            return NOT_KNOWN;
        }
        // Prepared inside a function, by a PREPARE that takes nothing but queries; or not at all.
        (Verdict::Uncertain, rule::EXECUTE)
    }
}

fn inside(statement: &Statement) -> (Verdict, &'static str) {
    statement
        .prepared
        .as_ref()
        .map_or((Verdict::Write, rule::EXECUTE), |f| (f.verdict, f.rule))
}
