//! Where the catalogs of a group stand: one shelf per database, shared by its sessions.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Model;
use super::readers::Readers;
use crate::clock;
use crate::upstream::wire::Login;
use crate::upstream::{Region, Target};

/// Most databases whose catalogs are kept. Sessions of any further one are judged without.
const MOST: usize = 32;

/// One state of a database's catalog. It never changes; a newer state takes its place.
#[derive(Debug)]
pub struct Catalog {
    generation: u64,
    /// Of the tables it was made from.
    fingerprint: u64,
    /// The objects, or why they are not known.
    model: Result<Model, String>,
    /// Nothing is known yet, but a reading is due and nothing says that it will fail.
    awaited: bool,
}

/// Numbers of catalog states, never given twice.
static GENERATION: AtomicU64 = AtomicU64::new(1);

impl Catalog {
    /// A catalog that could not be had.
    pub fn missing(why: impl Into<String>) -> Self {
        Self::numbered(Err(why.into()), 0, false)
    }

    /// A catalog that is going to be read.
    fn awaited(why: &str) -> Self {
        Self::numbered(Err(why.to_owned()), 0, true)
    }

    /// A catalog of these objects.
    pub fn of(model: Model, fingerprint: u64) -> Self {
        Self::numbered(Ok(model), fingerprint, false)
    }

    fn numbered(model: Result<Model, String>, fingerprint: u64, awaited: bool) -> Self {
        Self {
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            fingerprint,
            model,
            awaited,
        }
    }

    /// The database's objects, where they are known.
    pub fn model(&self) -> Option<&Model> {
        self.model.as_ref().ok()
    }

    /// Differs between any two states. A judgement holds only for the one it was made with.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Why nothing is known of the database; `None` where something is.
    pub fn why_missing(&self) -> Option<&str> {
        self.model.as_ref().err().map(String::as_str)
    }
}

/// When the catalog was read.
#[derive(Debug, Default)]
struct Times {
    /// The last reading began, whatever became of it.
    tried: Option<Instant>,
    /// The last reading that succeeded began.
    read: Option<Instant>,
    /// A session changed the catalog.
    changed: Option<Instant>,
}

/// The place of one database's catalog.
#[derive(Debug)]
pub struct Shelf {
    current: ArcSwap<Catalog>,
    times: Mutex<Times>,
    bell: Arc<Notify>,
    /// Rung when a reading has ended.
    settled: Notify,
    /// The proof that is asked for, and the last one that was made.
    wanted: AtomicU64,
    proven: AtomicU64,
}

/// One reading of the catalog by which what was in flight when a fence fell is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof(u64);

impl Proof {
    /// Behind the fence of this epoch, when nobody who was admitted before it can change the catalog
    /// any more.
    pub fn behind_fence(epoch: u64) -> Self {
        Self(epoch << 1)
    }

    /// Behind its barrier too, when nobody at all can.
    pub fn behind_barrier(epoch: u64) -> Self {
        Self(epoch << 1 | 1)
    }

    const fn epoch(self) -> u64 {
        self.0 >> 1
    }
}

impl Shelf {
    /// A shelf with this on it.
    pub fn new(catalog: Catalog) -> Arc<Self> {
        Self::with_bell(catalog, Arc::default())
    }

