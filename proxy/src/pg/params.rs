//! Lists of parameters that many sessions have alike, kept once.
//!
//! What a server reports at login (some fifteen names and values) and what clients ask for is the
//! same for all sessions of an application. Each kept its own, these lists would be a third of the
//! memory of a session in rest.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Names and values, in order.
pub(crate) type Pairs = Vec<(String, String)>;

/// Lists kept at a time; more than there are applications. What does not fit is each session's own.
const KEPT: usize = 1024;

/// Known lists.
#[derive(Default)]
pub struct Params(Mutex<HashSet<Arc<Pairs>>>);

impl Params {
    /// The one list that is equal to this.
    pub(crate) fn share(&self, pairs: Pairs) -> Arc<Pairs> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(&pairs) {
            return Arc::clone(same);
        }
        let shared = Arc::new(pairs);
        if known.len() >= KEPT {
            known.retain(|list| Arc::strong_count(list) > 1);
        }
        if known.len() < KEPT {
            known.insert(Arc::clone(&shared));
        }
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lists_are_one_and_lists_that_nobody_uses_make_room() {
        let params = Params::default();
        let list = |n: usize| vec![("application_name".to_owned(), n.to_string())];
        let (one, two) = (params.share(list(1)), params.share(list(1)));
        assert!(Arc::ptr_eq(&one, &two));
        for n in 0..2 * KEPT {
            params.share(list(n));
        }
        assert!(Arc::ptr_eq(&one, &params.share(list(1))));
        assert!(params.0.lock().expect("not poisoned").len() <= KEPT);
    }
}
