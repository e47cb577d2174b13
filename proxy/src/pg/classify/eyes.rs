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
use crate::pg::catalog::{Facts, settle};

#[cfg(test)]
impl Eyes {
    /// Eyes for tests that are about something else: a database with a few plain tables.
    pub(crate) fn in_tests() -> Self {
        Self::of_facts(Policy::default(), &Facts::plain_tables())
    }

    /// Eyes for a database with these objects.
    pub(crate) fn of_facts(policy: Policy, facts: &Facts) -> Self {
        let model = settle(facts).expect("the objects of a test settle");
        Self {
            policy,
            shelf: Shelf::new(Catalog::of(model, 0)),
        }
    }
}
