//! Failed logins, counted per user and source, and per source.
//!
//! Only failures cost anything: a pool that opens hundreds of connections with the right password
//! meets nothing of this. Who has guessed too often is refused before any work is done, and is
//! looked at again at a slow pace. A guess is paid for when it is made, and given back when it was
//! right; there is no waiting between the two, so guessing in parallel gains nothing, and who begins
//! logins and never ends them holds up nobody. A user that has logged in from a source before does
//! not suffer from what other users do there, since behind a sidecar all share one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures of one user from one source that are looked at, at once and again per second.
const USER: Rate = Rate {
    burst: 10.0,
    per_second: 1.0,
};
/// Failures from one source, of users that have not logged in from there.
const SOURCE: Rate = Rate {
    burst: 100.0,
    per_second: 10.0,
};
/// Users and sources that are remembered. Beyond it those that have recovered are forgotten, and if
/// none has, newcomers share one count.
const REMEMBERED: usize = 10_000;

#[derive(Clone, Copy)]
struct Rate {
    burst: f64,
    per_second: f64,
}

/// What is remembered of failures.
#[derive(Default)]
pub struct Throttle {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    users: HashMap<(IpAddr, String), Count>,
    sources: HashMap<IpAddr, Count>,
    overflow: Option<Count>,
}

/// Failures that are still allowed, as of a time.
#[derive(Clone, Copy)]
struct Count {
    left: f64,
    at: Instant,
    has_succeeded: bool,
}

/// A guess that is paid for: a failure, unless it is said to be something else.
pub(super) struct Guess<'a> {
    throttle: &'a Throttle,
    key: (IpAddr, String),
    /// Of the user and of the source; less than one of a source that had less.
    paid: [f64; 2],
}

impl Count {
    const fn new(rate: Rate, now: Instant) -> Self {
        Self {
            left: rate.burst,
            at: now,
            has_succeeded: false,
        }
    }

    fn left(&self, rate: Rate, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (passed.mul_add(rate.per_second, self.left)).min(rate.burst)
    }

    fn wait(&self, rate: Rate, now: Instant) -> Option<Duration> {
        let lacks = 1.0 - self.left(rate, now);
        (lacks > 0.0).then(|| Duration::from_secs_f64(lacks / rate.per_second))
    }

    /// Takes one failure, or what is left; says how much.
    fn pay(&mut self, rate: Rate, now: Instant) -> f64 {
        let left = self.left(rate, now);
        let paid = left.clamp(0.0, 1.0);
        (self.left, self.at) = (left - paid, now);
        paid
    }

    fn give_back(&mut self, paid: f64, rate: Rate, now: Instant) {
        self.left = (self.left(rate, now) + paid).min(rate.burst);
        self.at = now;
    }

    fn is_forgettable(&self, rate: Rate, now: Instant) -> bool {
        self.left(rate, now) >= rate.burst
    }
}

impl Throttle {
    /// Looks whether this user may guess now, before anything is done for it.
    ///
    /// # Errors
    /// It may not; how long until it may.
    pub(super) fn look(&self, from: IpAddr, user: &str) -> Result<(), Duration> {
        let key = (source(from), user.to_owned());
        self.lock().wait(&key, Instant::now()).map_or(Ok(()), Err)
    }

    /// Pays for a guess, right before it is compared.
    ///
    /// # Errors
    /// Too many were wrong, maybe since `look`; how long until one is looked at again.
    pub(super) fn pay(&self, from: IpAddr, user: &str) -> Result<Guess<'_>, Duration> {
        self.pay_at((source(from), user.to_owned()), Instant::now())
    }

    fn pay_at(&self, key: (IpAddr, String), now: Instant) -> Result<Guess<'_>, Duration> {
        let mut table = self.lock();
        if let Some(wait) = table.wait(&key, now) {
            return Err(wait);
        }
        make_room(&mut table.users, key.clone(), USER, now);
        make_room(&mut table.sources, key.0, SOURCE, now);
        let mut paid = [0.0; 2];
        table.each(&key, now, |n, count, rate| paid[n] = count.pay(rate, now));
        drop(table);
        Ok(Guess {
            throttle: self,
            key,
            paid,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// How long this user may not guess; nobody is remembered by it.
    fn wait(&self, key: &(IpAddr, String), now: Instant) -> Option<Duration> {
        let shared = |full: bool| self.overflow.filter(|_| full)?.wait(SOURCE, now);
        let user = self.users.get(key);
        let own = match user {
            Some(count) => count.wait(USER, now),
            None => shared(self.users.len() >= REMEMBERED),
        };
        let others = match self.sources.get(&key.0) {
            _ if user.is_some_and(|count| count.has_succeeded) => None,
            Some(count) => count.wait(SOURCE, now),
            None => shared(self.sources.len() >= REMEMBERED),
        };
        own.max(others)
    }

    /// The user's count and the source's, by number; who is not remembered has the shared one.
    fn each(
        &mut self,
        key: &(IpAddr, String),
        now: Instant,
        mut act: impl FnMut(usize, &mut Count, Rate),
    ) {
        let (user, from) = (self.users.get_mut(key), self.sources.get_mut(&key.0));
        for (n, (count, rate)) in [(user, USER), (from, SOURCE)].into_iter().enumerate() {
            match count {
                Some(count) => act(n, count, rate),
                None => {
                    let shared = self.overflow.get_or_insert(Count::new(SOURCE, now));
                    act(n, shared, SOURCE);
                }
            }
        }
    }
}

impl Guess<'_> {
    /// It was right: nothing is paid, and the user is known at this source.
    pub(super) fn was_right(self) {
        self.given_back(Instant::now());
        if let Some(count) = self.throttle.lock().users.get_mut(&self.key) {
            count.has_succeeded = true;
        }
    }

    /// It was none: nothing is paid.
    pub(super) fn was_none(self) {
        self.given_back(Instant::now());
    }

    fn given_back(&self, now: Instant) {
        let mut table = self.throttle.lock();
        let paid = self.paid;
        table.each(&self.key, now, |n, count, rate| {
            count.give_back(paid[n], rate, now);
        });
    }
}

