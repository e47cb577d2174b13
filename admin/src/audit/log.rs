//! The audit on disk: appends, syncs, segments of bounded length, and what a crash left.
//!
//! An append is in the page cache when it returns, which survives the death of the process; a sync
//! makes it survive a power cut and signs it. A record that the disk does not take is kept, up to a
//! bound, and written as soon as it can be; what is beyond the bound is counted, and a record says
//! so. So a full disk delays the audit and stops nothing here; who needs a record on disk before it
//! goes on asks [`Log::sync`] and hears the refusal.
//!
//! An audit that does not hold at the start is put aside, never written on, and the new one says so
//! in its first record.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::checkpoint::Checkpoint;
use super::entry::{Entry, Event, LONGEST, Line};
use super::merkle::{EMPTY_ROOT, Hash, Tree};
use super::note::{NoteError, SigningKey, VerifierKey};
use super::segment::{RECORDS_PER_SEGMENT, is_segment, note_bytes, notes_name, segment_name};
use super::verify::{VerifyError, read_dir, verify};
use crate::api::Timestamp;

/// Records kept while the disk takes none: a switchover leaves about forty, so this is several
/// groups' runs. More would only delay the moment in which somebody looks.
const WAITING: usize = 1024;

/// The largest answer to a look, records.
const PAGE: usize = 1000;

/// An audit that cannot be opened or written.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file system refused.
    #[error("the audit cannot be written: cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is there cannot be read.
    #[error("the audit cannot be read")]
    Read(#[from] VerifyError),
    /// The key cannot be used.
    #[error("{} cannot be used; restore it, or move it away and a new one is made", path.display())]
    Key {
        /// Its file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: NoteError,
    },
}

/// Where the log stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// How many records were written.
    pub size: u64,
    /// The newest checkpoint, signed; it may be of a smaller size than `size` until the next sync.
    pub checkpoint: String,
}

/// Some records, as their lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The lines, in order.
    pub lines: Vec<String>,
    /// The number of the last one looked at; the next look's `after`.
    pub last: u64,
    /// Nothing follows.
    pub end: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    key: SigningKey,
    boot_ms: fn() -> u64,
    inner: Mutex<Inner>,
    /// One sync at a time, apart from the appends that go on meanwhile.
    syncing: Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    tree: Tree,
    last: Hash,
    file: Option<File>,
    signed: u64,
    checkpoint: String,
    waiting: VecDeque<Entry>,
    /// Records that found no place in `waiting`, and when the first did not.
    dropped: u64,
    broken: Option<String>,
}

impl Log {
    /// Opens `dir`, making it and the key if they are not there. `name` names a new key; `boot_ms`
    /// is the clock that no one can set.
    ///
    /// # Errors
    /// [`LogError`]. Damage is no error: see the module.
    pub fn open(
        dir: &Path,
        key_file: &Path,
        name: &str,
        boot_ms: fn() -> u64,
    ) -> Result<Self, LogError> {
        let key = key(key_file, name)?;
        fs::create_dir_all(dir).map_err(at("create", dir))?;
        private(dir)?;
        let mut notice = cut_torn_end(dir)?.map(|(name, len)| {
            Entry::new(Event::Gap, "torn").fact(
                "sentence",
                format!("a record of {len} bytes was not written whole and was cut from {name}"),
            )
        });
        let segments = read_dir(dir)?;
        let (verdict, mut tree) = verify(&segments, Some(&key.verifier()), &[]);
        let mut last = last_hash(&segments);
        if let Some(first) = verdict.damage.first() {
            let aside = put_aside(dir)?;
            notice = Some(
                Entry::new(Event::Gap, "damaged")
                    .fact(
                        "sentence",
                        format!("an audit that does not hold was put aside: {first}"),
                    )
                    .fact("put_aside_as", aside),
            );
            (tree, last) = (Tree::default(), EMPTY_ROOT);
        }
        let log = Self {
            dir: dir.to_owned(),
            key,
            boot_ms,
            inner: Mutex::new(Inner {
                signed: 0,
                checkpoint: String::new(),
                tree,
                last,
                file: None,
                waiting: VecDeque::new(),
                dropped: 0,
                broken: None,
            }),
            syncing: Mutex::default(),
        };
        if let Some(notice) = notice {
            log.append(notice);
        }
        Ok(log)
    }

    /// The key that checks this log's checkpoints.
    #[must_use]
    pub fn verifier(&self) -> VerifierKey {
        self.key.verifier()
    }

