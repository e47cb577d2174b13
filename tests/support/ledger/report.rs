//! The ledger's report: figures per shape and for all, as a table for people and JSON for tools.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::gap::{Gaps, Window, gaps};
use super::judge::Findings;
use super::load::History;
use super::op::{Op, Outcome};
use super::shape::Shape;

/// What one load saw of one move.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The stretch in which gaps were looked for.
    pub window: Window,
    /// Gaps of all writers.
    pub write: Gaps,
    /// Gaps of all readers.
    pub read: Gaps,
    /// The worst writer's gap before the move: what this machine does by itself.
    pub quiet_write_ms: Option<f64>,
    /// Figures per shape.
    pub shapes: Vec<ShapeReport>,
    /// Operations without success per SQLSTATE; "none" where the server gave none.
    pub errors: BTreeMap<String, u64>,
    /// Clients that never got an answer.
    pub hung: u64,
    /// What does not agree with the servers' rows.
    pub findings: Findings,
}

/// Figures of the clients of one shape.
#[derive(Debug, Clone, Serialize)]
pub struct ShapeReport {
    /// Which shape.
    pub shape: Shape,
    /// Its clients' gaps.
    pub gaps: Gaps,
    /// Operations by outcome.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Connections that were closed under it.
    pub connections_lost: u64,
}

impl Report {
    /// Puts the figures of a history together.
    #[must_use]
    pub fn new(history: &History, window: Window, findings: Findings) -> Self {
        let ops = &history.ops;
        let mut errors = BTreeMap::new();
        for op in ops.iter().filter(|op| op.outcome != Outcome::Acked) {
            let code = op.sqlstate.clone().unwrap_or_else(|| "none".to_owned());
            *errors.entry(code).or_default() += 1;
        }
        // As long before the move as the window is after it, without the first moments.
        let before = Window {
            from: window.from / 4,
            to: window.from,
        };
        Self {
            window,
            write: gaps(ops, &Shape::WRITERS, window),
            read: gaps(ops, &Shape::READERS, window),
            quiet_write_ms: gaps(ops, &Shape::WRITERS, before).worst,
            shapes: Shape::WRITERS
                .into_iter()
                .chain(Shape::STATEFUL)
                .chain(Shape::API)
                .chain(Shape::READERS)
                .chain([Shape::ApiRead])
                .filter_map(|shape| ShapeReport::new(ops, shape, window))
                .collect(),
            errors,
            hung: history.hung,
            findings,
        }
    }

    /// Operations of all shapes with this outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.shapes
            .iter()
            .filter_map(|shape| shape.outcomes.get(&outcome))
            .sum()
    }

    /// Operations of all shapes that were not acknowledged.
    #[must_use]
    pub fn errors(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Connections closed under clients of all shapes.
    #[must_use]
    pub fn connections_lost(&self) -> u64 {
        self.shapes.iter().map(|shape| shape.connections_lost).sum()
    }
}

impl ShapeReport {
    fn new(ops: &[Op], shape: Shape, window: Window) -> Option<Self> {
        let mut outcomes = BTreeMap::new();
        let mut connections_lost = 0;
        for op in ops.iter().filter(|op| op.id.shape == shape) {
            *outcomes.entry(op.outcome).or_default() += 1;
            connections_lost += u64::from(op.lost);
        }
        let gaps = gaps(ops, &[shape], window);
        (!outcomes.is_empty()).then_some(Self {
            shape,
            gaps,
            outcomes,
            connections_lost,
        })
    }
}

/// A Markdown table that also reads well on a terminal.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| clients      | worst gap | acknowledged | refused | failed | unknown | no connection \
             | closed |"
        )?;
        writeln!(f, "|---|---:|---:|---:|---:|---:|---:|---:|")?;
        for shape in &self.shapes {
            let n = |outcome| shape.outcomes.get(&outcome).copied().unwrap_or_default();
            writeln!(
                f,
                "| {:12} | {:>9} | {:12} | {:7} | {:6} | {:7} | {:13} | {:6} |",
                shape.shape,
                text_ms(shape.gaps.worst),
                n(Outcome::Acked),
                n(Outcome::Refused),
                n(Outcome::Failed),
                n(Outcome::Unknown),
                n(Outcome::NoConnection),
                shape.connections_lost,
            )?;
        }
        if !self.errors.is_empty() {
            let errors: Vec<String> = self
                .errors
                .iter()
                .map(|(code, n)| format!("{code} × {n}"))
                .collect();
            writeln!(f, "\nNot acknowledged, by SQLSTATE: {}", errors.join(", "))?;
        }
        Ok(())
    }
}

/// Milliseconds for people: "12.3 ms", or a dash where there is nothing to say.
#[must_use]
pub fn text_ms(time: Option<f64>) -> String {
    match time {
        None => "–".to_owned(),
        Some(time) if time < 100.0 => format!("{time:.1} ms"),
        Some(time) => format!("{time:.0} ms"),
    }
}
