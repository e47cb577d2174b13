//! Which server processes belong to our sessions, kept so that a successor can ask about them.
//!
//! A daemon that dies takes its counts along, while the statements it sent run on. So each backend
//! pid is appended when a session gets it and when it ends. The appends are not synced: they survive
//! the death of the process, which is the common case; after a death of the machine the successor
//! sees another boot and asks about every older session instead (`Predecessor::Unlisted`).

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{StoreError, files};

/// Rewritten when it has grown past this: small enough to read at once, large enough to be rare.
const REWRITE_AT_BYTES: usize = 1 << 20;

/// One server process of ours: the region's name and the backend's process id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Backend {
    /// Region as configured.
    pub region: String,
    /// Process id at the server.
    pub pid: i32,
}

/// What an unclean stop left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// Nothing: first start, clean stop, or all are proved gone.
    None,
    /// These backends were open when the process died.
    Listed(Vec<Backend>),
    /// The machine went down with it: any older session may be the predecessor's.
    Unlisted,
}

/// A group's log of its own backends. Cheap: one short write per session begin and end.
#[derive(Debug)]
pub struct Incarnation {
    path: PathBuf,
    log: Mutex<Log>,
}

#[derive(Debug)]
struct Log {
    file: File,
    open: HashSet<Backend>,
    bytes: usize,
    /// Set by a failed append, and while an unlisted predecessor is not proved gone.
    incomplete: bool,
}

impl Incarnation {
    /// Begins a new log in place of the predecessor's.
    pub(crate) fn begin(path: &Path, keep: &Predecessor) -> Result<Self, StoreError> {
        let incomplete = matches!(keep, Predecessor::Unlisted);
        let open: HashSet<Backend> = match keep {
            Predecessor::Listed(list) => list.iter().cloned().collect(),
            Predecessor::None | Predecessor::Unlisted => HashSet::new(),
        };
        let bytes = rewrite(path, &open)?;
        let file = files::open_append(path)?;
        let log = Mutex::new(Log {
            file,
            open,
            bytes,
            incomplete,
        });
        Ok(Self {
            path: path.to_path_buf(),
            log,
        })
    }

    /// A session of ours has this backend from now on.
    pub fn opened(&self, region: &str, pid: i32) {
        self.note(
            '+',
            Backend {
                region: region.to_owned(),
                pid,
            },
        );
    }

    /// This backend is known to have ended.
    pub fn closed(&self, region: &str, pid: i32) {
        self.note(
            '-',
            Backend {
                region: region.to_owned(),
                pid,
            },
        );
    }

    /// Nothing of ours is open and every append worked: only then a stop is clean.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let log = self.lock();
        log.open.is_empty() && !log.incomplete
    }

    /// The server showed, or a barrier made sure, that no session of the predecessor is left.
    pub fn predecessor_gone(&self, left: &Predecessor) {
        match left {
            Predecessor::None => {}
            Predecessor::Listed(list) => list.iter().for_each(|b| self.closed(&b.region, b.pid)),
            Predecessor::Unlisted => self.lock().incomplete = false,
        }
    }

    fn note(&self, sign: char, backend: Backend) {
        let mut log = self.lock();
        let line = format!("{sign}{} {}\n", backend.pid, backend.region);
        // A session must not fail because this log cannot grow: the damage is that the next unclean
        // start knows less, and `is_settled` says so.
        if log.file.write_all(line.as_bytes()).is_err() {
            log.incomplete = true;
        }
        log.bytes += line.len();
        match sign {
            '+' => log.open.insert(backend),
            _ => log.open.remove(&backend),
        };
        if log.bytes > REWRITE_AT_BYTES + 64 * log.open.len() {
            self.compact(&mut log);
        }
    }

    fn compact(&self, log: &mut Log) {
        let renewed = rewrite(&self.path, &log.open)
            .and_then(|bytes| files::open_append(&self.path).map(|file| (bytes, file)));
        match renewed {
            Ok((bytes, file)) => (log.bytes, log.file) = (bytes, file),
            // The old log goes on; trying again at once would only repeat the failure.
            Err(_) => log.bytes = 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // A panic between two appends leaves a usable log.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rewrite(path: &Path, open: &HashSet<Backend>) -> Result<usize, StoreError> {
    let mut text = String::new();
    for backend in open {
        text.push_str(&format!("+{} {}\n", backend.pid, backend.region));
    }
    files::replace(path, text.as_bytes())?;
    Ok(text.len())
}

/// What a log says was still open. A line that is not understood makes the whole log unlisted.
pub(crate) fn left_open(text: &str) -> Predecessor {
    let mut open = HashSet::new();
    // A torn last line is an append that did not finish: the session had not gone on yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let Some(backend) = parse(line) else {
            return Predecessor::Unlisted;
        };
        match line.as_bytes().first() {
            Some(b'+') => open.insert(backend),
            _ => open.remove(&backend),
        };
    }
    let mut list: Vec<Backend> = open.into_iter().collect();
    list.sort();
    if list.is_empty() {
        Predecessor::None
    } else {
        Predecessor::Listed(list)
    }
}

fn parse(line: &str) -> Option<Backend> {
    let rest = line.strip_prefix(['+', '-'])?;
    let (pid, region) = rest.split_once(' ')?;
    Some(Backend {
        region: region.to_owned(),
        pid: pid.parse().ok()?,
    })
}