    fn with_bell(catalog: Catalog, bell: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(catalog),
            times: Mutex::default(),
            bell,
            settled: Notify::new(),
            wanted: AtomicU64::new(0),
            proven: AtomicU64::new(0),
        })
    }

    /// What stands on it now.
    pub fn catalog(&self) -> Guard<Arc<Catalog>> {
        self.current.load()
    }

    /// A session has changed objects of the database: what stands here no longer holds.
    pub fn changed(&self) {
        self.times().changed = Some(clock::now());
        let why = "a session has changed it and it is being read again";
        self.current.store(Arc::new(Catalog::awaited(why)));
        self.bell.notify_one();
    }

    /// Asks for one more reading: what was in flight when the fence fell may have met objects that
    /// were made since the last one.
    pub fn prove(&self, proof: Proof) {
        self.wanted.fetch_max(proof.0, Ordering::SeqCst);
        self.bell.notify_one();
    }

    /// Whether what stands here was read for this proof, or for the later one behind the same fence.
    pub fn is_proven(&self, proof: Proof) -> bool {
        let proven = Proof(self.proven.load(Ordering::SeqCst));
        proven.epoch() == proof.epoch() && proven.0 >= proof.0
    }

    /// The proof that somebody waits for behind the fence of this epoch.
    pub(super) fn wanted(&self, epoch: u64) -> Option<Proof> {
        let wanted = Proof(self.wanted.load(Ordering::SeqCst));
        (wanted.epoch() == epoch && !self.is_proven(wanted)).then_some(wanted)
    }

    /// It was read for this proof.
    pub(super) fn proved(&self, proof: Proof) {
        self.proven.store(proof.0, Ordering::SeqCst);
    }

    /// Nothing is known yet, but soon.
    pub fn is_awaited(&self) -> bool {
        self.catalog().awaited
    }

    /// Waits until the catalog was read, or could not be.
    pub async fn read(&self) {
        self.bell.notify_one();
        loop {
            // Made before the look, so that no end of a reading falls between the two.
            let settled = self.settled.notified();
            if !self.is_awaited() {
                return;
            }
            settled.await;
        }
    }

    /// Takes the catalog away, or says why there still is none.
    pub(super) fn empty(&self, why: &str) {
        if self.is_awaited() || self.catalog().why_missing() != Some(why) {
            self.current.store(Arc::new(Catalog::missing(why)));
        }
        self.settled.notify_waiters();
    }

    pub(super) fn reading(&self, began: Instant) {
        self.times().tried = Some(began);
    }

    /// Puts a catalog up that was read from `began` on.
    pub(super) fn put(&self, catalog: Catalog, began: Instant) {
        let mut times = self.times();
        times.read = Some(began);
        // Under the lock, so that a change cannot be noted between the look and the store.
        if times.changed.is_none_or(|changed| changed < began) {
            self.current.store(Arc::new(catalog));
            self.settled.notify_waiters();
        }
    }

    /// What stands here was found again.
    pub(super) fn confirm(&self, began: Instant) {
        self.times().read = Some(began);
    }

    /// Whether what stands here was made from such tables.
    pub(super) fn holds(&self, fingerprint: u64) -> bool {
        let catalog = self.catalog();
        catalog.model().is_some() && catalog.fingerprint == fingerprint
    }

    /// How long ago the last reading that succeeded began; for a shelf that was never read, long.
    pub(super) fn unread_since(&self, now: Instant) -> Duration {
        let read = self.times().read;
        read.map_or(Duration::MAX, |read| now.saturating_duration_since(read))
    }

    /// Whether it has to be read: where there is nothing after `soon`, else after `again`, if ever.
    pub(super) fn is_due(&self, soon: Duration, again: Option<Duration>) -> bool {
        let Some(tried) = self.times().tried else {
            return true;
        };
        let known = self.catalog().model().is_some();
        let pause = if known { again } else { Some(soon) };
        pause.is_some_and(|pause| tried.elapsed() >= pause)
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the observer logs in to a database of a target.
pub type LoginTo = Box<dyn Fn(&Target, &str) -> Login + Send + Sync>;

/// Each session holds its shelf.
fn is_used(shelf: &Arc<Shelf>) -> bool {
    Arc::strong_count(shelf) > 1
}

/// The shelves of a group.
pub struct Catalogs {
    shelves: Mutex<HashMap<String, Arc<Shelf>>>,
    bell: Arc<Notify>,
    /// The observer's database.
    home: String,
    login: LoginTo,
    pub(super) readers: Readers,
}

impl Catalogs {
    /// Empty shelves, to be filled with this login. `home` is the observer's own database.
    pub fn new(home: &str, login: LoginTo) -> Self {
        Self {
            shelves: Mutex::default(),
            bell: Arc::default(),
            home: home.to_owned(),
            login,
            readers: Readers::default(),
        }
    }

    /// Process ids of the backends that read catalogs in a region now.
    pub fn readers(&self, region: &Region) -> Vec<i32> {
        self.readers.in_region(region)
    }

    /// How the observer logs in.
    pub(super) fn login(&self, target: &Target, database: &str) -> Login {
        (self.login)(target, database)
    }

    /// The database that is meant where none is named: the only one in use, else the observer's.
    pub fn usual(&self) -> String {
        let shelves = self.shelves();
        let mut used = shelves.iter().filter(|(_, shelf)| is_used(shelf));
        match (used.next(), used.next()) {
            (Some((only, _)), None) => only.clone(),
            (None | Some(_), _) => self.home.clone(),
        }
    }

    /// The shelf of a database. A new one holds nothing yet.
    pub fn shelf(&self, database: &str) -> Arc<Shelf> {
        let mut shelves = self.shelves();
        if let Some(shelf) = shelves.get(database) {
            return Arc::clone(shelf);
        }
        if shelves.len() == MOST {
            shelves.retain(|_, shelf| is_used(shelf));
        }
        if shelves.len() == MOST {
            return Shelf::new(Catalog::missing(format!(
                "the catalogs of {MOST} other databases are kept, and no more"
            )));
        }
        let empty = Catalog::awaited("it is not read yet");
        let shelf = Shelf::with_bell(empty, Arc::clone(&self.bell));
        shelves.insert(database.to_owned(), Arc::clone(&shelf));
        self.bell.notify_one();
        shelf
    }

    /// The databases that have or had a session, and their shelves. A shelf without a session stays
    /// while there is room: the next session finds it filled.
    pub(super) fn all(&self) -> Vec<(String, Arc<Shelf>)> {
        let shelves = self.shelves();
        let all = shelves.iter();
        all.map(|(name, shelf)| (name.clone(), Arc::clone(shelf)))
            .collect()
    }

    /// The shelf of a database that has or had sessions.
    pub fn find(&self, database: &str) -> Option<Arc<Shelf>> {
        self.shelves().get(database).cloned()
    }

    pub(super) async fn rung(&self) {
        self.bell.notified().await;
    }

    fn shelves(&self) -> MutexGuard<'_, HashMap<String, Arc<Shelf>>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