    /// Writes a record, or keeps it for when that can be done.
    pub fn append(&self, mut entry: Entry) {
        entry.boot_ms = (self.boot_ms)();
        let mut inner = self.lock();
        if !inner.waiting.is_empty() {
            self.write_waiting(&mut inner);
        }
        if inner.waiting.len() < WAITING {
            inner.waiting.push_back(entry);
        } else {
            inner.dropped += 1;
        }
        self.write_waiting(&mut inner);
    }

    /// Returns once everything appended so far survives a power cut; signs it. Blocks on the disk.
    ///
    /// # Errors
    /// Something appended is not on disk.
    pub fn sync(&self) -> Result<Position, LogError> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inner = self.lock();
        self.write_waiting(&mut inner);
        if !inner.waiting.is_empty() {
            return Err(self.still_waiting(&inner));
        }
        let (size, root) = (inner.tree.size(), inner.tree.root());
        if inner.signed == size && !inner.checkpoint.is_empty() {
            return Ok(inner.position());
        }
        let file = match &inner.file {
            Some(file) => Some(file.try_clone().map_err(at("sync", &self.dir))?),
            None => None,
        };
        drop(inner);
        if let Some(file) = file {
            file.sync_data().map_err(at("sync", &self.dir))?;
        }
        // Signed only now: a checkpoint never vouches for what a power cut could take back.
        let origin = self.key.verifier().name().to_owned();
        let note = Checkpoint { origin, size, root }.sign(&self.key);
        let mut inner = self.lock();
        self.write_note(size, &note)?;
        (inner.signed, inner.checkpoint) = (size, note);
        inner.broken = None;
        Ok(inner.position())
    }

    /// Where the log stands.
    #[must_use]
    pub fn position(&self) -> Position {
        self.lock().position()
    }

    /// Why records are waiting to be written, if they are.
    #[must_use]
    pub fn broken(&self) -> Option<String> {
        let inner = self.lock();
        let why = inner.broken.clone()?;
        Some(format!(
            "{} records wait to be written: {why}",
            inner.waiting.len()
        ))
    }

    /// Records behind number `after`, at most `limit` and at most a page. Reads from the disk.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn read(&self, after: u64, limit: usize) -> Result<Page, LogError> {
        let size = self.lock().tree.size();
        let mut page = Page {
            last: after,
            ..Page::default()
        };
        while page.last < size && page.lines.len() < limit.clamp(1, PAGE) {
            let path = self.dir.join(segment_name(page.last + 1));
            let text = fs::read_to_string(&path).map_err(at("read", &path))?;
            let first = page.last / RECORDS_PER_SEGMENT * RECORDS_PER_SEGMENT;
            let skip = usize::try_from(page.last - first).unwrap_or(usize::MAX);
            // Never beyond what was whole when this began: the line behind may be half written.
            let whole = usize::try_from(size - page.last).unwrap_or(usize::MAX);
            let room = whole.min(limit.clamp(1, PAGE) - page.lines.len());
            let lines: Vec<String> = text
                .lines()
                .skip(skip)
                .take(room)
                .map(str::to_owned)
                .collect();
            if lines.is_empty() {
                break;
            }
            page.last += lines.len() as u64;
            page.lines.extend(lines);
        }
        page.end = page.last >= size;
        Ok(page)
    }

    fn write_waiting(&self, inner: &mut Inner) {
        while let Some(entry) = inner.waiting.front().cloned() {
            if let Err(error) = self.write(inner, entry) {
                inner.broken = Some(with_cause(&error));
                return;
            }
            inner.waiting.pop_front();
            if inner.waiting.is_empty() && inner.dropped > 0 {
                let n = std::mem::take(&mut inner.dropped);
                inner
                    .waiting
                    .push_back(Entry::new(Event::Gap, "dropped").fact(
                        "sentence",
                        format!(
                            "{n} records found no place while the disk took none, and are missing"
                        ),
                    ));
            }
        }
        inner.broken = None;
    }

    fn write(&self, inner: &mut Inner, entry: Entry) -> Result<(), LogError> {
        let seq = inner.tree.size() + 1;
        let path = self.dir.join(segment_name(seq));
        let begins = (seq - 1).is_multiple_of(RECORDS_PER_SEGMENT);
        if begins || inner.file.is_none() {
            if let Some(old) = inner.file.take() {
                old.sync_data().map_err(at("sync", &self.dir))?;
            }
            inner.file = Some(append_to(&path)?);
        }
        let mut line = Line {
            seq,
            prev: inner.last,
            entry,
        };
        let mut bytes = line.encode();
        if bytes.len() > LONGEST {
            line.entry.facts.clear();
            line.entry = line.entry.fact("cut", "the facts were too long");
            bytes = line.encode();
        }
        bytes.push(b'\n');
        let Some(file) = &mut inner.file else {
            return Ok(());
        };
        let before = file.metadata().map_err(at("read", &path))?.len();
        if let Err(source) = file.write_all(&bytes) {
            // Half a line must not stay: the next one would be glued to it. If this fails too, the
            // file is opened anew, and the next start cuts what is torn.
            if file.set_len(before).is_err() {
                inner.file = None;
            }
            return Err(at("write", &path)(source));
        }
        let hash = line.hash();
        inner.tree.push(hash);
        inner.last = hash;
        Ok(())
    }

    /// The note is not synced: lost in a power cut, the next start signs anew.
    fn write_note(&self, size: u64, note: &str) -> Result<(), LogError> {
        let path = self.dir.join(notes_name(&segment_name(size.max(1))));
        let mut file = append_to(&path)?;
        let before = file.metadata().map_err(at("read", &path))?.len();
        if let Err(source) = file.write_all(&note_bytes(note)) {
            // If this fails too, the reader leaves a note out that is not whole.
            let _ = file.set_len(before);
            return Err(at("write", &path)(source));
        }
        Ok(())
    }

    fn still_waiting(&self, inner: &Inner) -> LogError {
        let why = inner.broken.clone().unwrap_or_default();
        at("write", &self.dir)(io::Error::other(why))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic between two appends leaves whole values.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn position(&self) -> Position {
        Position {
            size: self.tree.size(),
            checkpoint: self.checkpoint.clone(),
        }
    }
}

