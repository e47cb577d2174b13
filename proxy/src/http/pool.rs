//! Connections to the servers behind, kept per region and epoch.
//!
//! An epoch ends with every phase change, and with it all its connections in rest: none is ever
//! used again, not even if the address is the same. hyper's client is used one connection at a
//! time, because that tells exactly what was sent: a request that comes back unsent may be sent
//! elsewhere, and any other failure of a write is an unknown outcome, never a second attempt.

mod lease;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use tokio::time::{Instant, timeout};

use super::body::UpBody;
use super::origin::{Origin, Speaks};
use crate::gate::Epoch;
use crate::shutdown::Tasks;

use lease::Sender;
pub(super) use lease::{Lease, Unanswered};

/// Connections in rest per region; the rest is closed.
const IDLE: usize = 64;

/// Streams that share an HTTP/2 connection; the next one gets another. Below what servers allow, so
/// that none waits for its turn behind those that are slow.
const STREAMS: usize = 64;

/// HTTP/2 connections kept per region and kind. Beyond them a connection carries one exchange.
const SHARED: usize = 16;

/// How long a connection may have rested to carry a read. Servers close theirs after a while.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// How long it may have rested to carry a write. A server may close a connection at the moment we
/// send on it, and for a write that is an unknown outcome; servers that wait for less than this
/// before they close are rare.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// How long a connection gets to come to rest behind an answer.
const REST: Duration = Duration::from_millis(50);

/// Where a request goes: one snapshot, taken under its permit.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    pub(super) origin: Arc<Origin>,
    pub(super) epoch: Epoch,
}

/// What a request needs of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Any,
    /// HTTP/2, also where nothing says that the server speaks it.
    Grpc,
    /// HTTP/1.1, the only one that can be upgraded here.
    Upgrade,
}

/// What a connection may have done before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Any that is alive.
    Any,
    /// One that has rested for a moment at most.
    Fresh,
    /// None.
    Never,
}

/// What a connection is wanted for. Reads and writes share none over HTTP/2: a write whose client is
/// slow, or whose server is, may use up what its connection has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) need: Need,
    pub(super) reuse: Reuse,
    pub(super) writes: bool,
}

type Key = (Epoch, String);

#[derive(Default)]
struct Shelf {
    http1: Vec<(Instant, http1::SendRequest<UpBody>)>,
    reads: Vec<Shared>,
    writes: Vec<Shared>,
}

/// An HTTP/2 connection and how many use it.
struct Shared {
    sender: http2::SendRequest<UpBody>,
    shares: Arc<()>,
}

impl Shared {
    fn streams(&self) -> usize {
        Arc::strong_count(&self.shares) - 1
    }
}

impl Shelf {
    const fn shared(&mut self, writes: bool) -> &mut Vec<Shared> {
        match writes {
            true => &mut self.writes,
            false => &mut self.reads,
        }
    }

    /// A connection with room for one stream more. Of those that nobody uses one stays.
    fn share(&mut self, writes: bool) -> Option<(Sender, Arc<()>)> {
        let all = self.shared(writes);
        let mut rests = false;
        all.retain(|one| {
            let idle = one.streams() == 0;
            let kept = !(one.sender.is_closed() || idle && rests);
            rests |= idle && kept;
            kept
        });
        let one = all.iter().find(|one| one.streams() < STREAMS)?;
        Some((Sender::Http2(one.sender.clone()), Arc::clone(&one.shares)))
    }
}

#[derive(Default)]
struct Shelves {
    kept: BTreeMap<Key, Shelf>,
    /// Nothing is kept of epochs before this one.
    floor: Option<Epoch>,
    /// Nothing is kept any more.
    closed: bool,
}

/// See the module.
pub(super) struct Pool {
    shelves: Mutex<Shelves>,
    tasks: Tasks,
    connect_within: Duration,
}

impl Pool {
    pub(super) fn new(tasks: Tasks, connect_within: Duration) -> Self {
        Self {
            shelves: Mutex::default(),
            tasks,
            connect_within,
        }
    }

