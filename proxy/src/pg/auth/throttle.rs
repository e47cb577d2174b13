//! Failed logins, counted per user and source, and per source.
//!
//! Only failures cost anything: a pool that opens hundreds of connections with the right password
//! meets nothing of this but a short queue. Who has guessed too often is refused before any work is
//! done, and is looked at again at a slow pace. No more attempts are looked at side by side than may
//! fail, so guessing in parallel gains nothing. A user that has logged in from a source before does
//! not suffer from what other users do there, since behind a sidecar all share one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
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
/// Attempts side by side of a user that has logged in from this source before; the others wait for
/// milliseconds.
const ABREAST: u32 = 64;
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
    /// An attempt has ended, so another one may have its turn.
    ended: Notify,
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
    in_flight: u32,
}

/// An attempt that is being looked at. Given up, it is neither a failure nor a success.
pub(super) struct Attempt<'a> {
    throttle: &'a Throttle,
    key: (IpAddr, String),
}

/// Whether an attempt is looked at.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Now,
    /// When others have ended.
    Later,
    /// Not before this has passed.
    Refused(Duration),
}

impl Count {
    const fn new(rate: Rate, now: Instant) -> Self {
        Self {
            left: rate.burst,
            at: now,
            has_succeeded: false,
            in_flight: 0,
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

    /// Whether one more side by side could still fail without being one too many.
    fn has_room(&self, rate: Rate, now: Instant) -> bool {
        f64::from(self.in_flight) + 1.0 <= self.left(rate, now)
    }

    fn fail(&mut self, rate: Rate, now: Instant) {
        self.left = (self.left(rate, now) - 1.0).max(0.0);
        self.at = now;
    }

    fn is_forgettable(&self, rate: Rate, now: Instant) -> bool {
        self.in_flight == 0 && self.left(rate, now) >= rate.burst
    }
}

impl Throttle {
    /// Waits for the attempt's turn.
    ///
    /// # Errors
    /// It has none now; how long until one is looked at.
    pub(super) async fn enter(&self, from: IpAddr, user: &str) -> Result<Attempt<'_>, Duration> {
        let key = (source(from), user.to_owned());
        loop {
            // Heard from before the look, so that an end right after it is not missed.
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            match self.turn(&key, Instant::now()) {
                Turn::Now => {
                    return Ok(Attempt {
                        throttle: self,
                        key,
                    });
                }
                Turn::Later => ended.await,
                Turn::Refused(wait) => return Err(wait),
            }
        }
    }

    fn turn(&self, key: &(IpAddr, String), now: Instant) -> Turn {
        let mut table = self.lock();
        let Table {
            users,
            sources,
            overflow,
        } = &mut *table;
        let known = users.get(key).is_some_and(|count| count.has_succeeded);
        let user = room(users, key.clone(), USER, now);
        let from = room(sources, key.0, SOURCE, now);
        let mut shared = || *overflow.get_or_insert(Count::new(SOURCE, now));
        let own = match &user {
            Some(count) => count.wait(USER, now),
            None => shared().wait(SOURCE, now),
        };
        let others = match &from {
            _ if known => None,
            Some(count) => count.wait(SOURCE, now),
            None => shared().wait(SOURCE, now),
        };
        if let Some(wait) = own.max(others) {
            return Turn::Refused(wait);
        }
        let fits = match (&user, &from) {
            (Some(user), _) if known => user.in_flight < ABREAST,
            (user, from) => {
                let fits = |count: &Option<&mut Count>, rate| {
                    count.as_ref().is_none_or(|count| count.has_room(rate, now))
                };
                fits(user, USER) && fits(from, SOURCE)
            }
        };
        if !fits {
            return Turn::Later;
        }
        for count in [user, from].into_iter().flatten() {
            count.in_flight += 1;
        }
        Turn::Now
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    /// It failed.
    pub(super) fn failed(self) {
        self.failed_at(Instant::now());
    }

    fn failed_at(self, now: Instant) {
        let mut table = self.throttle.lock();
        let Table {
            users,
            sources,
            overflow,
        } = &mut *table;
        for (count, rate) in [
            (users.get_mut(&self.key), USER),
            (sources.get_mut(&self.key.0), SOURCE),
        ] {
            match count {
                Some(count) => count.fail(rate, now),
                None => overflow
                    .get_or_insert(Count::new(SOURCE, now))
                    .fail(SOURCE, now),
            }
        }
    }

    /// It succeeded.
    pub(super) fn succeeded(self) {
        if let Some(count) = self.throttle.lock().users.get_mut(&self.key) {
            count.has_succeeded = true;
        }
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut table = self.throttle.lock();
        let Table { users, sources, .. } = &mut *table;
        let counts = [users.get_mut(&self.key), sources.get_mut(&self.key.0)];
        for count in counts.into_iter().flatten() {
            count.in_flight = count.in_flight.saturating_sub(1);
        }
        drop(table);
        self.throttle.ended.notify_waiters();
    }
}

fn room<K: std::hash::Hash + Eq>(
    counts: &mut HashMap<K, Count>,
    key: K,
    rate: Rate,
    now: Instant,
) -> Option<&mut Count> {
    if counts.len() >= REMEMBERED && !counts.contains_key(&key) {
        counts.retain(|_, count| !count.is_forgettable(rate, now));
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

    fn key(user: &str) -> (IpAddr, String) {
        (HERE, user.to_owned())
    }

    fn attempt<'a>(throttle: &'a Throttle, user: &str, now: Instant) -> Result<Attempt<'a>, Turn> {
        let key = key(user);
        match throttle.turn(&key, now) {
            Turn::Now => Ok(Attempt { throttle, key }),
            turn => Err(turn),
        }
    }

    #[test]
    fn who_guesses_is_slowed_down_and_nobody_else_is() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        attempt(&throttle, "good", now).ok().unwrap().succeeded();
        for _ in 0..10 {
            attempt(&throttle, "bad", now).ok().unwrap().failed_at(now);
        }
        let second = Duration::from_secs(1);
        assert_eq!(
            attempt(&throttle, "bad", now).err(),
            Some(Turn::Refused(second))
        );
        assert!(attempt(&throttle, "good", now).is_ok());
        let later = now + second;
        attempt(&throttle, "bad", later)
            .ok()
            .unwrap()
            .failed_at(later);
        assert!(attempt(&throttle, "bad", later).is_err());
    }

