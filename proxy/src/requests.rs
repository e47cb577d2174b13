//! The requests behind the http lane's count: who holds a permit, who is held, whose client left.
//!
//! A request is entered when it is admitted or held and leaves with its guard. What is told here is
//! for people; the gate's own count decides. An operator's force reaches a request through it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestState {
    /// It waits for the gate.
    Held,
    /// It is with the server behind.
    Executing,
    /// The same, and its client has left.
    Orphaned,
}

impl RequestState {
    /// As shown to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Executing => "executing",
            Self::Orphaned => "orphaned",
        }
    }

    const fn of(value: u8) -> Self {
        match value {
            0 => Self::Held,
            1 => Self::Executing,
            _ => Self::Orphaned,
        }
    }
}

/// A request as shown to people.
#[derive(Clone, Debug)]
pub struct RequestView {
    /// Our number of it.
    pub number: u64,
    /// Its id, its own or one that we gave it.
    pub id: String,
    /// Method and path.
    pub what: String,
    /// Address of the client.
    pub client: SocketAddr,
    /// Region it was sent to.
    pub region: Option<String>,
    /// What it does.
    pub state: RequestState,
    /// For how long it has been here.
    pub age: Duration,
}

/// What a request tells about itself, and how it is spoken to.
pub struct Request {
    number: u64,
    id: String,
    what: String,
    client: SocketAddr,
    since: Instant,
    state: AtomicU8,
    region: Mutex<Option<String>>,
    give_up: AtomicBool,
    given_up: Notify,
}

impl Request {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Method and path.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Address of the client.
    #[must_use]
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// Says what it does now.
    // Relaxed: for people only.
    pub fn set_state(&self, state: RequestState) {
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Says where it was sent.
    pub fn set_region(&self, region: &str) {
        *lock(&self.region) = Some(region.to_owned());
    }

    /// Waits until an operator, or the end of its server, has it given up. Safe to drop.
    pub async fn given_up(&self) {
        loop {
            let told = self.given_up.notified();
            if self.give_up.load(Ordering::SeqCst) {
                return;
            }
            told.await;
        }
    }

    fn ask_give_up(&self) {
        self.give_up.store(true, Ordering::SeqCst);
        self.given_up.notify_waiters();
    }

    fn state(&self) -> RequestState {
        RequestState::of(self.state.load(Ordering::Relaxed))
    }

    fn view(&self) -> RequestView {
        RequestView {
            number: self.number,
            id: self.id.clone(),
            what: self.what.clone(),
            client: self.client,
            region: lock(&self.region).clone(),
            state: self.state(),
            age: self.since.elapsed(),
        }
    }
}

/// How many requests do what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// With the server behind, client present.
    pub executing: u64,
    /// With the server behind, client gone.
    pub orphaned: u64,
    /// Waiting for the gate.
    pub held: u64,
}

/// The requests of a group that write.
#[derive(Default)]
pub struct Requests {
    next: AtomicU64,
    live: Mutex<BTreeMap<u64, Arc<Request>>>,
}

impl Requests {
    /// Enters a request; the guard takes it out.
    pub fn enter(
        self: &Arc<Self>,
        id: &str,
        what: String,
        client: SocketAddr,
        state: RequestState,
    ) -> RequestGuard {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let request = Arc::new(Request {
            number,
            id: id.to_owned(),
            what,
            client,
            since: Instant::now(),
            state: AtomicU8::new(state as u8),
            region: Mutex::default(),
            give_up: AtomicBool::new(false),
            given_up: Notify::new(),
        });
        lock(&self.live).insert(number, Arc::clone(&request));
        RequestGuard {
            request,
            all: Arc::clone(self),
        }
    }

    /// Every request, oldest first.
    #[must_use]
    pub fn snapshot(&self) -> Vec<RequestView> {
        self.all().iter().map(|request| request.view()).collect()
    }

    /// Counts by state.
    #[must_use]
    pub fn counts(&self) -> RequestCounts {
        let mut n = RequestCounts::default();
        for request in lock(&self.live).values() {
            match request.state() {
                RequestState::Held => n.held += 1,
                RequestState::Executing => n.executing += 1,
                RequestState::Orphaned => n.orphaned += 1,
            }
        }
        n
    }

    /// Gives up the requests of this id: what becomes of them is unknown from then on.
    pub fn give_up(&self, id: &str) {
        let all = self.all();
        all.iter()
            .filter(|request| request.id == id)
            .for_each(|request| request.ask_give_up());
    }

    /// Gives up what is with the server of a region, and says how many that are.
    pub fn give_up_in(&self, region: &str) -> usize {
        let all = self.all();
        let there = all
            .iter()
            .filter(|request| lock(&request.region).as_deref() == Some(region));
        there.map(|request| request.ask_give_up()).count()
    }

    /// True when there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        lock(&self.live).is_empty()
    }

    fn all(&self) -> Vec<Arc<Request>> {
        lock(&self.live).values().cloned().collect()
    }
}

/// A request's place in the registry.
pub struct RequestGuard {
    request: Arc<Request>,
    all: Arc<Requests>,
}

impl RequestGuard {
    /// The shared part.
    #[must_use]
    pub fn share(&self) -> Arc<Request> {
        Arc::clone(&self.request)
    }
}

impl std::ops::Deref for RequestGuard {
    type Target = Request;
    fn deref(&self) -> &Request {
        &self.request
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        lock(&self.all.live).remove(&self.request.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
