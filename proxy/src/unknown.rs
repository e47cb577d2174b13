//! Writes whose outcome is not known: kept durably until resolved or acknowledged.
//!
//! A permit that loses its upstream becomes `Lost` and still blocks a drain. The entry holds that
//! `Lost`; only proof (control's business) or an operator's word ends it. The file is append-only
//! JSON lines in `state_dir/unknown/<group>.jsonl`, so that a restart forgets nothing.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::gate::Lost;

/// What is known of a write whose outcome is not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownWrite {
    /// Our number of the entry, unique in the group.
    pub id: u64,
    /// When the connection to the server was lost (RFC 3339, UTC).
    pub at: String,
    /// Region the write was sent to.
    pub region: String,
    /// Process id of the backend that had it.
    pub pid: i32,
    /// User of the session.
    pub user: String,
    /// Database of the session.
    pub database: String,
    /// Address of the client.
    pub client: String,
    /// Digest of the statement; null where its text was not kept.
    pub digest: Option<String>,
    /// Idempotency key, of HTTP requests that carry one.
    pub idempotency_key: Option<String>,
    /// Transaction id, where it is known.
    pub xid: Option<u64>,
    /// `unknown`, then `backend_gone`, `committed`, `lost`, `unresolvable`; or `acknowledged`.
    pub outcome: String,
}

struct Entry {
    lost: Option<Lost>,
    write: UnknownWrite,
}

/// The unknown writes of a group.
pub struct UnknownLedger {
    path: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    entries: Vec<Entry>,
    file: Option<File>,
    /// The last failure to write, shown by status until a write succeeds.
    broken: Option<String>,
}

impl UnknownLedger {
    /// A ledger that forgets at the end of the process; for tests.
    pub fn in_memory() -> Self {
        Self {
            path: None,
            state: Mutex::default(),
        }
    }

    /// Opens the ledger at `path`, reading what an earlier start left. A torn last line is dropped:
    /// its client never got an answer that depended on it.
    ///
    /// # Errors
    /// When the file cannot be opened or read.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(path)?;
        let mut state = State {
            next: 1,
            ..State::default()
        };
        for line in BufReader::new(&file).lines() {
            let Ok(write) = serde_json::from_str::<UnknownWrite>(&line?) else {
                continue;
            };
            state.next = state.next.max(write.id + 1);
            state.entries.retain(|e| e.write.id != write.id);
            state.entries.push(Entry { lost: None, write });
        }
        state.file = Some(file);
        Ok(Self {
            path: Some(path.to_owned()),
            state: Mutex::new(state),
        })
    }

    /// Records a lost write. The `Lost` keeps blocking drains until [`Self::resolve`].
    pub fn record(&self, lost: Lost, mut write: UnknownWrite) -> u64 {
        let mut state = self.lock();
        write.id = state.next.max(1);
        state.next = write.id + 1;
        let id = write.id;
        state.append(&write);
        state.entries.push(Entry {
            lost: Some(lost),
            write,
        });
        id
    }

    /// Ends an entry's blocking of drains and notes its outcome; false when there is no such entry.
    pub fn resolve(&self, id: u64, outcome: &str) -> bool {
        let mut state = self.lock();
        let Some(entry) = state.entries.iter_mut().find(|e| e.write.id == id) else {
            return false;
        };
        outcome.clone_into(&mut entry.write.outcome);
        let (lost, write) = (entry.lost.take(), entry.write.clone());
        state.append(&write);
        drop(state);
        if let Some(lost) = lost {
            lost.resolve();
        }
        true
    }

    /// Every entry, oldest first.
    pub fn list(&self) -> Vec<UnknownWrite> {
        self.lock()
            .entries
            .iter()
            .map(|e| e.write.clone())
            .collect()
    }

    /// Entries that still block a drain.
    pub fn blocking(&self) -> Vec<UnknownWrite> {
        let state = self.lock();
        state
            .entries
            .iter()
            .filter(|e| e.lost.is_some())
            .map(|e| e.write.clone())
            .collect()
    }

    /// Why the file could not be written, if that is so.
    pub fn broken(&self) -> Option<String> {
        self.lock().broken.clone()
    }

    /// Where the ledger is kept.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, write: &UnknownWrite) {
        let Some(file) = &mut self.file else { return };
        let mut line = serde_json::to_vec(write).unwrap_or_default();
        line.push(b'\n');
        self.broken = file
            .write_all(&line)
            .and_then(|()| file.sync_data())
            .err()
            .map(|e| e.to_string());
    }
}

/// Now, as RFC 3339 in UTC.
pub fn now_rfc3339() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