    #[test]
    fn guesses_side_by_side_are_no_more_than_may_fail() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let mut abreast: Vec<_> = (0..10)
            .map(|_| attempt(&throttle, "bad", now).ok())
            .collect();
        assert!(abreast.iter().all(Option::is_some));
        assert_eq!(attempt(&throttle, "bad", now).err(), Some(Turn::Later));
        abreast.pop().flatten().unwrap().failed_at(now);
        assert_eq!(attempt(&throttle, "bad", now).err(), Some(Turn::Later));
        abreast.pop().flatten().unwrap().succeeded();
        assert!(attempt(&throttle, "bad", now).is_ok());
    }

    #[test]
    fn many_names_from_one_source_are_one_guesser_but_not_who_has_logged_in_there() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        attempt(&throttle, "good", now).ok().unwrap().succeeded();
        for n in 0..100 {
            let user = format!("user{n}");
            attempt(&throttle, &user, now).ok().unwrap().failed_at(now);
        }
        assert!(matches!(
            attempt(&throttle, "another", now).err(),
            Some(Turn::Refused(_))
        ));
        assert!(attempt(&throttle, "good", now).is_ok());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for n in 0..11_000 {
            let key = (IpAddr::V4(std::net::Ipv4Addr::from_bits(n)), "x".to_owned());
            if throttle.turn(&key, now) == Turn::Now {
                let throttle = &throttle;
                Attempt { throttle, key }.failed_at(now);
            }
        }
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
