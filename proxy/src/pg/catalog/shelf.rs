//! Where the catalogs of a group stand: one shelf per database, shared by its sessions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};

/// Most databases whose catalogs are kept. Sessions of any further one are judged without.
const MOST: usize = 32;

/// One state of a database's catalog. It never changes; a newer state takes its place.
#[derive(Debug)]
pub struct Catalog {
    generation: u64,
    /// Why nothing is known.
    missing: Option<String>,
}

/// Numbers of catalog states, never given twice. Zero is for those that hold nothing.
static GENERATION: AtomicU64 = AtomicU64::new(1);

impl Catalog {
    /// A catalog that could not be had.
    pub fn missing(why: impl Into<String>) -> Self {
        Self {
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            missing: Some(why.into()),
        }
    }

    /// Differs between any two states. A judgement holds only for the one it was made with.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Why nothing is known of the database; `None` where something is.
    pub fn why_missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }
}

/// The place of one database's catalog.
#[derive(Debug)]
pub struct Shelf {
    current: ArcSwap<Catalog>,
}

impl Shelf {
    /// A shelf with this on it.
    pub fn new(catalog: Catalog) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(catalog),
        })
    }

    /// What stands on it now.
    pub fn catalog(&self) -> Guard<Arc<Catalog>> {
        self.current.load()
    }
}

/// The shelves of a group.
#[derive(Debug, Default)]
pub struct Catalogs {
    shelves: Mutex<HashMap<String, Arc<Shelf>>>,
}

impl Catalogs {
    /// The shelf of a database. A new one holds nothing yet.
    pub fn shelf(&self, database: &str) -> Arc<Shelf> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shelf) = shelves.get(database) {
            return Arc::clone(shelf);
        }
        if shelves.len() == MOST {
            return Shelf::new(Catalog::missing(format!(
                "the catalogs of {MOST} other databases are kept, and no more"
            )));
        }
        let shelf = Shelf::new(Catalog::missing("it is not loaded yet"));
        shelves.insert(database.to_owned(), Arc::clone(&shelf));
        shelf
    }
}
