//! The store of a single daemon: a directory.
//!
//! `state_dir/{instance,lock,gate/<group>.json,runs/<id>.jsonl,unknown/<group>.jsonl,
//! backends/<group>}`. A first start is told from lost state by the instance file: a group that it
//! lists and that has no file has lost it, and a directory that is not empty and has no instance
//! file has lost that. Both stay fenced, since a lost fence must not open by itself.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::backends::left_open;
use super::lock::Lock;
use super::record::{GateRecord, InstanceRecord, StoredPhase, VERSION};
use super::{Answer, Durability, Found, Incarnation, Predecessor, Store, StoreError, files};

/// Present in the root of a fresh file system; does not make it a used one.
const FRESH_VOLUME: &str = "lost+found";

/// Journals kept open at once; more than the groups that have a run at the same time.
const OPEN_JOURNALS: usize = 16;

/// The directory, locked.
#[derive(Debug)]
pub struct LocalStore {
    dir: PathBuf,
    _lock: Lock,
    instance: Mutex<InstanceRecord>,
    known: Known,
    epochs: Mutex<HashMap<String, u64>>,
    journals: Mutex<HashMap<String, Arc<Journal>>>,
}

/// What the directory said before this daemon wrote to it.
#[derive(Debug)]
enum Known {
    Empty,
    Groups(Vec<String>),
    Lost(String),
}

/// What a start found besides the phases.
#[derive(Debug)]
pub struct Start {
    /// This life's random name.
    pub incarnation: String,
    /// The predecessor stopped with nothing in flight, or there was none.
    pub clean: bool,
    /// The predecessor ran under another boot of this machine.
    pub rebooted: bool,
}

/// One run's open file.
#[derive(Debug)]
struct Journal {
    path: PathBuf,
    file: File,
}

impl Journal {
    /// Appends whole lines only: what a full disk left of one is cut off again, or the next line
    /// would be glued to it.
    fn append(&self, line: &[u8]) -> Result<(), StoreError> {
        let before = self
            .file
            .metadata()
            .map_err(|e| StoreError::io("read", &self.path, e))?
            .len();
        (&self.file).write_all(line).map_err(|error| {
            // If this fails too, the reader cuts the torn end at the next start.
            let _ = self.file.set_len(before);
            StoreError::io("write", &self.path, error)
        })
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.file
            .sync_data()
            .map_err(|e| StoreError::io("sync", &self.path, e))
    }
}

impl LocalStore {
    /// Locks the directory, reads who was here before and records the new life.
    ///
    /// # Errors
    /// [`StoreError::Locked`] for a second daemon; I/O with path and hint.
    pub fn open(dir: &Path, groups: &[String]) -> Result<(Self, Start), StoreError> {
        files::make_dir(dir)?;
        let found = contents(dir)?;
        let lock = Lock::take(&dir.join("lock"))?;
        for name in ["gate", "runs", "unknown", "backends"] {
            files::make_dir(&dir.join(name))?;
        }
        let (known, previous) = predecessor(dir, &found);
        let boot = boot_id();
        let start = Start {
            incarnation: format!("{:016x}", rand::random::<u64>()),
            clean: previous
                .as_ref()
                .map_or(matches!(known, Known::Empty), |p| p.clean),
            rebooted: previous
                .as_ref()
                .is_some_and(|p| p.boot != boot || boot.is_empty()),
        };
        let kept = previous.map(|p| p.store).filter(|id| !id.is_empty());
        let instance = InstanceRecord {
            version: VERSION,
            store: kept.unwrap_or_else(|| format!("{:016x}", rand::random::<u64>())),
            incarnation: start.incarnation.clone(),
            started: crate::clock::wall(),
            boot,
            pid: std::process::id(),
            clean: false,
            groups: merged(&known, groups),
        };
        let store = Self {
            dir: dir.to_path_buf(),
            _lock: lock,
            instance: Mutex::new(instance.clone()),
            known,
            epochs: Mutex::default(),
            journals: Mutex::default(),
        };
        store.write_instance(&instance)?;
        Ok((store, start))
    }

