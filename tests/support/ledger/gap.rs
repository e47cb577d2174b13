//! How long clients went without a success. Pure.
//!
//! A gap is the time between two consecutive successes of one client, as only the client can see
//! it: the pause of the pace, a hold, a reconnect and a retry all count. "Nothing at all" is the
//! same over all clients together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::op::{Op, Outcome};
use super::shape::Shape;

/// A stretch of the load's time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Window {
    /// Its start: when the move was asked for.
    pub from: Duration,
    /// Its end: long enough after the move that clients had time to recover.
    pub to: Duration,
}

/// Gaps in milliseconds; none where no such client ran.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Gaps {
    /// The worst client's.
    pub worst: Option<f64>,
    /// The middle client's.
    pub median: Option<f64>,
    /// No success of any client.
    pub nothing_at_all: Option<f64>,
}

/// The longest time without a success that ends after the window began. If none came any more,
/// it lasts to the window's end.
#[must_use]
pub fn longest(successes: &[Duration], window: Window) -> Duration {
    let mut sorted: Vec<Duration> = successes
        .iter()
        .copied()
        .filter(|time| *time <= window.to)
        .collect();
    sorted.sort_unstable();
    sorted.push(window.to);
    let gaps = sorted.windows(2).filter(|pair| pair[1] >= window.from);
    let all = gaps.map(|pair| pair[1] - pair[0]).max();
    // One that had no success at all has waited for the whole window.
    all.unwrap_or_else(|| window.to.saturating_sub(window.from))
}

/// Gaps of the clients whose shape is one of `shapes`. A client without any success counts with
/// the whole window.
#[must_use]
pub fn gaps(ops: &[Op], shapes: &[Shape], window: Window) -> Gaps {
    let mut successes: BTreeMap<(Shape, i16), Vec<Duration>> = BTreeMap::new();
    for op in ops.iter().filter(|op| shapes.contains(&op.id.shape)) {
        let times = successes.entry((op.id.shape, op.id.client)).or_default();
        if op.outcome == Outcome::Acked {
            times.push(op.end);
        }
    }
    if successes.is_empty() {
        return Gaps::default();
    }
    let mut each: Vec<Duration> = successes
        .values()
        .map(|times| longest(times, window))
        .collect();
    each.sort_unstable();
    let together: Vec<Duration> = successes.into_values().flatten().collect();
    Gaps {
        worst: each.last().copied().map(ms),
        median: each.get(each.len() / 2).copied().map(ms),
        nothing_at_all: Some(ms(longest(&together, window))),
    }
}

/// A duration in milliseconds, as reports give it.
#[must_use]
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
