//! Durable state: what must survive a restart, and who may change it.
//!
//! [`Store`] is the seam: a local directory now, a shared store for a fleet later. It keeps the
//! phase per group and the journal of each run. It promises that a call which returned `Ok` survives
//! a power cut (where durability was asked for), and that the epoch only grows (G3). It decides
//! nothing: order and meaning belong to `control`.

mod backends;
mod error;
mod files;
mod local;
mod lock;
mod memory;
mod record;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;

pub use backends::{Backend, Incarnation, Predecessor};
pub use error::StoreError;
pub use local::{LocalStore, Start};
pub use memory::{MemoryStore, Written};
pub use record::{GateRecord, InstanceRecord, StoredIdentity, StoredPhase, VERSION};

/// A store's answer; boxed because the store is chosen at start-up.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What a store knows of a group's phase at start.
#[derive(Debug)]
pub enum Found {
    /// Nothing was ever decided: a first start, or a later try of one (with the epoch it reached).
    FirstStart(Option<u64>),
    /// The phase as last written.
    Record(GateRecord),
    /// There was state and it is gone or unreadable: the group stays fenced.
    Lost(String),
}

/// Whether a journal line must be on disk before the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns: fence, point of no return, promoted, open, aborting.
    Sync,
    /// With the next line that must be; a crash of the process alone loses nothing.
    Lazy,
}

/// Where phases and journals live.
pub trait Store: Send + Sync {
    /// The phase as stored, for start-up.
    fn load(&self, group: &str) -> Found;

    /// Writes a phase; returns once it survives a power cut. Refuses an epoch that is not above the
    /// stored one, so that a late writer cannot undo a newer phase.
    fn put(&self, record: GateRecord) -> Answer<'_, ()>;

    /// Appends one line to a run's journal; the first line creates it.
    fn append<'a>(&'a self, run: &'a str, line: String, durability: Durability) -> Answer<'a, ()>;

    /// Returns once every line appended to the run's journal so far survives a power cut.
    fn sync<'a>(&'a self, run: &'a str) -> Answer<'a, ()>;

    /// Every journal: run id and its whole lines, oldest run first.
    ///
    /// # Errors
    /// A journal that cannot be read; a torn last line is cut off and no error.
    fn journals(&self) -> Result<Vec<(String, Vec<String>)>, StoreError>;
}
