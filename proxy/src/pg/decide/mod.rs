//! What happens to a statement group while not everything may pass. Pure: data in, decision out.
//!
//! A group is looked at whole, before any of it is sent. The rules are DESIGN's: reads and what is
//! uncertain run under wall two, writes wait or are refused, a transaction that was open at the
//! fence may go on until it is sealed, and every known way out of wall two is shut.

use std::collections::HashMap;
use std::sync::Arc;

use super::classify::{Access, Eyes, Judgement, Kind, Reading, Statement, Verdict, judge};
use super::frame::{FrameError, PARSE_KEPT, head};
use super::message::{bind_head, body, execute_head, parse_head};
use super::track::{Prepared, Track, Tx};
use crate::gate::{Answer, Begin};

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

/// What a group would run.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Each statement with its text, in order of execution.
    pub(crate) runs: Vec<(Arc<Judgement>, Arc<[u8]>)>,
    /// Something in it is not known: a FunctionCall, a portal of unknown origin, too much text.
    pub(crate) opaque: Option<&'static str>,
    /// It is a single Query message.
    pub(crate) simple: bool,
}

/// Reads a whole group. `track` resolves names that were prepared or bound before it.
pub(crate) fn view(group: &[u8], track: &Track, eyes: &Eyes) -> View {
    let mut view = View::default();
    let mut reading = track.reading();
    let mut parsed: HashMap<&[u8], Arc<Prepared>> = HashMap::new();
    let mut bound: HashMap<&[u8], Option<Arc<Prepared>>> = HashMap::new();
    let mut at = 0;
    while let Ok(Some(h)) = head(group.get(at..).unwrap_or_default()) {
        let frame = group.get(at..at + h.total).unwrap_or_default();
        at += h.total.max(1);
        match h.tag {
            b'Q' => {
                view.simple = true;
                let text = body(frame)
                    .strip_suffix(b"\0")
                    .unwrap_or_else(|| body(frame));
                view.runs
                    .push((Arc::new(judge(text, reading, eyes)), text.into()));
            }
            b'F' => view.opaque = Some("function call"),
            b'P' => match parse_head(frame) {
                Some((name, _)) if frame.len() <= PARSE_KEPT => {
                    parsed.insert(name, Prepared::new(frame, reading));
                    // What runs before the next Parse may change how that one is read.
                    reading = Reading::default();
                }
                Some((name, _)) => {
                    parsed.insert(name, Prepared::unkept());
                }
                None => view.opaque = Some("malformed Parse"),
            },
            b'B' => match bind_head(frame) {
                Some((portal, name)) => {
                    let found = parsed.get(name).cloned().or_else(|| track.find(name));
                    bound.insert(portal, found);
                }
                None => view.opaque = Some("malformed Bind"),
            },
            b'E' => view.execute(frame, &bound, track, eyes),
            _ => {}
        }
    }
    view
}

impl View {
    fn execute(
        &mut self,
        frame: &[u8],
        bound: &HashMap<&[u8], Option<Arc<Prepared>>>,
        track: &Track,
        eyes: &Eyes,
    ) {
        let Some(portal) = execute_head(frame) else {
            self.opaque = Some("malformed Execute");
            return;
        };
        let prepared = bound
            .get(portal)
            .cloned()
            .unwrap_or_else(|| track.statements.bound(portal));
        match prepared
            .as_ref()
            .and_then(|p| Some((p.judgement(eyes)?, p.text().into())))
        {
            Some(run) => self.runs.push(run),
            None => self.opaque = Some("a portal whose statement is not known"),
        }
    }

    /// Every statement in order.
    pub(crate) fn statements(&self) -> impl DoubleEndedIterator<Item = &Statement> {
        self.runs.iter().flat_map(|(j, _)| j.statements.iter())
    }