    /// Begins the group's log of own backends and says what the predecessor left.
    ///
    /// # Errors
    /// The log cannot be written; an unreadable predecessor's log is `Unlisted`, no error.
    pub fn incarnation(
        &self,
        group: &str,
        start: &Start,
    ) -> Result<(Incarnation, Predecessor), StoreError> {
        let path = self.dir.join("backends").join(group);
        let left = match files::read(&path) {
            _ if start.clean => Predecessor::None,
            Ok(Some(_)) if start.rebooted => Predecessor::Unlisted,
            Ok(Some(text)) => left_open(&text),
            // No log beside an unclean stop: either the group is new or its log is lost.
            Ok(None) if self.listed(group) => Predecessor::Unlisted,
            Ok(None) => Predecessor::None,
            Err(_) => Predecessor::Unlisted,
        };
        let log = Incarnation::begin(&path, &left)?;
        Ok((log, left))
    }

    /// The directory's own name, the same for all its daemons.
    #[must_use]
    pub fn id(&self) -> String {
        lock(&self.instance).store.clone()
    }

    /// The file of the group's unknown outcomes.
    #[must_use]
    pub fn unknown_path(&self, group: &str) -> PathBuf {
        self.dir.join("unknown").join(format!("{group}.jsonl"))
    }

    /// Where the audit is kept, and its key.
    #[must_use]
    pub fn audit_paths(&self) -> (PathBuf, PathBuf) {
        (self.dir.join("audit"), self.dir.join("audit.key"))
    }

    /// Marks the stop as clean; the last write of a life.
    ///
    /// # Errors
    /// I/O; the next start then treats the stop as unclean, which is safe.
    pub fn stopped_clean(&self) -> Result<(), StoreError> {
        let mut record = lock(&self.instance).clone();
        record.clean = true;
        self.write_instance(&record)
    }

    fn write_instance(&self, record: &InstanceRecord) -> Result<(), StoreError> {
        let text = to_json(record);
        files::replace(&self.dir.join("instance"), text.as_bytes())?;
        *lock(&self.instance) = record.clone();
        Ok(())
    }

    fn listed(&self, group: &str) -> bool {
        match &self.known {
            Known::Empty => false,
            Known::Groups(groups) => groups.iter().any(|g| g == group),
            Known::Lost(_) => true,
        }
    }

    fn gate_path(&self, group: &str) -> PathBuf {
        self.dir.join("gate").join(format!("{group}.json"))
    }

    fn journal(&self, run: &str) -> Result<Arc<Journal>, StoreError> {
        let mut open = lock(&self.journals);
        if let Some(journal) = open.get(run) {
            return Ok(Arc::clone(journal));
        }
        // One journal is written at a time per group; older handles are of finished runs.
        if open.len() >= OPEN_JOURNALS {
            open.clear();
        }
        let path = self.dir.join("runs").join(format!("{run}.jsonl"));
        let journal = Arc::new(Journal {
            file: files::open_append(&path)?,
            path,
        });
        open.insert(run.to_owned(), Arc::clone(&journal));
        Ok(journal)
    }

    fn accept_epoch(&self, record: &GateRecord) -> Result<(), StoreError> {
        let stored = lock(&self.epochs).get(&record.group).copied();
        match stored {
            Some(stored) if record.epoch <= stored => Err(StoreError::Conflict {
                offered: record.epoch,
                stored,
            }),
            Some(_) | None => Ok(()),
        }
    }
}

impl Store for LocalStore {
    fn load(&self, group: &str) -> Found {
        let path = self.gate_path(group);
        let found = match files::read(&path) {
            Ok(Some(text)) => parse_gate(&path, group, &text),
            Ok(None) => match &self.known {
                Known::Lost(why) => Found::Lost(why.clone()),
                Known::Groups(groups) if groups.iter().any(|g| g == group) => Found::Lost(format!(
                    "{} is gone although this group had state; the group stays fenced: look at \
                     both regions, then `writefencectl open-writes --primary R` decides",
                    path.display()
                )),
                Known::Groups(_) | Known::Empty => Found::FirstStart(None),
            },
            Err(error) => Found::Lost(format!("{error}; the group stays fenced")),
        };
        let epoch = match &found {
            Found::Record(record) => Some(record.epoch),
            Found::FirstStart(epoch) => *epoch,
            Found::Lost(_) => None,
        };
        lock(&self.epochs).insert(group.to_owned(), epoch.unwrap_or(0));
        found
    }

