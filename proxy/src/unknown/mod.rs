//! Writes whose outcome is not known: kept durably until resolved or acknowledged.
//!
//! A permit that loses its upstream becomes `Lost` and still blocks a drain. The entry holds that
//! `Lost`; only proof (control's business) or an operator's word ends it. The file is append-only
//! JSON lines in `state_dir/unknown/<group>.jsonl`, so that a restart forgets nothing: what was not
//! ended then blocks the successor's drains as well.

mod sighted;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::gate::{Gate, Lost};

pub use sighted::{Sighted, Xid};

/// The words of [`UnknownWrite::outcome`]; an acknowledged one is followed by who and why.
pub mod outcome {
    /// Nothing is known, and a drain waits for it.
    pub const UNKNOWN: &str = "unknown";
    /// Nothing can come of it any more; what came of it is still to be found out.
    pub const BACKEND_GONE: &str = "backend_gone";
    /// It is there.
    pub const COMMITTED: &str = "committed";
    /// It is not there.
    pub const LOST: &str = "lost";
    /// It awaits COMMIT PREPARED or ROLLBACK PREPARED.
    pub const PREPARED: &str = "prepared";
    /// It cannot be found out any more.
    pub const UNRESOLVABLE: &str = "unresolvable";
    /// An operator took note.
    pub const ACKNOWLEDGED: &str = "acknowledged";
}

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
    /// Digest of the statement, or method and path of the request; null where the text was not kept.
    pub digest: Option<String>,
    /// Idempotency key, of HTTP requests that carry one.
    pub idempotency_key: Option<String>,
    /// Id of the HTTP request, where it was one. Then no backend of ours had it, and none can be
    /// asked about it.
    #[serde(default)]
    pub request: Option<String>,
    /// Transaction id, where it is known.
    pub xid: Option<u64>,
    /// All that was in flight was one transaction, so that an id seen at its backend is its own.
    #[serde(default)]
    pub single: bool,
    /// Timeline of the server it was sent to. On another one the same id may be another's.
    #[serde(default)]
    pub timeline: Option<u32>,
    /// Since when that server had been running without a crash; after one, ids that had not reached
    /// its disk are given out again.
    #[serde(default)]
    pub generation: Option<i64>,
    /// One of [`outcome`].
    pub outcome: String,
}

impl UnknownWrite {
    /// What came of it is still to be found out.
    pub fn is_open(&self) -> bool {
        matches!(
            self.outcome.as_str(),
            outcome::UNKNOWN | outcome::BACKEND_GONE
        )
    }
}

struct Entry {
    lost: Option<Lost>,
    write: UnknownWrite,
}

/// The unknown writes of a group.
pub struct UnknownLedger {
    path: Option<PathBuf>,
    state: Mutex<State>,
    /// What was seen of the servers, for the next write that is lost.
    pub sighted: Sighted,
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
            sighted: Sighted::default(),
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
            sighted: Sighted::default(),
        })
    }

    /// Has what an earlier start left without an end block this one's drains as well. Returns how
    /// many there are.
    pub fn inherit(&self, gate: &Arc<Gate>) -> usize {
        let mut state = self.lock();
        let left = state
            .entries
            .iter_mut()
            .filter(|e| e.lost.is_none() && e.write.outcome == outcome::UNKNOWN);
        left.map(|entry| entry.lost = Some(gate.inherit_unknown()))
            .count()
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

    /// A transaction id became known.
    pub fn learn_xid(&self, id: u64, xid: u64) {
        let mut state = self.lock();
        let Some(entry) = state.entries.iter_mut().find(|e| e.write.id == id) else {
            return;
        };
        if entry.write.xid.is_none() {
            entry.write.xid = Some(xid);
            let write = entry.write.clone();
            state.append(&write);
        }
    }

    /// Entries whose outcome is still to be found out, oldest first.
    pub fn open_ones(&self) -> Vec<UnknownWrite> {
        let state = self.lock();
        let writes = state.entries.iter().map(|e| &e.write);
        writes.filter(|write| write.is_open()).cloned().collect()
    }

    /// Every entry, oldest first.
    pub fn list(&self) -> Vec<UnknownWrite> {
        self.lock()
            .entries
            .iter()
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