    /// The only statement, with its text, if there is exactly one.
    pub(crate) fn only(&self) -> Option<(&Statement, String)> {
        let [(judgement, text)] = self.runs.as_slice() else {
            return None;
        };
        let [statement] = judgement.statements.as_slice() else {
            return None;
        };
        let own = text.get(statement.text.clone()).unwrap_or_default();
        Some((statement, String::from_utf8_lossy(own).into_owned()))
    }
}

/// What is known of the session and the fence when a group is decided on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    pub(crate) tx: Tx,
    /// The open transaction may not write any more.
    pub(crate) sealed: bool,
    pub(crate) answer: Answer,
    pub(crate) begin: Begin,
    /// The fence is for everything, reads too.
    pub(crate) all: bool,
}

/// What to do with a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send it.
    Pass(After),
    /// Send it; if PostgreSQL refuses it for being a write and nothing was relayed, it is a write.
    Try(After),
    /// It is a write: hold it or refuse it as the fence says.
    Write(&'static str),
    /// Refuse it whatever the fence's answer: waiting would not make it right.
    Refuse(&'static str),
    /// BEGIN under `reject` or `defer`: answered here, sent with the first statement.
    Defer,
    /// SHOW of the virtual variable: answered here.
    Show(String),
    /// A setting of the virtual variable: the server is told to stay read-only instead, the
    /// client's own text is kept and applied at open.
    Virtual(String),
}

/// What has to be put right after a group that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct After {
    /// It reset settings: wall two has to be raised again.
    pub(crate) rewall: bool,
    /// It went back to a savepoint: a sealed transaction has to be sealed again.
    pub(crate) reseal: bool,
}

const READ_ONLY_NAMES: [&str; 2] = ["default_transaction_read_only", "transaction_read_only"];

fn is_read_only_name(name: &str) -> bool {
    READ_ONLY_NAMES.contains(&name)
}

/// Decides on a group.
pub(crate) fn decide(view: &View, now: Circumstances) -> Decision {
    if now.all && now.tx == Tx::Idle {
        return Decision::Write("the fence is for all statements");
    }
    if let Some(why) = view.opaque {
        return if now.tx == Tx::Open && !now.sealed {
            Decision::Pass(After::default())
        } else {
            Decision::Write(why)
        };
    }
    if let Some(decision) = virtual_variable(view, now) {
        return decision;
    }
    match now.tx {
        Tx::Idle => outside(view, now),
        Tx::Open => inside(view, now),
        Tx::Failed => in_failed(view),
    }
}

fn virtual_variable(view: &View, now: Circumstances) -> Option<Decision> {
    let (statement, text) = view.only()?;
    match &statement.kind {
        Kind::Show { name } if view.simple && now.tx == Tx::Idle && is_read_only_name(name) => {
            Some(Decision::Show(name.clone()))
        }
        Kind::Set { name, local: false } if name == READ_ONLY_NAMES[0] => {
            Some(Decision::Virtual(text))
        }
        Kind::Reset { name } if name == READ_ONLY_NAMES[0] => Some(Decision::Virtual(text)),
        Kind::SetSessionCharacteristics { access: Some(_) } => Some(Decision::Virtual(text)),
        _ => None,
    }
}

/// True for statements that would take wall two down, or lead around it.
fn leads_out(statement: &Statement) -> bool {
    match &statement.kind {
        Kind::Begin { access }
        | Kind::SetTransaction { access }
        | Kind::SetSessionCharacteristics { access } => *access == Some(Access::ReadWrite),
        Kind::Set { name, .. } | Kind::Reset { name } => is_read_only_name(name),
        Kind::Commit { chain } | Kind::Rollback { chain } => *chain,
        Kind::PrepareTransaction | Kind::CommitPrepared | Kind::RollbackPrepared => true,
        _ => false,
    }
}

fn resets(statement: &Statement) -> bool {
    matches!(statement.kind, Kind::ResetAll | Kind::DiscardAll)
}

