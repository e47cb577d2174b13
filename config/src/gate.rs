//! What a group's fence, drain and run are allowed to take.
//!
//! These are the times and answers that `control` hands to the gate with each fence. The phase
//! itself is never configuration: it is durable state and changes only by a command.

use std::time::Duration;

use crate::defaults;
use crate::raw::{Findings, Section};
use crate::value::Word;

/// How a fence answers new writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Writes wait, bounded in number, bytes and time, and are refused after that.
    Hold,
    /// Writes are refused at once.
    Reject,
}

/// What a BEGIN meets while the gate is fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// As `Hold` under an answer of hold, as `Defer` under reject.
    Auto,
    /// Answered here, and sent with the first statement.
    Defer,
    /// Waits, unless it is READ ONLY.
    Hold,
}

/// In which order a group's lanes are fenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The http lane first, and the sql lane once it is drained or the http deadline is over.
    HttpFirst,
    /// Both lanes at once.
    Together,
}

/// What a fence stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Writes; reads flow.
    Writes,
    /// Everything, as PgBouncer's PAUSE does.
    All,
}

/// `[group.X.fence]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// How new writes are answered unless the command says otherwise.
    pub answer: Answer,
    /// How long one write waits at most before it is refused.
    pub hold: Duration,
    /// What a BEGIN meets.
    pub begin: Begin,
    /// Which lane goes first.
    pub order: Order,
    /// What is stopped.
    pub scope: Scope,
    /// How long the sql lane waits for the http lane under [`Order::HttpFirst`].
    pub http_deadline: Duration,
}

/// `[group.X.drain]`, both counted from the fence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// After this an open transaction may write no more; zero is legal.
    pub grace: Duration,
    /// After this whoever still holds a permit is a straggler.
    pub deadline: Duration,
}

/// `[group.X.run]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// A switchover that takes longer before its point of no return rolls back by itself.
    pub budget: Duration,
}

/// `[group.X.preflight]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// Time between two looks at whether each candidate could take over.
    pub interval: Duration,
}

impl Preflight {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        Self {
            interval: section.duration("interval", &defaults::PREFLIGHT_INTERVAL, found),
        }
    }
}

impl Fence {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        Self {
            answer: section.word("answer", defaults::ANSWER, found),
            hold: section.duration("hold", &defaults::HOLD, found),
            begin: section.word("begin", defaults::BEGIN, found),
            order: section.word("order", defaults::ORDER, found),
            scope: section.word("scope", defaults::SCOPE, found),
            http_deadline: section.duration("http_deadline", &defaults::HTTP_DEADLINE, found),
        }
    }
}

impl Drain {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        Self {
            grace: section.duration("grace", &defaults::GRACE, found),
            deadline: section.duration("deadline", &defaults::DEADLINE, found),
        }
    }
}

impl Run {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        Self {
            budget: section.duration("budget", &defaults::BUDGET, found),
        }
    }
}

impl Word for Answer {
    const WORDS: &'static [(&'static str, Self)] =
        &[("hold", Self::Hold), ("reject", Self::Reject)];
}

impl Word for Begin {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", Self::Auto),
        ("defer", Self::Defer),
        ("hold", Self::Hold),
    ];
}

impl Word for Order {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("http-first", Self::HttpFirst),
        ("together", Self::Together),
    ];
}

impl Word for Scope {
    const WORDS: &'static [(&'static str, Self)] = &[("writes", Self::Writes), ("all", Self::All)];
}
