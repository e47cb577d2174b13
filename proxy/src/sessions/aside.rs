//! Connections that are no sessions: PgBouncer's console and replication.
//!
//! They hold no permit, are never moved, and no count of writes knows them. What they share with
//! sessions is a number and a cancel key, an end when the daemon stops, and a line in `status`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use super::{Key, Sessions};
use crate::upstream::Region;

/// Consoles at a time, of all users. They are for people; a script that leaks them is stopped here.
const CONSOLES: usize = 64;

/// What it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsideKind {
    /// PgBouncer's console.
    Console,
    /// `replication=true`.
    Physical,
    /// `replication=database`.
    Logical,
}

impl AsideKind {
    /// The word PgBouncer has for it in its column `replication`.
    pub fn replication(self) -> &'static str {
        match self {
            Self::Console => "none",
            Self::Physical => "physical",
            Self::Logical => "logical",
        }
    }

    fn replicates(self) -> bool {
        self != Self::Console
    }
}

/// What was asked of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// How often a cancel was asked for.
    pub cancels: u64,
    /// It is to end, for this reason.
    pub end: Option<String>,
}

/// Who connects.
#[derive(Clone, Debug)]
pub struct Who {
    /// User name.
    pub user: String,
    /// Database name.
    pub database: String,
    /// `application_name` at start.
    pub application_name: String,
    /// Where from.
    pub client: SocketAddr,
}

/// One such connection.
pub struct Aside {
    id: u32,
    /// The process id in its cancel key.
    named: AtomicU32,
    key: Key,
    kind: AsideKind,
    who: Who,
    started: SystemTime,
    backend: Mutex<Option<(Region, i32)>>,
    asked: watch::Sender<Asked>,
}

impl Aside {
    /// Our number of it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its cancel key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What it is.
    pub fn kind(&self) -> AsideKind {
        self.kind
    }

    /// Who connected.
    pub fn who(&self) -> &Who {
        &self.who
    }

    /// When.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// Its login upstream.
    pub fn backend(&self) -> Option<(Region, i32)> {
        lock(&self.backend).clone()
    }

    /// Tells of its login upstream. Its cancel key names that process from now on: clients look for
    /// themselves in `pg_stat_replication` by it.
    pub fn set_backend(&self, region: Region, pid: i32) {
        if let Ok(named) = u32::try_from(pid) {
            self.named.store(named, Ordering::Relaxed);
        }
        *lock(&self.backend) = Some((region, pid));
    }

    /// The process id in its cancel key: its own number until it has a login upstream.
    pub fn named(&self) -> u32 {
        self.named.load(Ordering::Relaxed)
    }

    /// Hears what is asked of it.
    pub fn asked(&self) -> watch::Receiver<Asked> {
        self.asked.subscribe()
    }

    /// Asks it to cancel what it does.
    pub fn ask_cancel(&self) {
        self.asked.send_modify(|asked| asked.cancels += 1);
    }

    /// Asks it to end.
    pub fn ask_end(&self, why: &str) {
        self.asked
            .send_modify(|asked| _ = asked.end.get_or_insert_with(|| why.to_owned()));
    }
}

/// The registry of them.
#[derive(Default)]
pub(super) struct Asides(Mutex<HashMap<u32, Arc<Aside>>>);

impl Asides {
    pub(super) fn all(&self) -> Vec<Arc<Aside>> {
        lock(&self.0).values().cloned().collect()
    }

    pub(super) fn has(&self, id: u32) -> bool {
        lock(&self.0).contains_key(&id)
    }

    pub(super) fn find(&self, id: u32, secret: &[u8]) -> Option<Arc<Aside>> {
        lock(&self.0)
            .values()
            .find(|aside| aside.named() == id && aside.key.is(secret))
            .cloned()
    }

    pub(super) fn replicating(&self) -> usize {
        lock(&self.0)
            .values()
            .filter(|aside| aside.kind.replicates())
            .count()
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }
}

impl Sessions {
    /// Adds a connection that is no session; `None`: there are too many consoles.
    pub fn enter_aside(
        self: &Arc<Self>,
        kind: AsideKind,
        who: Who,
        key: Key,
    ) -> Option<AsideGuard> {
        let live = self.live();
        let mut asides = lock(&self.asides.0);
        let consoles = asides.values().filter(|a| a.kind == AsideKind::Console);
        if kind == AsideKind::Console && consoles.count() >= CONSOLES {
            return None;
        }
        let id = loop {
            let id = self.number();
            if id != 0 && !live.contains_key(&id) && !asides.contains_key(&id) {
                break id;
            }
        };
        let aside = Arc::new(Aside {
            id,
            named: AtomicU32::new(id),
            key,
            kind,
            who,
            started: SystemTime::now(),
            backend: Mutex::default(),
            asked: watch::Sender::new(Asked::default()),
        });
        asides.insert(id, Arc::clone(&aside));
        Some(AsideGuard {
            aside,
            sessions: Arc::clone(self),
        })
    }

    /// All that are no sessions, by number.
    pub fn asides(&self) -> Vec<Arc<Aside>> {
        let mut all = self.asides.all();
        all.sort_by_key(|aside| aside.id);
        all
    }

    /// Replication connections.
    pub fn replicating(&self) -> usize {
        self.asides.replicating()
    }
}

/// Its place in the registry.
pub struct AsideGuard {
    aside: Arc<Aside>,
    sessions: Arc<Sessions>,
}

impl std::ops::Deref for AsideGuard {
    type Target = Aside;
    fn deref(&self) -> &Aside {
        &self.aside
    }
}

impl Drop for AsideGuard {
    fn drop(&mut self) {
        lock(&self.sessions.asides.0).remove(&self.aside.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
