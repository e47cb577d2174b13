//! Bells: how tasks learn that they should look again.
//!
//! A bell wakes whoever enrolled; it carries no news, each listener looks for itself. The gate has
//! two, one for changes of phase, plan or target (`Watch`), one for drains. Ringing with nobody
//! enrolled takes no lock. Wakers are called with no lock held, since waking may run foreign code.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_util::task::AtomicWaker;

use super::{
    atomics::{Mutex, lock},
    word::Count,
};

pub(super) struct Bell {
    /// Enrolled listeners. Whoever rings has changed something and then reads this; a listener
    /// raises this and then reads what may have changed. Sequentially consistent on both sides,
    /// so one of the two always sees the other and no wake is lost.
    listeners: Count,
    /// Times rung with somebody enrolled.
    rung: Count,
    wakers: Mutex<Wakers>,
}

#[derive(Default)]
struct Wakers {
    next: u64,
    by_key: BTreeMap<u64, Arc<AtomicWaker>>,
}

impl Bell {
    pub(super) fn new() -> Arc<Self> {
        let wakers = Mutex::new(Wakers::default());
        Arc::new(Self {
            listeners: Count::new(),
            rung: Count::new(),
            wakers,
        })
    }

    /// Wakes every listener.
    pub(super) fn ring(&self) {
        if self.listeners.value() == 0 {
            return;
        }
        self.rung.add();
        let wakers: Vec<_> = lock(&self.wakers).by_key.values().cloned().collect();
        for waker in wakers {
            waker.wake();
        }
    }

    /// Enrols the caller. Look only afterwards.
    pub(super) fn listen(self: &Arc<Self>) -> Listener {
        let waker = Arc::new(AtomicWaker::new());
        let key = {
            let mut wakers = lock(&self.wakers);
            let key = wakers.next;
            wakers.next += 1;
            wakers.by_key.insert(key, Arc::clone(&waker));
            key
        };
        self.listeners.add();
        Listener {
            bell: Arc::clone(self),
            key,
            waker,
        }
    }
}

/// One enrolment; ends when dropped.
pub(super) struct Listener {
    bell: Arc<Bell>,
    key: u64,
    waker: Arc<AtomicWaker>,
}

impl Listener {
    /// Has `waker` woken at the next ring. Look only afterwards.
    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.bell.listeners.sub();
        let gone = lock(&self.bell.wakers).by_key.remove(&self.key);
        // The waker inside may be the last handle of a task: dropped with the lock released.
        drop(gone);
    }
}

/// A session's ear at the gate: woken when a phase, the plan or a target changed.
pub struct Watch {
    listener: Listener,
    seen: u64,
}

impl Watch {
    pub(super) fn new(bell: &Arc<Bell>) -> Self {
        let listener = bell.listen();
        Self {
            seen: bell.rung.value(),
            listener,
        }
    }

    /// Has `waker` woken at the next change. Register first, then look at the gate: a change in
    /// between then either shows or wakes.
    pub fn register(&self, waker: &Waker) {
        self.listener.register(waker);
    }

    /// Ready if something changed since the last time this was ready.
    pub fn poll_changed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.register(cx.waker());
        let rung = self.listener.bell.rung.value();
        if rung == self.seen {
            return Poll::Pending;
        }
        self.seen = rung;
        Poll::Ready(())
    }

    /// Waits for the next change. Safe to drop at any point: a change not reported stays due.
    pub async fn changed(&mut self) {
        poll_fn(|cx| self.poll_changed(cx)).await;
    }
}
