//! What sessions have sent and were sent, per session and per database since the start.
//!
//! Counted by the session alone, in plain stores: nobody else writes, so the busy path pays for no
//! locked addition. What ended sessions had is kept per database, for the first of them only.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{SessionHandle, Sessions};

/// Databases whose past is kept apart; a client may name any, so there is a bound. The others count
/// together.
const DATABASES: usize = 256;

/// The name of all others.
const OTHERS: &str = "(others)";

/// Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Transactions that have ended.
    pub transactions: u64,
    /// Statement groups that were answered.
    pub queries: u64,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
}

impl Traffic {
    /// Adds another's counts.
    pub fn add(&mut self, other: Self) {
        self.transactions += other.transactions;
        self.queries += other.queries;
        self.received += other.received;
        self.sent += other.sent;
    }
}

impl Traffic {
    /// What came on top of `before`, per second.
    fn per_second(self, before: Self, seconds: u64) -> Self {
        let rate = |now: u64, was: u64| now.saturating_sub(was) / seconds.max(1);
        Self {
            transactions: rate(self.transactions, before.transactions),
            queries: rate(self.queries, before.queries),
            received: rate(self.received, before.received),
            sent: rate(self.sent, before.sent),
        }
    }
}

/// A session's own counters.
#[derive(Debug, Default)]
pub struct Meter {
    queries: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

// Relaxed: these are for people, and for a clock that looks twice.
impl Meter {
    /// A group was answered.
    pub fn answered(&self) {
        raise(&self.queries, 1);
    }

    /// Bytes came from the client.
    pub fn received(&self, bytes: usize) {
        raise(&self.received, bytes as u64);
    }

    /// Bytes go to the client.
    pub fn sent(&self, bytes: usize) {
        raise(&self.sent, bytes as u64);
    }
}

fn raise(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

impl SessionHandle {
    /// What it has sent and was sent.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            transactions: self.transactions_ended(),
            queries: self.meter.queries.load(Ordering::Relaxed),
            received: self.meter.received.load(Ordering::Relaxed),
            sent: self.meter.sent.load(Ordering::Relaxed),
        }
    }
}

/// The time over which averages are made: PgBouncer's stats_period.
const PERIOD: Duration = Duration::from_secs(60);

type ByDatabase = BTreeMap<String, Traffic>;

/// When a period ended, with the totals at that time.
type Ended = Option<(Instant, ByDatabase)>;

/// The totals at the ends of the last whole period.
#[derive(Debug, Default)]
pub(super) struct Periods(Mutex<(Ended, Option<ByDatabase>)>);

/// What sessions had that have ended.
#[derive(Debug, Default)]
pub(super) struct Past(Mutex<BTreeMap<String, Traffic>>);

impl Past {
    pub(super) fn add(&self, database: &str, traffic: Traffic) {
        let mut past = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = past.contains_key(database) || past.len() < DATABASES;
        let name = if known { database } else { OTHERS };
        match past.get_mut(name) {
            Some(so_far) => so_far.add(traffic),
            None => _ = past.insert(name.to_owned(), traffic),
        }
    }
}

impl Sessions {
    /// Ends the period for averages when its time is over. Called every few seconds.
    pub(crate) fn roll(&self) {
        let mut periods = self
            .periods
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let over = |begun: &Instant| now.duration_since(*begun) >= PERIOD;
        if periods.0.as_ref().is_some_and(|(begun, _)| !over(begun)) {
            return;
        }
        let totals = self.by_database();
        if let Some((begun, before)) = periods.0.take() {
            let seconds = now.duration_since(begun).as_secs();
            let rates = totals.iter().map(|(name, total)| {
                let before = before.get(name).copied().unwrap_or_default();
                (name.clone(), total.per_second(before, seconds))
            });
            periods.1 = Some(rates.collect());
        }
        periods.0 = Some((now, totals));
    }

    /// Traffic per database and second over the last whole period; `None`: there was none yet.
    pub fn averages(&self) -> Option<ByDatabase> {
        let periods = self
            .periods
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        periods.1.clone()
    }

    /// Traffic per database since the start, by name.
    pub fn by_database(&self) -> BTreeMap<String, Traffic> {
        let mut all = {
            let past = &self.past.0;
            past.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        for session in self.handles() {
            all.entry(session.database.clone())
                .or_default()
                .add(session.traffic());
        }
        all
    }
}
