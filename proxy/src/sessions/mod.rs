//! The live sessions, for those who have to speak of them: status, stragglers, the barrier.
//!
//! A session owns its connections and its permit; what stands here is only what it says about
//! itself, in atomics on the busy path and behind a lock where a change is rare. Nothing here
//! decides anything: the gate's count is the truth for a drain, this registry tells who is behind it.

mod arriving;
mod aside;
mod key;
mod moves;
mod traffic;
mod under_way;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

pub use arriving::Arriving;
pub use aside::{Aside, AsideGuard, AsideKind, Asked, Who};
pub use key::Key;
pub use moves::{Moves, Pin};
pub use traffic::Traffic;
pub use under_way::LoggingIn;

use crate::upstream::Region;
use moves::Rounds;
use traffic::{Meter, Past, Periods};

/// What a session is doing, as told to operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SessionState {
    /// Logging in upstream for the first time.
    LoggingIn,
    /// Nothing asked, no transaction open.
    Idle,
    /// A statement group was sent and its outcome is not known yet.
    Executing,
    /// A transaction is open and nothing is running.
    InTransaction,
    /// The same, and an AND CHAIN began it: ending it by another would begin the next.
    Chained,
    /// A write waits for the fence to open.
    Held,
    /// The client has left, its statement has not ended yet.
    Orphaned,
    /// Being logged in on another target.
    Moving,
}

impl SessionState {
    const ALL: [Self; 8] = [
        Self::LoggingIn,
        Self::Idle,
        Self::Executing,
        Self::InTransaction,
        Self::Chained,
        Self::Held,
        Self::Orphaned,
        Self::Moving,
    ];

    /// The word used in JSON and by `writefencectl sessions`.
    pub fn name(self) -> &'static str {
        match self {
            Self::LoggingIn => "logging_in",
            Self::Idle => "idle",
            Self::Executing => "executing",
            Self::InTransaction => "in_transaction",
            Self::Chained => "chained_transaction",
            Self::Held => "held",
            Self::Orphaned => "orphaned",
            Self::Moving => "moving",
        }
    }
}

/// What keeps a session from writing on the server it is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum WallState {
    /// Nothing does.
    Down = 0,
    /// Wall two: its server refuses the writes of every transaction that begins.
    Standing = 1,
    /// A transaction that the server keeps read-only, begun before the fence fell.
    Reading = 2,
    /// A statement that was under way when it fell and was proven to read, alone and not behind the
    /// barrier yet. Before anything else is sent, wall two stands.
    LetGo = 3,
    /// The same, and proven once more behind the barrier.
    Proven = 4,
}

/// One of our own logins upstream, as the barrier has to know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnBackend {
    /// The server's process id; 0 while it has not told it.
    pub pid: i32,
    /// Our end of the connection, while its login is under way.
    pub login: Option<SocketAddr>,
    /// It cannot write, and is spared.
    pub walled: bool,
    /// It reads on for as long as it takes.
    pub reading: bool,
    /// What it reads has to be proven once more behind the barrier.
    pub let_go: bool,
}

/// A session as shown to people.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Our number of the session.
    pub id: u32,
    /// User name of the client's startup packet.
    pub user: String,
    /// Database name.
    pub database: String,
    /// Where the client comes from.
    pub client: SocketAddr,
    /// `application_name` at start.
    pub application_name: String,
    /// Region and process id of its login upstream, while it has one.
    pub backend: Option<(Region, i32)>,
    /// What it does.
    pub state: SessionState,
    /// For how long it has been doing that.
    pub since: Duration,
    /// It holds a permit: the gate counts it.
    pub permitted: bool,
    /// It cannot write on the server it is on.
    pub walled: bool,
    /// Which verifier its login upstream needs, where it logs in with a recovered key.
    pub key: Option<u64>,
    /// How it would move, as far as is known.
    pub moves: Moves,
    /// It has been asked for that, and could not answer: it is in a transaction, or busy.
    pub unanswered: bool,
    /// Digest of the statement that keeps a drain waiting.
    pub digest: Option<String>,
    /// When the client connected.
    pub started: SystemTime,
    /// What it has sent and was sent.
    pub traffic: Traffic,
    /// It was there when a RECONNECT was asked for, and is still logged in as then.
    pub close_needed: bool,
}

