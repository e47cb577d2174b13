//! A store in memory, for tests of what happens when storage fails.
//!
//! It keeps the order of all writes and can be told to fail at the n-th one, so that a test can ask
//! what was already effective when the disk said no.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Answer, Durability, Found, GateRecord, Store, StoreError};

/// One accepted write, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// A phase.
    Gate(GateRecord),
    /// A journal line.
    Line {
        /// The run.
        run: String,
        /// The text.
        line: String,
        /// Whether the caller waited for the disk.
        durability: Durability,
    },
}

/// See the module.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    gates: HashMap<String, GateRecord>,
    written: Vec<Written>,
    fail_from: Option<usize>,
}

impl MemoryStore {
    /// An empty store that works.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every write from the `n`-th further one on (0: the next) fails as a full disk does.
    pub fn fail_after(&self, n: usize) {
        let mut inner = self.lock();
        inner.fail_from = Some(inner.written.len() + n);
    }

    /// Writes work again.
    pub fn heal(&self) {
        self.lock().fail_from = None;
    }

    /// All accepted writes in order.
    #[must_use]
    pub fn written(&self) -> Vec<Written> {
        self.lock().written.clone()
    }

    fn write(&self, written: Written) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if inner.is_failing() {
            return Err(full());
        }
        if let Written::Gate(record) = &written {
            let stored = inner.gates.get(&record.group).map_or(0, |r| r.epoch);
            if record.epoch <= stored {
                return Err(StoreError::Conflict {
                    offered: record.epoch,
                    stored,
                });
            }
            inner.gates.insert(record.group.clone(), record.clone());
        }
        inner.written.push(written);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_failing(&self) -> bool {
        self.fail_from.is_some_and(|n| self.written.len() >= n)
    }
}

fn full() -> StoreError {
    let full = io::Error::from(io::ErrorKind::StorageFull);
    StoreError::io("write", Path::new("memory"), full)
}

impl Store for MemoryStore {
    fn load(&self, group: &str) -> Found {
        match self.lock().gates.get(group) {
            Some(record) => Found::Record(record.clone()),
            None => Found::FirstStart(None),
        }
    }

    fn put(&self, record: GateRecord) -> Answer<'_, ()> {
        Box::pin(async move { self.write(Written::Gate(record)) })
    }

    fn append<'a>(&'a self, run: &'a str, line: String, durability: Durability) -> Answer<'a, ()> {
        let run = run.to_owned();
        Box::pin(async move {
            self.write(Written::Line {
                run,
                line,
                durability,
            })
        })
    }

    fn sync<'a>(&'a self, _run: &'a str) -> Answer<'a, ()> {
        let failing = self.lock().is_failing();
        Box::pin(async move { if failing { Err(full()) } else { Ok(()) } })
    }

    fn journals(&self) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        let mut runs: Vec<(String, Vec<String>)> = Vec::new();
        for written in &self.lock().written {
            let Written::Line { run, line, .. } = written else {
                continue;
            };
            match runs.iter_mut().find(|(id, _)| id == run) {
                Some((_, lines)) => lines.push(line.clone()),
                None => runs.push((run.clone(), vec![line.clone()])),
            }
        }
        Ok(runs)
    }
}