/// Has this one remembered, if there is room.
fn make_room<K: std::hash::Hash + Eq>(
    counts: &mut HashMap<K, Count>,
    key: K,
    rate: Rate,
    now: Instant,
) {
    if counts.len() >= REMEMBERED && !counts.contains_key(&key) {
        counts.retain(|_, count| !count.is_forgettable(rate, now));
    }
    if counts.len() < REMEMBERED {
        counts.entry(key).or_insert_with(|| Count::new(rate, now));
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn key(user: &str) -> (IpAddr, String) {
        (HERE, user.to_owned())
    }

    fn guess<'a>(throttle: &'a Throttle, user: &str, now: Instant) -> Result<Guess<'a>, Duration> {
        throttle.pay_at(key(user), now)
    }

    fn right(throttle: &Throttle, user: &str, now: Instant) {
        let guess = guess(throttle, user, now).ok().unwrap();
        guess.given_back(now);
        throttle
            .lock()
            .users
            .get_mut(&key(user))
            .unwrap()
            .has_succeeded = true;
    }

    #[test]
    fn who_guesses_is_slowed_down_and_nobody_else_is() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        right(&throttle, "good", now);
        for _ in 0..10 {
            assert!(guess(&throttle, "bad", now).is_ok());
        }
        let second = Duration::from_secs(1);
        assert_eq!(guess(&throttle, "bad", now).err(), Some(second));
        assert_eq!(throttle.lock().wait(&key("bad"), now), Some(second));
        assert!(guess(&throttle, "good", now).is_ok());
        let later = now + second;
        assert!(guess(&throttle, "bad", later).is_ok());
        assert!(guess(&throttle, "bad", later).is_err());
    }

    #[test]
    fn guesses_side_by_side_are_no_more_than_may_fail_and_the_right_ones_cost_nothing() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let mut abreast: Vec<_> = (0..10)
            .map(|_| guess(&throttle, "bad", now).ok().unwrap())
            .collect();
        assert!(guess(&throttle, "bad", now).is_err());
        abreast.pop().unwrap().given_back(now);
        assert!(guess(&throttle, "bad", now).is_ok());
        assert!(guess(&throttle, "bad", now).is_err());
        for _ in 0..1000 {
            right(&throttle, "good", now);
        }
        assert!(guess(&throttle, "good", now).is_ok());
    }

    #[test]
    fn who_only_begins_a_login_takes_nothing_and_is_not_remembered() {
        let throttle = Throttle::default();
        for n in 0..1000 {
            assert_eq!(throttle.look(HERE, &format!("user{n}")), Ok(()));
            assert_eq!(throttle.look(HERE, "good"), Ok(()));
        }
        let table = throttle.lock();
        assert!(table.users.is_empty() && table.sources.is_empty());
    }

    #[test]
    fn many_names_from_one_source_are_one_guesser_but_not_who_has_logged_in_there() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        right(&throttle, "good", now);
        for n in 0..100 {
            assert!(guess(&throttle, &format!("user{n}"), now).is_ok());
        }
        assert!(guess(&throttle, "another", now).is_err());
        // Nor does it give back to the source what it has not paid.
        right(&throttle, "good", now);
        assert!(guess(&throttle, "another", now).is_err());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let source = |n| (IpAddr::V4(std::net::Ipv4Addr::from_bits(n)), "x".to_owned());
        for n in 0..11_000 {
            let _ = throttle.pay_at(source(n), now);
        }
        assert!(throttle.pay_at(source(11_000), now).is_err());
        let table = throttle.lock();
        assert!(table.users.len() <= REMEMBERED && table.sources.len() <= REMEMBERED);
        assert!(table.overflow.is_some());
    }

    #[test]
    fn a_network_of_ipv6_is_one_source() {
        let one = source("2001:db8::1".parse().unwrap());
        assert_eq!(one, source("2001:db8::ffff".parse().unwrap()));
        assert_ne!(one, source("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(
            source("::ffff:10.0.0.1".parse().unwrap()),
            source("10.0.0.1".parse().unwrap())
        );
    }
}
