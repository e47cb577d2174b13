//! Connections that are no sessions yet, bounded: whoever says nothing takes a descriptor until its
//! time is over, and without descriptors nothing is observed or moved any more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Sessions;

/// As many may arrive at least where few sessions are allowed: they come all at once after a restart.
const LEAST: usize = 100;

/// One of them, until it is a session or gone.
pub struct Arriving(Arc<Sessions>);

impl Sessions {
    /// One more arrives; `None`: as many as there may be sessions do so already.
    pub fn arrives(self: &Arc<Self>, sessions: usize) -> Option<Arriving> {
        let place = Arriving(Arc::clone(self));
        let before = self.arriving.fetch_add(1, Ordering::Relaxed);
        (before < sessions.max(LEAST)).then_some(place)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_arrive_as_there_may_be_sessions_and_a_place_is_free_again() {
        let sessions = Arc::new(Sessions::default());
        let mut all: Vec<_> = (0..LEAST).map(|_| sessions.arrives(1)).collect();
        assert!(all.iter().all(Option::is_some));
        assert!(sessions.arrives(1).is_none());
        assert!(sessions.arrives(LEAST + 1).is_some());
        all.pop();
        assert!(sessions.arrives(1).is_some());
    }
}
