//! What an unclean stop left running at the servers, until it is proved gone.
//!
//! The counts of a killed daemon died with it, its statements did not. So no drain of the
//! successor says `drained` before the server shows none of the predecessor's sessions, or a
//! barrier ended them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::servers::{Older, Servers};
use crate::clock;
use crate::fleet::{Incarnation, Predecessor};
use crate::shutdown::Shutdown;
use crate::upstream::Region;

/// Between two questions; each is one cheap query, and a drain waits for the answer.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// See the module.
pub(crate) struct Leftover {
    left: Predecessor,
    asked: Mutex<BTreeMap<Region, Older>>,
    gone: watch::Sender<bool>,
    log: Arc<Incarnation>,
    born: Instant,
}

impl Leftover {
    /// What was found, and the regions where any session may be the predecessor's.
    pub(crate) fn new(left: Predecessor, regions: &[Region], log: Arc<Incarnation>) -> Self {
        let mut asked = BTreeMap::new();
        match &left {
            Predecessor::None => {}
            Predecessor::Unlisted => {
                asked.extend(regions.iter().map(|region| (region.clone(), Older::Any)));
            }
            Predecessor::Listed(list) => {
                for region in regions {
                    let here = list.iter().filter(|b| b.region == region.as_str());
                    let pids: Vec<i32> = here.map(|b| b.pid).collect();
                    if !pids.is_empty() {
                        asked.insert(region.clone(), Older::Listed(pids));
                    }
                }
            }
        }
        let gone = watch::Sender::new(asked.is_empty());
        Self {
            left,
            asked: Mutex::new(asked),
            gone,
            log,
            born: clock::now(),
        }
    }

    /// Whether nothing of the predecessor is left.
    pub(crate) fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Resolves once nothing of the predecessor is left.
    pub(crate) async fn gone(&self) {
        let mut gone = self.gone.subscribe();
        // The sender lives as long as `self`.
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// A barrier ended every session there that is not ours, or the server is proved harmless.
    pub(crate) fn ended_in(&self, region: &Region) {
        self.asked().remove(region);
        self.settle();
    }

    /// As a sentence for status, while something is left.
    pub(crate) fn notice(&self) -> Option<String> {
        let asked = self.asked();
        if asked.is_empty() {
            return None;
        }
        let regions: Vec<&str> = asked.keys().map(Region::as_str).collect();
        Some(format!(
            "the daemon before this one stopped with sessions open in {}; no drain ends before \
             the server shows that they are gone",
            regions.join(", ")
        ))
    }

    /// Asks until nothing is left.
    pub(crate) async fn watch(&self, servers: &dyn Servers, mut stop: Shutdown) {
        while !self.is_gone() && !stop.is_stopping() {
            let asked: Vec<_> = self
                .asked()
                .iter()
                .map(|(r, o)| (r.clone(), o.clone()))
                .collect();
            for (region, which) in asked {
                // A server that does not answer proves nothing: it stays on the list.
                let Ok(left) = servers.older(&region, which, self.born.elapsed()).await else {
                    continue;
                };
                if left.is_empty() {
                    self.asked().remove(&region);
                }
            }
            self.settle();
            // Both arms may be dropped: a sleep and a look at a flag.
            tokio::select! {
                () = sleep(ASK_EVERY) => {}
                () = stop.stopping() => {}
            }
        }
    }

    fn settle(&self) {
        if self.asked().is_empty() && !self.gone.send_replace(true) {
            self.log.predecessor_gone(&self.left);
        }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, BTreeMap<Region, Older>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
