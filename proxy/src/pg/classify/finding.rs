//! A verdict with its reason, and how several of them become one: the gravest stands, and of
//! equally grave ones the first met in the text.

use super::rule;
use crate::pg::catalog::Nature;

/// What classification decided about a statement. Ordered from harmless to grave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Changes nothing durable, as far as syntax tells.
    Read,
    /// Transaction and session control: follows its transaction.
    Boundary,
    /// Calls or names something that is not known here; wall two judges it.
    Uncertain,
    /// Changes something durable, or was not understood.
    Write,
}

impl Verdict {
    /// The word for it in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Boundary => "boundary",
            Self::Uncertain => "uncertain",
            Self::Write => "write",
        }
    }
}

/// A verdict and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was decided.
    pub verdict: Verdict,
    /// The rule that decided, one of [`super::rule::ALL`].
    pub rule: &'static str,
    /// The name that decided, as written.
    pub decided_by: Option<String>,
    /// Everything that was met, not only what decided: an operator may let one effect pass and not
    /// another.
    pub(super) nature: Nature,
}

impl Finding {
    pub(super) fn new(verdict: Verdict, rule: &'static str, decided_by: Option<String>) -> Self {
        Self {
            verdict,
            rule,
            decided_by,
            nature: Nature {
                way_out: rule == rule::WAY_OUT,
                unknown: verdict > Verdict::Read,
                ..Nature::HARMLESS
            },
        }
    }

    pub(super) fn read(rule: &'static str) -> Self {
        Self::new(Verdict::Read, rule, None)
    }

    pub(super) fn boundary(rule: &'static str) -> Self {
        Self::new(Verdict::Boundary, rule, None)
    }

    pub(super) fn write(rule: &'static str) -> Self {
        Self::new(Verdict::Write, rule, None)
    }

    pub(super) fn by(mut self, name: impl Into<String>) -> Self {
        self.decided_by = Some(name.into());
        self
    }

    /// Both together: the graver of them.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.worsen(other);
        self
    }

    /// Keeps the graver of both; the one that was there first if they are equal.
    pub(super) fn worsen(&mut self, other: Self) {
        let nature = self.nature.and(other.nature);
        if other.verdict > self.verdict {
            *self = other;
        }
        self.nature = nature;
    }
}
