//! What texts are judged with, but for the text's own reading.

use std::sync::Arc;

use super::policy::Policy;
use crate::pg::catalog::{Catalog, Shelf};

/// The operator's choices and the catalog of the database in use.
///
/// The catalog is looked up at each judging, so that one made before a reload differs from one made
/// after it only by its [`generation`](Self::generation).
#[derive(Debug, Clone)]
pub struct Eyes {
    /// The operator's choices.
    pub policy: Policy,
    /// Where the catalog is.
    pub shelf: Arc<Shelf>,
}

impl Eyes {
    /// Eyes that know nothing of any database.
    pub fn without_catalog(policy: Policy, why: &str) -> Self {
        Self {
            policy,
            shelf: Shelf::new(Catalog::missing(why)),
        }
    }

    /// Changes whenever a judgement may turn out differently.
    pub fn generation(&self) -> u64 {
        self.shelf.catalog().generation() * 2 + u64::from(self.policy.temporaries)
    }
}

#[cfg(test)]
impl Eyes {
    /// Eyes for tests that are about something else.
    pub(crate) fn in_tests() -> Self {
        Self::without_catalog(Policy::default(), "a test")
    }
}
