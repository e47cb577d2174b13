//! Text of a statement in, verdict out.
//!
//! [`judge`] asks PostgreSQL's own grammar what a text contains and decides, statement by
//! statement, whether it may change something that outlives it. What a name stands for (a view, a
//! user's function in front of a built-in one) the catalog of the database in use says, where it is
//! known. Wall two, where PostgreSQL itself refuses to write, stands behind every verdict but
//! `Write`.
//!
//! The rule for doubt: what is not understood is a write. Nothing here does IO, keeps state or
//! logs, and nothing of a text leaves it except names (`decided_by`).

mod code;
mod decide;
mod explain;
mod eyes;
mod finding;
mod functions;
mod kind;
mod lens;
mod names;
mod parse;
mod policy;
mod procedure;
mod room;
pub mod rule;
mod session;
#[cfg(test)]
mod tests;
mod walk;

use std::ops::Range;

use lens::Lens;

pub(crate) use code::Code;
pub use eyes::Eyes;
pub use finding::{Finding, Verdict};
pub(crate) use functions::{effect as effect_of, is_safe as is_safe_function, runs_text};
pub(crate) use kind::is_read_only_setting;
pub use kind::{Access, Kind};
pub use parse::{MAX_TEXT, Reading};
pub use policy::{Effect, Effects, Policy, UnknownEffect};
pub(crate) use room::{at_length, with_room};

/// One statement of a text and what was decided about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Where it stands in the text, in bytes, from its first token to the semicolon behind it,
    /// which is left out. This part of the text alone means the same.
    pub text: Range<usize>,
    /// What it does to the session or transaction.
    pub kind: Kind,
    /// Whether it may change something durable.
    pub verdict: Verdict,
    /// The rule that decided, one of [`rule::ALL`].
    pub rule: &'static str,
    /// The function, relation, operator, type or setting that decided, as written.
    pub decided_by: Option<String>,
    /// For PREPARE: the finding about the statement inside, due at each EXECUTE of its name. For
    /// EXECUTE: the finding about its arguments.
    pub prepared: Option<Finding>,
}

impl Statement {
    /// Whether a transaction ends here: COMMIT, ROLLBACK (also AND CHAIN, where the next one
    /// begins at once) and PREPARE TRANSACTION. ROLLBACK TO is not an end.
    pub fn is_transaction_end(&self) -> bool {
        self.kind.is_transaction_end()
    }

    /// Whether it could lift the read-only setting wall two stands on.
    pub fn is_way_out(&self) -> bool {
        self.kind.is_way_out()
    }

    /// What was decided about it.
    pub(crate) fn finding(&self) -> Finding {
        Finding::new(self.verdict, self.rule, self.decided_by.clone())
    }

    /// An EXECUTE: what its name stands for was found, and decides with the arguments.
    pub(crate) fn decide(&mut self, mut finding: Finding) {
        finding = self.prepared.iter().cloned().fold(finding, Finding::and);
        self.verdict = finding.verdict;
        self.rule = finding.rule;
        self.decided_by = finding.decided_by;
    }
}

/// What was decided about a whole text: one entry per statement, in order.
///
/// An empty text (white space, comments, lone semicolons) has no statements and is a read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The statements in the order in which the server runs them.
    pub statements: Vec<Statement>,
}

impl Judgement {
    /// The gravest verdict of all statements: `Write` before `Uncertain` before `Boundary`
    /// before `Read`.
    pub fn verdict(&self) -> Verdict {
        self.statements
            .iter()
            .map(|each| each.verdict)
            .max()
            .unwrap_or(Verdict::Read)
    }

    /// Whether one of the statements could lift the read-only setting wall two stands on.
    pub fn has_way_out(&self) -> bool {
        self.statements.iter().any(Statement::is_way_out)
    }

    /// The whole text as one write, for the reason `rule`.
    fn refused(length: usize, rule: &'static str) -> Self {
        let finding = Finding::new(Verdict::Write, rule, None);
        Self {
            statements: vec![Statement::new(0..length, Kind::Other, finding)],
        }
    }
}

impl Statement {
    fn new(text: Range<usize>, kind: Kind, finding: Finding) -> Self {
        let Finding {
            verdict,
            rule,
            decided_by,
            nature: _,
        } = finding;
        Self {
            text,
            kind,
            verdict,
            rule,
            decided_by,
            prepared: None,
        }
    }
}

/// Judges `sql`, a text as it stands in a Query or Parse message without its terminating zero, the
/// way a session with the settings in `reading` means it.
///
/// Costs about 1 µs per token, and the caller waits for it: a text of more than a few KiB is better
/// judged within `at_length`, where it holds up no other session.
///
/// Never panics and never overflows a stack of 2 MB. A text that is longer than [`MAX_TEXT`], is
/// not UTF-8, contains a zero byte, cannot be parsed or nests too deeply is one `Write` whose
/// rule says which of these it was.
pub fn judge(sql: &[u8], reading: Reading, eyes: &Eyes) -> Judgement {
    let catalog = eyes.shelf.catalog();
    let lens = Lens {
        policy: &eyes.policy,
        model: catalog.model(),
    };
    let text = match parse::readable(sql, reading) {
        Ok(text) => text,
        Err(rule) => return Judgement::refused(sql.len(), rule),
    };
    let judge = || judge_text(text, reading, lens);
    if room::is_shallow(text) {
        return judge();
    }
    with_room(judge).unwrap_or_else(|| Judgement::refused(text.len(), rule::TOO_DEEP))
}

fn judge_text(text: &str, reading: Reading, lens: Lens<'_>) -> Judgement {
    let mut parsed = parse::modes(text, reading)
        .map(|mode| parse::statements(text, mode).map(|raw| decide::all(text, raw, lens)));
    let Some(first) = parsed.next() else {
        return Judgement::refused(text.len(), rule::UNPARSABLE);
    };
    // Read both ways, the text must mean the same: a string that ends early one way may have
    // hidden a statement the other way.
    if parsed.any(|other| other != first) {
        return Judgement::refused(text.len(), rule::STRINGS);
    }
    match first {
        Ok(statements) => Judgement { statements },
        Err(rule) => Judgement::refused(text.len(), rule),
    }
}
