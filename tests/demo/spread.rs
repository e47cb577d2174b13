//! How a figure is spread over many rounds.

use serde::Serialize;
use writefence_tests::ledger::text_ms;

/// Milliseconds; none without a sample.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) n: usize,
    pub(crate) min: Option<f64>,
    pub(crate) median: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) max: Option<f64>,
}

impl Spread {
    pub(crate) fn of(samples: impl Iterator<Item = Option<f64>>) -> Self {
        let mut sorted: Vec<f64> = samples.flatten().collect();
        sorted.sort_by(f64::total_cmp);
        // Nearest rank: the smallest sample that so many percent do not exceed.
        let rank = |percent: usize| {
            let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(at).copied()
        };
        Self {
            n: sorted.len(),
            min: rank(0),
            median: rank(50),
            p99: rank(99),
            max: rank(100),
        }
    }

    pub(crate) fn line(&self) -> String {
        let [min, median, p99, max] = [self.min, self.median, self.p99, self.max].map(text_ms);
        format!("min {min:>9}   median {median:>9}   p99 {p99:>9}   max {max:>9}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_of_nearest_rank() {
        let spread = Spread::of((1..=200u32).rev().map(|n| Some(f64::from(n))));
        let figures = [spread.min, spread.median, spread.p99, spread.max];
        assert_eq!(figures, [1.0, 100.0, 198.0, 200.0].map(Some));
        assert_eq!(Spread::of([None].into_iter()).max, None);
    }
}