/// Why a session is ended whatever it is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Quit {
    /// The console's KILL.
    Killed = 1,
    /// It said nothing for too long, outside of a transaction.
    Idle = 2,
    /// The same, inside of one.
    IdleInTransaction = 4,
}

impl Quit {
    const ALL: [Self; 3] = [Self::Killed, Self::Idle, Self::IdleInTransaction];
}

/// Bounds of the registry.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// All sessions, replication included.
    pub all: usize,
    /// Those of one user; 0: no bound.
    pub per_user: usize,
    /// Those in one database; 0: no bound.
    pub per_database: usize,
}

/// Which bound a newcomer has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// That of all.
    All(usize),
    /// That of its user.
    User(usize),
    /// That of its database.
    Database(usize),
}

#[derive(Default)]
struct Told {
    backend: Option<(Region, i32)>,
    /// A second login, on the candidate, made ahead of the promotion.
    ahead: Option<(Region, i32)>,
    moves: Moves,
    digest: Option<String>,
}

/// What a session tells about itself, and how it is spoken to.
pub struct SessionHandle {
    id: u32,
    /// The process id in its cancel key.
    named: AtomicU32,
    cancel_key: Key,
    user: String,
    database: String,
    application_name: String,
    client: SocketAddr,
    started: SystemTime,
    born: Instant,
    state: AtomicU8,
    since_ms: AtomicU64,
    permitted: AtomicBool,
    unproven: AtomicBool,
    reprove: AtomicBool,
    wall: AtomicU8,
    /// 0: it logs in without a recovered key.
    key: AtomicU64,
    ready_for: AtomicU64,
    cancel: AtomicBool,
    end: AtomicBool,
    force: AtomicBool,
    give_up: AtomicBool,
    leave: AtomicBool,
    quit: AtomicU8,
    close_needed: AtomicBool,
    ended: AtomicU64,
    meter: Meter,
    rounds: Rounds,
    told: Mutex<Told>,
    waker: AtomicWaker,
}

impl SessionHandle {
    /// Our number of the session.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its cancel key.
    pub fn key(&self) -> &Key {
        &self.cancel_key
    }

    /// Names it, in its cancel key, by the process id of its first login upstream. Clients compare
    /// that with `pg_backend_pid()` and with the sender of a notification, to know their own.
    pub fn set_named(&self, pid: u32) {
        self.named.store(pid, Ordering::Relaxed);
    }

    /// The process id in its cancel key.
    pub fn named(&self) -> u32 {
        self.named.load(Ordering::Relaxed)
    }

    /// User name of the startup packet.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Database name.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Address of the client.
    pub fn client(&self) -> SocketAddr {
        self.client
    }

    /// Says what the session does now.
    // Relaxed throughout: these are for people and decide nothing.
    pub fn set_state(&self, state: SessionState) {
        let ms = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since_ms.store(ms, Ordering::Relaxed);
        self.state.store(state as u8, Ordering::Relaxed);
    }

    /// Says that the session is idle. Its time then still counts from what it did last: the clock
    /// is not read twice for each statement.
    pub fn set_idle(&self) {
        self.state
            .store(SessionState::Idle as u8, Ordering::Relaxed);
    }

    /// Says whether a permit is held.
    pub fn set_permitted(&self, held: bool) {
        self.permitted.store(held, Ordering::Relaxed);
    }

    /// Says whether what is in flight under its permit waits to be proven a read. SeqCst, and taken
    /// back before the permit ends: whoever counts permits first and then these counts no reader that
    /// is none.
    pub fn set_unproven(&self, unproven: bool) {
        self.unproven.store(unproven, Ordering::SeqCst);
    }

    /// Takes a wish for what was let go to be proven once more.
    pub fn take_reprove(&self) -> bool {
        self.reprove.swap(false, Ordering::SeqCst)
    }

    /// Says which verifier its logins need.
    pub fn set_key(&self, key: u64) {
        self.key.store(key, Ordering::Relaxed);
    }

    /// Says what keeps the session from writing. SeqCst: the barrier reads it right after the session
    /// wrote it and spares the backend for it.
    pub fn set_wall(&self, wall: WallState) {
        self.wall.store(wall as u8, Ordering::SeqCst);
    }

    fn is(&self, wall: WallState) -> bool {
        self.wall.load(Ordering::SeqCst) == wall as u8
    }

    /// Tells the login upstream, or that there is none.
    pub fn set_backend(&self, backend: Option<(Region, i32)>) {
        self.told().backend = backend;
    }