    /// A connection for a request.
    pub(super) async fn lease(&self, aim: &Aim, wish: Wish) -> io::Result<Lease> {
        let Wish {
            need,
            reuse,
            writes,
        } = wish;
        let speaks = aim.origin.speaks(need);
        let key = (aim.epoch, aim.origin.region.clone());
        if let Some((sender, share)) = self.take(&key, speaks, wish) {
            return Ok(Lease {
                sender,
                key,
                reused: true,
                _share: share,
            });
        }
        let stream = aim.origin.connect(need, self.connect_within).await?;
        // Under TLS the server has said what it speaks.
        let speaks = match stream.alpn() {
            Some(b"h2") => Speaks::Http2,
            Some(_) => Speaks::Http1,
            None => speaks,
        };
        let sender = lease::open(&self.tasks, stream, speaks).await?;
        let mut share = None;
        if let Sender::Http2(sender) = &sender
            && reuse != Reuse::Never
        {
            let shares = Arc::new(());
            share = Some(Arc::clone(&shares));
            let sender = sender.clone();
            self.shelf(&key, |shelf| {
                let all = shelf.shared(writes);
                if all.len() < SHARED {
                    all.push(Shared { sender, shares });
                }
            });
        }
        Ok(Lease {
            sender,
            key,
            reused: false,
            _share: share,
        })
    }

    fn take(&self, key: &Key, speaks: Speaks, wish: Wish) -> Option<(Sender, Option<Arc<()>>)> {
        let most = match wish.reuse {
            Reuse::Any => IDLE_FOR,
            Reuse::Fresh => FRESH_FOR,
            Reuse::Never => return None,
        };
        let mut shelves = self.lock();
        let shelf = shelves.kept.get_mut(key)?;
        // Whichever there is: a server that agreed to HTTP/2 once does so again.
        if wish.need != Need::Upgrade
            && let Some((sender, share)) = shelf.share(wish.writes)
        {
            return Some((sender, Some(share)));
        }
        match speaks {
            Speaks::Http1 => {
                // The one that rested least is at the end.
                while let Some((since, sender)) = shelf.http1.pop() {
                    if since.elapsed() > most {
                        // Those below have rested longer, and may still do for a read.
                        shelf.http1.push((since, sender));
                        return None;
                    }
                    if sender.is_ready() {
                        return Some((Sender::Http1(sender), None));
                    }
                }
                None
            }
            Speaks::Http2 => None,
        }
    }

    /// Takes a connection back whose answer is complete.
    pub(super) async fn put_back(&self, lease: Lease, in_force: Epoch) {
        let Sender::Http1(mut sender) = lease.sender else {
            return; // It was never taken off.
        };
        if lease.key.0 != in_force || !matches!(timeout(REST, sender.ready()).await, Ok(Ok(()))) {
            return;
        }
        self.shelf(&lease.key, |shelf| {
            shelf
                .http1
                .retain(|(since, sender)| since.elapsed() < IDLE_FOR && sender.is_ready());
            if shelf.http1.len() < IDLE {
                shelf.http1.push((Instant::now(), sender));
            }
        });
    }

    /// Closes what rests of epochs before this one. Exchanges under way keep theirs.
    pub(super) fn retire(&self, before: Epoch) {
        let retired: Vec<Shelf> = {
            let mut shelves = self.lock();
            shelves.floor = shelves.floor.max(Some(before));
            let kept = shelves.kept.split_off(&(before, String::new()));
            let retired = std::mem::replace(&mut shelves.kept, kept);
            retired.into_values().collect()
        };
        drop(retired);
    }

    /// Closes everything that rests, and from now on whatever comes to rest.
    pub(super) fn close(&self) {
        let mut shelves = self.lock();
        shelves.closed = true;
        let all = std::mem::take(&mut shelves.kept);
        drop(shelves);
        drop(all);
    }

    fn shelf(&self, key: &Key, put: impl FnOnce(&mut Shelf)) {
        let mut shelves = self.lock();
        // A write that was admitted before a fence may open its connection behind it.
        if !shelves.closed && Some(key.0) >= shelves.floor {
            put(shelves.kept.entry(key.clone()).or_default());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_of_an_epoch_that_is_over_even_if_it_comes_late() {
        let pool = Pool::new(Tasks::default(), Duration::from_secs(1));
        let keep = |epoch: u64| {
            let mut kept = false;
            pool.shelf(&(Epoch::new(epoch), "a".to_owned()), |_| kept = true);
            kept
        };
        assert!(keep(4));
        pool.retire(Epoch::new(5));
        assert!(!keep(4), "a write admitted before the fence opened it");
        assert!(keep(5));
        pool.retire(Epoch::new(3));
        assert!(!keep(4), "looks may come out of order");
        pool.close();
        assert!(!keep(6));
    }
}