fn harmless(statement: &Statement) -> bool {
    statement.verdict == Verdict::Read
        || (statement.verdict == Verdict::Boundary && !leads_out(statement) && !resets(statement))
}

/// A group that begins outside a transaction.
fn outside(view: &View, now: Circumstances) -> Decision {
    let opens = |s: &Statement| matches!(s.kind, Kind::Begin { access } if access != Some(Access::ReadOnly));
    if let Some((s, _)) = view.only()
        && opens(s)
    {
        return begin(now);
    }
    if let Some(s) = view.statements().find(|s| s.verdict == Verdict::Write) {
        return Decision::Write(s.rule);
    }
    // A BEGIN with more behind it: under hold its transaction may write later, so it waits whole,
    // unless it also ends here.
    let closes = view.statements().next_back().is_some_and(|s| {
        matches!(
            s.kind,
            Kind::Commit { chain: false } | Kind::Rollback { chain: false }
        )
    });
    if view.statements().any(opens) && now.answer == Answer::Hold && !closes {
        return Decision::Write("transaction");
    }
    if let Some(s) = view.statements().find(|s| leads_out(s)) {
        return Decision::Write(s.rule);
    }
    if view.statements().any(resets) {
        // Alone it can be followed by raising the wall again; with more behind it, the rest would
        // run without.
        let alone = view.statements().all(|s| resets(s) || harmless(s));
        return if alone {
            Decision::Pass(After {
                rewall: true,
                ..After::default()
            })
        } else {
            Decision::Write("reset with more behind it")
        };
    }
    if view.statements().all(harmless) {
        Decision::Pass(After::default())
    } else {
        Decision::Try(After::default())
    }
}

fn begin(now: Circumstances) -> Decision {
    match (now.begin, now.answer) {
        (Begin::Hold, _) | (Begin::Auto, Answer::Hold) => Decision::Write("transaction"),
        (Begin::Defer, _) | (Begin::Auto, Answer::Reject) => Decision::Defer,
    }
}

/// A group inside an open transaction.
fn inside(view: &View, now: Circumstances) -> Decision {
    let mut after = After::default();
    let mut ended = false;
    let mut back = false;
    for s in view.statements() {
        let ends = matches!(s.kind, Kind::Commit { .. } | Kind::Rollback { .. });
        if matches!(
            s.kind,
            Kind::Commit { chain: true } | Kind::Rollback { chain: true }
        ) {
            return Decision::Refuse("AND CHAIN would begin another transaction on this server");
        }
        if matches!(s.kind, Kind::PrepareTransaction) {
            return Decision::Refuse("a prepared transaction would outlive the fence");
        }
        if ended && !harmless(s) {
            return Decision::Refuse("statements behind the end of the transaction");
        }
        if now.sealed {
            if s.verdict == Verdict::Write || leads_out(s) {
                return Decision::Refuse(s.rule);
            }
            if back && !harmless(s) {
                return Decision::Refuse(
                    "statements behind ROLLBACK TO in a read-only transaction",
                );
            }
        }
        ended |= ends;
        back |= matches!(s.kind, Kind::RollbackTo);
        after.rewall |= resets(s);
    }
    after.reseal = back;
    Decision::Pass(after)
}

/// A group inside a failed transaction: the server refuses all but its end and ROLLBACK TO.
fn in_failed(view: &View) -> Decision {
    let mut ended = false;
    for s in view.statements() {
        if matches!(
            s.kind,
            Kind::Commit { chain: true } | Kind::Rollback { chain: true }
        ) {
            return Decision::Refuse("AND CHAIN would begin another transaction on this server");
        }
        if ended && !harmless(s) {
            return Decision::Refuse("statements behind the end of the transaction");
        }
        ended |= matches!(
            s.kind,
            Kind::Commit { .. } | Kind::Rollback { .. } | Kind::RollbackTo
        );
    }
    Decision::Pass(After {
        reseal: true,
        ..After::default()
    })
}

#[cfg(test)]
mod tests;