    /// Tells of a login on the candidate made ahead; `serial` names the target it is for.
    pub fn set_ahead(&self, backend: Option<(Region, i32)>, serial: u64) {
        let ready = if backend.is_some() { serial } else { 0 };
        self.told().ahead = backend;
        self.ready_for.store(ready, Ordering::Relaxed);
    }

    /// Tells which statement keeps a drain waiting.
    pub fn set_digest(&self, digest: Option<String>) {
        self.told().digest = digest;
    }

    /// Registers the task to wake when something is asked of the session.
    pub fn register(&self, waker: &std::task::Waker) {
        self.waker.register(waker);
    }

    /// Asks for the running or held statement to be cancelled.
    pub fn ask_cancel(&self) {
        self.cancel.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Asks for the session to be ended with 57P01.
    pub fn ask_end(&self) {
        self.end.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Asks for whatever keeps a drain waiting to be undone.
    pub fn ask_force(&self) {
        self.force.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Asks for the connection to the server to be given up: it is dead, or will be of no use.
    pub fn ask_give_up(&self) {
        self.give_up.store(true, Ordering::SeqCst);
        self.waker.wake();
    }

    /// True when one of these was asked for and not yet taken.
    pub fn pressed(&self) -> bool {
        self.force.load(Ordering::Relaxed)
            || self.reprove.load(Ordering::Relaxed)
            || self.give_up.load(Ordering::Relaxed)
            || self.leave.load(Ordering::Relaxed)
            || self.quit.load(Ordering::Relaxed) != 0
    }

    /// Asks for the session to end whatever it is doing; what it has in flight is waited for.
    pub fn ask_quit(&self, why: Quit) {
        self.quit.fetch_or(why as u8, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Takes the wishes for the end.
    pub fn take_quits(&self) -> impl Iterator<Item = Quit> + use<> {
        let asked = self.quit.swap(0, Ordering::SeqCst);
        let all = Quit::ALL.into_iter();
        all.filter(move |why| asked & *why as u8 != 0)
    }

    /// A RECONNECT was asked for: its login is to be another, when it can.
    pub fn set_close_needed(&self, needed: bool) {
        self.close_needed.store(needed, Ordering::Relaxed);
    }

    /// Counts what came from the client and what went to it.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Takes a wish for what keeps a drain waiting to be undone.
    pub fn take_force(&self) -> bool {
        self.force.swap(false, Ordering::SeqCst)
    }

    /// Whether the connection to the server is to be given up now, asked for and not yet taken.
    /// `permitted`: it owes the outcome of a write; `stale`: it is not the target any more. Asked of
    /// a session that has moved meanwhile, a wish to leave says nothing about where it is now.
    pub fn must_give_up(&self, permitted: bool, stale: bool) -> bool {
        (permitted && self.give_up.load(Ordering::SeqCst))
            || (stale && self.leave.load(Ordering::SeqCst))
    }

    /// Takes the wishes for the server to be given up; see `must_give_up`.
    pub fn take_give_up(&self, permitted: bool, stale: bool) -> bool {
        let must = self.must_give_up(permitted, stale);
        self.give_up.store(false, Ordering::SeqCst);
        self.leave.store(false, Ordering::SeqCst);
        must
    }

    /// Counts a transaction of the session's that has ended. Only the session calls this, so the
    /// busy path needs no locked addition.
    pub fn transaction_ended(&self) {
        let n = self.ended.load(Ordering::Relaxed);
        self.ended.store(n + 1, Ordering::Release);
    }

    /// Transactions of the session's that have ended.
    pub fn transactions_ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }

    /// True when a cancel was asked for and not yet taken.
    pub fn cancel_asked(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    /// Takes a cancel that was asked for.
    pub fn take_cancel(&self) -> bool {
        self.cancel.swap(false, Ordering::SeqCst)
    }

    /// True when the session is to end.
    pub fn must_end(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> SessionState {
        SessionState::ALL[usize::from(self.state.load(Ordering::Relaxed)) % SessionState::ALL.len()]
    }

    fn view(&self) -> SessionView {
        let told = self.told();
        let since = Duration::from_millis(self.since_ms.load(Ordering::Relaxed));
        SessionView {
            id: self.id,
            user: self.user.clone(),
            database: self.database.clone(),
            client: self.client,
            application_name: self.application_name.clone(),
            backend: told.backend.clone(),
            state: self.state(),
            since: self.born.elapsed().saturating_sub(since),
            permitted: self.permitted.load(Ordering::Relaxed),
            walled: !self.is(WallState::Down),
            key: Some(self.key.load(Ordering::Relaxed)).filter(|key| *key != 0),
            moves: told.moves.clone(),
            unanswered: self.rounds.open(),
            digest: told.digest.clone(),
            started: self.started,
            traffic: self.traffic(),
            close_needed: self.close_needed.load(Ordering::Relaxed),
        }
    }
}

/// How many sessions do what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// All live sessions.
    pub total: u64,
    /// Permit holders with a statement running.
    pub executing: u64,
    /// Permit holders whose client has left.
    pub orphaned: u64,
    /// Permit holders with an open transaction and nothing running.
    pub open_transactions: u64,
    /// Sessions whose write is parked.
    pub held: u64,
}

/// Totals since the daemon started, for metrics.
#[derive(Debug, Default)]
pub struct SessionTotals {
    /// Sessions ever started.
    pub started: AtomicU64,
    /// Sessions moved to another target without closing the client's connection.
    pub moved: AtomicU64,
    /// Sessions ended because they could not be moved.
    pub ended_unmovable: AtomicU64,
    /// Connections refused by a limit.
    pub refused: AtomicU64,
    /// Connections ended for a protocol offence.
    pub offences: AtomicU64,
    /// Statements refused by the fence.
    pub fenced: AtomicU64,
    /// Logins upstream that failed.
    pub login_failures: AtomicU64,
    /// Clients that could not show who they are, or may not log in.
    pub logins_denied: AtomicU64,
    /// Clients that were not looked at after too many failed logins.
    pub logins_throttled: AtomicU64,
    /// Answers 25006 from a server that we took to be read-write.
    pub unexpected_read_only: AtomicU64,
    /// The longest that a session waited for another server and could not even read, microseconds;
    /// since the last fence.
    pub longest_move_us: AtomicU64,
}

impl SessionTotals {
    /// A session is on another server, after having had none for this long.
    pub fn moved_after(&self, waited: Duration) {
        let us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.longest_move_us.fetch_max(us, Ordering::Relaxed);
    }
}

/// All live sessions of a group.
pub struct Sessions {
    next: AtomicU32,
    /// Rounds of questions how sessions would move.
    round: AtomicU64,
    live: Mutex<HashMap<u32, Arc<SessionHandle>>>,
    /// Connections that are no sessions yet.
    arriving: AtomicUsize,
    asides: aside::Asides,
    under_way: under_way::UnderWay,
    past: Past,
    periods: Periods,
    /// Totals for metrics.
    pub totals: SessionTotals,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            // Begins anywhere, so that a client of an earlier start cannot cancel by its old number.
            next: AtomicU32::new(rand::random::<u32>() >> 2),
            round: AtomicU64::new(0),
            live: Mutex::default(),
            arriving: AtomicUsize::new(0),
            asides: aside::Asides::default(),
            under_way: under_way::UnderWay::default(),
            past: Past::default(),
            periods: Periods::default(),
            totals: SessionTotals::default(),
        }
    }
}

impl Sessions {
    /// Adds a session; the guard removes it when it ends.
    ///
    /// # Errors
    /// There are as many as there may be. Counted under the lock that adds, so that a crowd of
    /// newcomers is held to the bound too.
    pub fn enter(
        self: &Arc<Self>,
        who: Who,
        key: Key,
        bounds: Bounds,
    ) -> Result<SessionGuard, Full> {
        let mut live = self.live();
        check(&live, self.asides.replicating(), &who, bounds)?;
        self.totals.started.fetch_add(1, Ordering::Relaxed);
        let id = loop {
            let id = self.number();
            if id != 0 && !live.contains_key(&id) && !self.asides.has(id) {
                break id;
            }
        };
        let Who {
            user,
            database,
            application_name,
            client,
        } = who;
        let handle = Arc::new(SessionHandle {
            id,
            named: AtomicU32::new(id),
            cancel_key: key,
            user,
            database,
            application_name,
            client,
            started: SystemTime::now(),
            born: Instant::now(),
            state: AtomicU8::new(SessionState::LoggingIn as u8),
            since_ms: AtomicU64::new(0),
            permitted: AtomicBool::new(false),
            unproven: AtomicBool::new(false),
            reprove: AtomicBool::new(false),
            wall: AtomicU8::new(WallState::Down as u8),
            key: AtomicU64::new(0),
            ready_for: AtomicU64::new(0),
            cancel: AtomicBool::new(false),
            end: AtomicBool::new(false),
            force: AtomicBool::new(false),
            give_up: AtomicBool::new(false),
            leave: AtomicBool::new(false),
            quit: AtomicU8::new(0),
            close_needed: AtomicBool::new(false),
            meter: Meter::default(),
            ended: AtomicU64::new(0),
            rounds: Rounds::default(),
            told: Mutex::default(),
            waker: AtomicWaker::new(),
        });
        live.insert(id, Arc::clone(&handle));
        Ok(SessionGuard {
            handle,
            sessions: Arc::clone(self),
        })
    }

    fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed) & 0x7fff_ffff
    }

    /// Has whoever this key belongs to cancel what it does. A wrong key does nothing. Sessions that
    /// were moved have the process id of a server that may meanwhile be another's: only both
    /// together name one.
    pub fn cancel(&self, id: u32, secret: &[u8]) {
        let session = self
            .live()
            .values()
            .find(|s| s.named() == id && s.cancel_key.is(secret))
            .cloned();
        if let Some(session) = session {
            session.ask_cancel();
        } else if let Some(aside) = self.asides.find(id, secret) {
            aside.ask_cancel();
        }
    }

    /// Has every session look again at what it waits for.
    pub fn wake(&self) {
        self.handles().iter().for_each(|s| s.waker.wake());
    }

    /// The session with this number.
    pub fn by_id(&self, id: u32) -> Option<Arc<SessionHandle>> {
        self.live().get(&id).cloned()
    }

    /// Every session.
    pub fn all(&self) -> Vec<Arc<SessionHandle>> {
        self.handles()
    }

    /// Every session, as shown to people, by number.
    pub fn snapshot(&self) -> Vec<SessionView> {
        let mut all: Vec<_> = self.handles().iter().map(|s| s.view()).collect();
        all.sort_by_key(|v| v.id);
        all
    }

    /// Our own logins in a region, for the barrier: it spares those that cannot write.
    pub fn backends(&self, region: &Region) -> Vec<OwnBackend> {
        self.handles()
            .iter()
            .filter_map(|s| {
                let told = s.told();
                let (at, pid) = told.backend.as_ref()?;
                (at == region).then(|| OwnBackend {
                    pid: *pid,
                    login: None,
                    walled: !s.is(WallState::Down) && !s.is(WallState::LetGo),
                    reading: s.is(WallState::Reading) || s.is(WallState::Proven),
                    let_go: s.is(WallState::LetGo),
                })
            })
            .collect()
    }

    /// How many permit holders wait for what they have in flight to be proven a read; `None`: there is
    /// one that does not.
    pub fn waiting_readers(&self) -> Option<u64> {
        let mut readers = 0;
        for session in self.handles() {
            if session.unproven.load(Ordering::SeqCst) {
                readers += 1;
            } else if session.permitted.load(Ordering::SeqCst) {
                return None;
            }
        }
        Some(readers)
    }

    /// Has what was let go in a region proven once more, for at most so long. Whether there was any.
    pub async fn prove_again(&self, region: &Region, at_most: Duration) -> bool {
        let at = |s: &Arc<SessionHandle>| {
            let told = s.told();
            told.backend.as_ref().is_some_and(|(at, _)| at == region)
        };
        let mut left = self.handles();
        left.retain(|session| session.is(WallState::LetGo) && at(session));
        if left.is_empty() {
            return false;
        }
        for session in &left {
            session.reprove.store(true, Ordering::SeqCst);
            session.waker.wake();
        }
        let until = Instant::now() + at_most;
        while left.iter().any(|session| session.is(WallState::LetGo)) && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        true
    }

    /// Sessions that hold a permit in a region, by their backend's process id: how many of their
    /// transactions have ended.
    pub fn writing(&self, region: &Region) -> HashMap<i32, u64> {
        let all = self.handles();
        let holders = all.iter().filter(|s| s.permitted.load(Ordering::Relaxed));
        let backend = |s: &Arc<SessionHandle>| match &s.told().backend {
            Some((at, pid)) if at == region => Some((*pid, s.transactions_ended())),
            Some(_) | None => None,
        };
        holders.filter_map(backend).collect()
    }

    /// How many sessions are logged in ahead to the target with this serial, and how many can be.
    pub fn ready_for(&self, serial: u64) -> (usize, usize) {
        let mut all = self.handles();
        all.retain(|s| s.told().moves.pins.is_empty());
        let ready = all
            .iter()
            .filter(|s| s.ready_for.load(Ordering::Relaxed) == serial)
            .count();
        (ready, all.len())
    }

    /// Counts by state. A snapshot for people; the gate's own count decides.
    pub fn counts(&self) -> SessionCounts {
        let mut n = SessionCounts::default();
        for s in self.handles() {
            n.total += 1;
            let permitted = s.permitted.load(Ordering::Relaxed);
            match s.state() {
                SessionState::Held => n.held += 1,
                SessionState::Orphaned if permitted => n.orphaned += 1,
                SessionState::InTransaction | SessionState::Chained if permitted => {
                    n.open_transactions += 1;
                }
                SessionState::LoggingIn
                | SessionState::Idle
                | SessionState::Executing
                | SessionState::InTransaction
                | SessionState::Chained
                | SessionState::Orphaned
                | SessionState::Moving => n.executing += u64::from(permitted),
            }
        }
        n
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.live().len()
    }

    /// True when there is none, nor anything else that is connected.
    pub fn is_empty(&self) -> bool {
        self.live().is_empty() && self.asides.is_empty()
    }

    /// Has a session undo what keeps a drain waiting.
    pub fn force(&self, id: u32) {
        if let Some(session) = self.by_id(id) {
            session.ask_force();
        }
    }

    /// Has a session give up its connection to the server.
    pub fn give_up(&self, id: u32) {
        if let Some(session) = self.by_id(id) {
            session.ask_give_up();
        }
    }

    /// Has every session that is logged in to a region let go of what it waits for there, if that is
    /// not the target; how many there are.
    pub fn leave(&self, region: &Region) -> usize {
        let mut all = self.handles();
        all.retain(|s| {
            let told = s.told();
            told.backend.as_ref().is_some_and(|(at, _)| at == region)
        });
        for session in &all {
            session.leave.store(true, Ordering::SeqCst);
            session.waker.wake();
        }
        all.len()
    }

    /// Asks a session to end whatever it is doing; false: there is none of this number.
    pub fn quit(&self, id: u32, why: Quit) -> bool {
        let session = self.by_id(id);
        session.inspect(|s| s.ask_quit(why)).is_some()
    }

    /// Asks every session to end.
    pub fn end_all(&self) {
        for s in self.handles() {
            s.ask_end();
        }
        for aside in self.asides.all() {
            aside.ask_end("the daemon is being stopped");
        }
    }

    fn handles(&self) -> Vec<Arc<SessionHandle>> {
        self.live().values().cloned().collect()
    }

    fn live(&self) -> MutexGuard<'_, HashMap<u32, Arc<SessionHandle>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check(
    live: &HashMap<u32, Arc<SessionHandle>>,
    replicating: usize,
    who: &Who,
    bounds: Bounds,
) -> Result<(), Full> {
    if live.len() + replicating >= bounds.all {
        return Err(Full::All(bounds.all));
    }
    // Counted only where there is a bound: the registry knows no indexes.
    let of = |same: &dyn Fn(&SessionHandle) -> bool| live.values().filter(|s| same(s)).count();
    if bounds.per_user > 0 && of(&|s| s.user == who.user) >= bounds.per_user {
        return Err(Full::User(bounds.per_user));
    }
    if bounds.per_database > 0 && of(&|s| s.database == who.database) >= bounds.per_database {
        return Err(Full::Database(bounds.per_database));
    }
    Ok(())
}

/// A session's place in the registry.
pub struct SessionGuard {
    handle: Arc<SessionHandle>,
    sessions: Arc<Sessions>,
}

impl std::ops::Deref for SessionGuard {
    type Target = SessionHandle;
    fn deref(&self) -> &SessionHandle {
        &self.handle
    }
}

impl SessionGuard {
    /// The shared part, for tasks that work for the session.
    pub fn share(&self) -> Arc<SessionHandle> {
        Arc::clone(&self.handle)
    }
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.sessions.live().remove(&self.handle.id);
        self.sessions
            .past
            .add(&self.handle.database, self.handle.traffic());
    }
}