    fn put(&self, record: GateRecord) -> Answer<'_, ()> {
        Box::pin(async move {
            self.accept_epoch(&record)?;
            let (path, text) = (self.gate_path(&record.group), to_json(&record));
            blocking(move || files::replace(&path, text.as_bytes())).await?;
            lock(&self.epochs).insert(record.group, record.epoch);
            Ok(())
        })
    }

    fn append<'a>(
        &'a self,
        run: &'a str,
        mut line: String,
        durability: Durability,
    ) -> Answer<'a, ()> {
        Box::pin(async move {
            let journal = self.journal(run)?;
            line.push('\n');
            // A write to the page cache is shorter than the hop to another thread.
            journal.append(line.as_bytes())?;
            match durability {
                Durability::Lazy => Ok(()),
                Durability::Sync => blocking(move || journal.sync()).await,
            }
        })
    }

    fn sync<'a>(&'a self, run: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let journal = self.journal(run)?;
            blocking(move || journal.sync()).await
        })
    }

    fn journals(&self) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        let dir = self.dir.join("runs");
        let mut runs = Vec::new();
        for entry in fs::read_dir(&dir).map_err(|e| StoreError::io("read", &dir, e))? {
            let entry = entry.map_err(|e| StoreError::io("read", &dir, e))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some(run) = name.strip_suffix(".jsonl") else {
                continue;
            };
            let lines = whole_lines(&entry.path())?;
            runs.push((run.to_owned(), lines));
        }
        runs.sort();
        Ok(runs)
    }
}

/// The journal's whole lines; a torn tail is cut off on disk, so that appends start a new line.
fn whole_lines(path: &Path) -> Result<Vec<String>, StoreError> {
    let text = files::read(path)?.unwrap_or_default();
    let end = text.rfind('\n').map_or(0, |at| at + 1);
    if end < text.len() {
        let file = fs::OpenOptions::new().write(true).open(path);
        let length = u64::try_from(end).unwrap_or(0);
        file.and_then(|f| f.set_len(length).and_then(|()| f.sync_all()))
            .map_err(|e| StoreError::io("cut the torn end of", path, e))?;
    }
    Ok(text[..end].lines().map(str::to_owned).collect())
}

fn parse_gate(path: &Path, group: &str, text: &str) -> Found {
    let damaged = |why: String| {
        Found::Lost(
            StoreError::Damaged {
                path: path.to_path_buf(),
                why,
            }
            .to_string(),
        )
    };
    match serde_json::from_str::<GateRecord>(text) {
        Ok(record) if record.version > VERSION => damaged(format!(
            "format {} is of a later version, this one reads up to {VERSION}",
            record.version
        )),
        Ok(record) if record.group != group => {
            damaged(format!("it belongs to group {}", record.group))
        }
        Ok(record) if record.phase == StoredPhase::New => Found::FirstStart(Some(record.epoch)),
        Ok(record) => Found::Record(record),
        Err(error) => damaged(error.to_string()),
    }
}

fn contents(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = fs::read_dir(dir).map_err(|e| StoreError::io("read", dir, e))?;
    let names = entries
        .filter_map(Result::ok)
        .map(|e| e.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name != FRESH_VOLUME).collect())
}

fn predecessor(dir: &Path, found: &[String]) -> (Known, Option<InstanceRecord>) {
    if found.is_empty() {
        return (Known::Empty, None);
    }
    let path = dir.join("instance");
    let parsed = match files::read(&path) {
        Ok(Some(text)) => serde_json::from_str::<InstanceRecord>(&text).map_err(|e| e.to_string()),
        Ok(None) => Err(format!("no such file beside {}", found.join(", "))),
        Err(error) => Err(error.to_string()),
    };
    match parsed {
        Ok(record) => (Known::Groups(record.groups.clone()), Some(record)),
        Err(why) => (
            Known::Lost(StoreError::Damaged { path, why }.to_string()),
            None,
        ),
    }
}

/// Groups that have or had state: a group that leaves the configuration is not forgotten, or its
/// return would look like a first start.
fn merged(known: &Known, groups: &[String]) -> Vec<String> {
    let mut all = match known {
        Known::Groups(known) => known.clone(),
        Known::Empty | Known::Lost(_) => Vec::new(),
    };
    all.extend(groups.iter().cloned());
    all.sort();
    all.dedup();
    all
}

fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("plain structs always serialise");
    text.push('\n');
    text
}

async fn blocking(
    work: impl FnOnce() -> Result<(), StoreError> + Send + 'static,
) -> Result<(), StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .expect("a file write neither panics nor is aborted")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The guarded values are replaced whole; a panic elsewhere leaves them usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
