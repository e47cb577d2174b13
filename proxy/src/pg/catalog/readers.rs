//! Who reads catalogs right now, by the process ids of their backends.
//!
//! A catalog is read behind a fence too, since what is in flight may need a proof, and a login of the
//! observer that began before the barrier was up shows behind it. It runs one READ ONLY transaction
//! and serves nobody, so the barrier takes it neither for a foreign session nor for a writer.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::upstream::Region;

/// How long one is known that has ended: whoever asks has looked at the server before.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Known {
    region: Region,
    pid: i32,
    ended: Option<Instant>,
}

/// All of a group.
#[derive(Debug, Default)]
pub(super) struct Readers(Mutex<Vec<Known>>);

/// One, until it is dropped.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    of: &'a Readers,
    region: &'a Region,
    pid: i32,
}

impl Readers {
    fn all(&self) -> MutexGuard<'_, Vec<Known>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.ended.is_none_or(|at| at.elapsed() < LINGER));
        all
    }

    pub(super) fn reads<'a>(&'a self, region: &'a Region, pid: i32) -> Reader<'a> {
        self.all().push(Known {
            region: region.clone(),
            pid,
            ended: None,
        });
        Reader {
            of: self,
            region,
            pid,
        }
    }

    pub(super) fn in_region(&self, region: &Region) -> Vec<i32> {
        let all = self.all();
        let here = all.iter().filter(|known| known.region == *region);
        here.map(|known| known.pid).collect()
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let mut all = self.of.all();
        let own = |known: &&mut Known| {
            known.region == *self.region && known.pid == self.pid && known.ended.is_none()
        };
        if let Some(known) = all.iter_mut().find(own) {
            known.ended = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_known_in_its_region_and_a_little_longer_than_it_reads() {
        let readers = Readers::default();
        let (a, b) = (Region::new("a"), Region::new("b"));
        let first = readers.reads(&a, 7);
        let second = readers.reads(&a, 8);
        assert_eq!(readers.in_region(&a), [7, 8]);
        assert!(readers.in_region(&b).is_empty());
        drop(first);
        assert_eq!(readers.in_region(&a), [7, 8]);
        tokio::time::advance(LINGER).await;
        assert_eq!(readers.in_region(&a), [8]);
        drop(second);
        tokio::time::advance(LINGER).await;
        assert!(readers.in_region(&a).is_empty());
    }
}
