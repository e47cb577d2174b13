//! Failed logins, counted per user and source, and per source.
//!
//! Only failures cost anything: a pool that opens hundreds of connections with the right password
//! meets nothing of this. Who has guessed too often is refused before any work is done, and is
//! looked at again at a slow pace. A user that has logged in from a source before does not suffer
//! from what other users do there, since behind a sidecar all share one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
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
pub struct Throttle(Mutex<Table>);

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

    fn fail(&mut self, rate: Rate, now: Instant) {
        // Not below nothing: attempts that run side by side must not add up to a long ban.
        self.left = (self.left(rate, now) - 1.0).max(0.0);
        self.at = now;
    }
}

impl Throttle {
    /// Whether a login is looked at now; else how long until one is.
    ///
    /// # Errors
    /// The wait.
    pub(super) fn check(&self, from: IpAddr, user: &str) -> Result<(), Duration> {
        self.check_at(from, user, Instant::now())
    }

    /// A login failed.
    pub(super) fn failed(&self, from: IpAddr, user: &str) {
        self.failed_at(from, user, Instant::now());
    }

    /// A login succeeded.
    pub(super) fn succeeded(&self, from: IpAddr, user: &str) {
        self.succeeded_at(from, user, Instant::now());
    }

    fn check_at(&self, from: IpAddr, user: &str, now: Instant) -> Result<(), Duration> {
        let source = source(from);
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = table.users.get(&(source, user.to_owned()));
        let own = known.and_then(|count| count.wait(USER, now));
        let others = match known {
            Some(count) if count.has_succeeded => None,
            _ => {
                let count = table.sources.get(&source).or(table.overflow.as_ref());
                count.and_then(|count| count.wait(SOURCE, now))
            }
        };
        own.max(others).map_or(Ok(()), Err)
    }

    fn failed_at(&self, from: IpAddr, user: &str, now: Instant) {
        let source = source(from);
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Table {
            users,
            sources,
            overflow,
        } = &mut *table;
        match room(users, (source, user.to_owned()), USER, now) {
            Some(count) => count.fail(USER, now),
            None => overflow
                .get_or_insert(Count::new(SOURCE, now))
                .fail(SOURCE, now),
        }
        match room(sources, source, SOURCE, now) {
            Some(count) => count.fail(SOURCE, now),
            None => overflow
                .get_or_insert(Count::new(SOURCE, now))
                .fail(SOURCE, now),
        }
    }

    fn succeeded_at(&self, from: IpAddr, user: &str, now: Instant) {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = room(&mut table.users, (source(from), user.to_owned()), USER, now) {
            count.has_succeeded = true;
        }
    }
}

fn room<K: std::hash::Hash + Eq>(
    counts: &mut HashMap<K, Count>,
    key: K,
    rate: Rate,
    now: Instant,
) -> Option<&mut Count> {
    if counts.len() >= REMEMBERED && !counts.contains_key(&key) {
        counts.retain(|_, count| count.left(rate, now) < rate.burst);
        if counts.len() >= REMEMBERED {
            return None;
        }
    }
    Some(counts.entry(key).or_insert_with(|| Count::new(rate, now)))
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

    #[test]
    fn who_guesses_is_slowed_down_and_nobody_else_is() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded_at(HERE, "good", now);
        for _ in 0..10 {
            assert_eq!(throttle.check_at(HERE, "bad", now), Ok(()));
            throttle.failed_at(HERE, "bad", now);
        }
        assert_eq!(
            throttle.check_at(HERE, "bad", now),
            Err(Duration::from_secs(1))
        );
        assert_eq!(throttle.check_at(HERE, "good", now), Ok(()));
        let elsewhere = "10.0.0.1".parse().unwrap();
        assert_eq!(throttle.check_at(elsewhere, "bad", now), Ok(()));
        let later = now + Duration::from_secs(1);
        assert_eq!(throttle.check_at(HERE, "bad", later), Ok(()));
        throttle.failed_at(HERE, "bad", later);
        assert!(throttle.check_at(HERE, "bad", later).is_err());
    }

    #[test]
    fn many_names_from_one_source_are_one_guesser_but_not_who_has_logged_in_there() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        throttle.succeeded_at(HERE, "good", now);
        for n in 0..100 {
            throttle.failed_at(HERE, &format!("user{n}"), now);
        }
        assert!(throttle.check_at(HERE, "another", now).is_err());
        assert_eq!(throttle.check_at(HERE, "good", now), Ok(()));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..(REMEMBERED as u32 + 500) {
            let from = IpAddr::V4(std::net::Ipv4Addr::from_bits(n));
            throttle.failed_at(from, "x", now);
        }
        let table = throttle.0.lock().unwrap();
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