fn at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LogError + use<> {
    let path = path.to_owned();
    move |source| LogError::Io { what, path, source }
}

fn with_cause(error: &LogError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Opens for appending; the name of a new file survives a power cut.
fn append_to(path: &Path) -> Result<File, LogError> {
    let is_new = !path.exists();
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(at("open", path))?;
    if is_new {
        file.sync_all().map_err(at("sync", path))?;
        sync_parent(path)?;
    }
    Ok(file)
}

fn sync_parent(path: &Path) -> Result<(), LogError> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    File::open(parent)
        .and_then(|dir| dir.sync_all())
        .map_err(at("sync", parent))
}

fn private(dir: &Path) -> Result<(), LogError> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(at("protect", dir))
}

/// The key in `path`, made if there is none.
fn key(path: &Path, name: &str) -> Result<SigningKey, LogError> {
    let unusable = |source| LogError::Key {
        path: path.to_owned(),
        source,
    };
    match fs::read_to_string(path) {
        Ok(text) => return SigningKey::parse(&text).map_err(unusable),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(at("read", path)(e)),
    }
    let key = SigningKey::generate(name).map_err(unusable)?;
    // Whole or not at all: half a key would keep the next start from starting.
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&fresh)
        .map_err(at("create", &fresh))?;
    let text = format!("{}\n", key.to_text());
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(at("write", &fresh))?;
    fs::rename(&fresh, path).map_err(at("create", path))?;
    sync_parent(path)?;
    Ok(key)
}

/// Cuts a last line that was not written whole; nobody was told that it was. Returns the file and
/// how many bytes went.
fn cut_torn_end(dir: &Path) -> Result<Option<(String, usize)>, LogError> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .map_err(at("read", dir))?
        .filter_map(Result::ok)
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| is_segment(name))
        .collect();
    names.sort();
    let Some(name) = names.pop() else {
        return Ok(None);
    };
    let path = dir.join(&name);
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .map_err(at("read", &path))?;
    let whole = bytes
        .iter()
        .rposition(|b| *b == b'\n')
        .map_or(0, |end| end + 1);
    if whole == bytes.len() {
        return Ok(None);
    }
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_len(whole as u64).and_then(|()| file.sync_all()))
        .map_err(at("cut the torn end of", &path))?;
    Ok(Some((name, bytes.len() - whole)))
}

fn last_hash(segments: &[super::verify::Segment]) -> Hash {
    let last = segments
        .iter()
        .rev()
        .find_map(|s| s.records.strip_suffix(b"\n"))
        .and_then(|records| records.rsplit(|b| *b == b'\n').next());
    last.map_or(EMPTY_ROOT, super::merkle::leaf_hash)
}

/// Moves what is damaged out of the way, under a name that says when, and makes room.
fn put_aside(dir: &Path) -> Result<String, LogError> {
    let when: String = Timestamp::now()
        .to_string()
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let name = format!("audit-damaged-{when}");
    let to = dir.with_file_name(&name);
    fs::rename(dir, &to).map_err(at("put aside", dir))?;
    fs::create_dir_all(dir).map_err(at("create", dir))?;
    private(dir)?;
    sync_parent(dir)?;
    Ok(name)
}
