//! Small pieces of text for people: durations, sizes, what is not known, tables.

use serde::Serialize;
use serde_json::Value;
use writefence_admin::api::{Run, RunKind, Step, StepState};

/// Milliseconds as a person says them.
pub(crate) fn ms(ms: u64) -> String {
    let (s, m) = (ms / 1000, ms / 60_000);
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{s}.{:02} s", ms % 1000 / 10),
        60_000..3_600_000 => format!("{m} min {} s", s % 60),
        _ => format!("{} h {} min", m / 60, m % 60),
    }
}

/// For how long a run has kept writes stopped. In a failover that is the smaller part of it: writes
/// failed before, since the primary was lost.
pub(crate) fn gap(run: &Run) -> Option<String> {
    let gap = ms(run.write_gap_ms?);
    let opened = |step: &writefence_admin::api::StepRecord| {
        step.name == Step::Open && step.state == StepState::Done
    };
    let is_over = run.state.is_final() || run.steps.iter().any(opened);
    Some(match (run.kind, is_over) {
        (_, false) => format!("writes stopped for {gap} so far"),
        (RunKind::Failover, true) => {
            format!("fenced for {gap}; since the primary was lost: see `report`")
        }
        (RunKind::Steps | RunKind::Switchover | RunKind::Drill, true) => {
            format!("writes stopped for {gap}")
        }
    })
}

/// Bytes as a person says them.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(size, _)| n >= *size) {
        Some((size, unit)) => format!("{}.{} {unit}", n / size, n % size * 10 / size),
        None => format!("{n} B"),
    }
}

/// A value, or `?` for what is not known: never a 0 in its place.
pub(crate) fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "?".to_owned(), |value| value.to_string())
}

/// A word of the documents, such as `in_transaction`, as it stands in JSON.
pub(crate) fn word(word: impl Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}

/// `1 statement`, `2 statements`.
pub(crate) fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Rows with columns aligned, each line indented by `indent` spaces.
pub(crate) fn table(indent: usize, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<_> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
