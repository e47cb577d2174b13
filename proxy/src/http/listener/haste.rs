//! How an HTTP/2 client asks and leaves.
//!
//! Each request costs its server more than its client, the more so if the client does not wait for the
//! answer ("rapid reset"). People and browsers cancel too, but not most of the time, nor so often. The
//! crate `h2` has limits of its own on streams that are reset before we see them; this one holds for
//! those that we do see. Pure but for the clock.

use std::time::Duration;

use tokio::time::Instant;

/// Requests of a connection that a client may cancel in any case within that time.
const CANCELS: usize = 200;
const CANCELS_WITHIN: Duration = Duration::from_secs(10);

/// See the module.
pub(super) struct Haste {
    since: Instant,
    taken: usize,
    gone_before: usize,
}

impl Default for Haste {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            taken: 0,
            gone_before: 0,
        }
    }
}

impl Haste {
    /// Counts a request in; `gone` is how many clients have left so far.
    pub(super) fn is_too_much(&mut self, gone: usize) -> bool {
        if self.since.elapsed() > CANCELS_WITHIN {
            *self = Self {
                gone_before: gone,
                ..Self::default()
            };
        }
        self.taken += 1;
        let gone = gone - self.gone_before;
        gone > CANCELS && gone * 2 > self.taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes requests of which one in `of` is left, and says at which one it was too much.
    fn ends(haste: &mut Haste, gone: &mut usize, of: usize) -> Option<usize> {
        (1..=2_000).find(|at| {
            *gone += usize::from(at % of == 0);
            haste.is_too_much(*gone)
        })
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_most_of_what_it_asks_for_is_too_hasty_and_nobody_else() {
        let (mut haste, mut gone) = (Haste::default(), 0);
        assert_eq!(ends(&mut haste, &mut gone, 1), Some(CANCELS + 1));
        // As often as not is no more than half.
        let (mut haste, mut gone) = (Haste::default(), 0);
        assert_eq!(ends(&mut haste, &mut gone, 2), None);
        // What was long ago does not count.
        let (mut haste, mut gone) = (Haste::default(), CANCELS);
        assert!(!haste.is_too_much(gone));
        tokio::time::advance(CANCELS_WITHIN + Duration::from_secs(1)).await;
        assert_eq!(ends(&mut haste, &mut gone, 1), Some(CANCELS + 2));
    }
}
