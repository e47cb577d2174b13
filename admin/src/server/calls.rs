//! How a call of the daemon is run: apart from its connection, bounded, and never panicking
//! through.

use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::Answer;
use crate::api::{ApiError, Code};

/// Changing calls at a time. They answer in milliseconds; more than this many at once means that
/// they do not, and piling up further ones helps nobody.
const ACTS: u32 = 32;
/// For changing calls to end at shutdown, before the daemon goes on stopping.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// The calls in hand.
pub(super) struct Calls {
    acts: std::sync::Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Calls {
    pub(super) fn new(stopping: watch::Receiver<bool>) -> Self {
        Self {
            acts: std::sync::Arc::new(Semaphore::new(ACTS as usize)),
            stopping,
        }
    }

    /// Runs a call that changes something to its end, also when the caller has hung up: the task
    /// is not aborted when this future is dropped, and `finish` waits for it.
    pub(super) async fn act<T: Send + 'static>(
        &self,
        call: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        if *self.stopping.borrow() {
            return Err(stopping());
        }
        let slot = std::sync::Arc::clone(&self.acts)
            .try_acquire_owned()
            .map_err(|_| busy())?;
        let task = tokio::spawn(async move {
            let answer = call.await;
            drop(slot);
            answer
        });
        task.await.unwrap_or_else(|error| Err(failed(&error)))
    }

    /// Runs a call that only looks. It ends with its caller (the set aborts its task when
    /// dropped) and with the server.
    pub(super) async fn look<T: Send + 'static>(
        &self,
        call: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> Answer<T> {
        let mut stopped = self.stopping.clone();
        let mut task = JoinSet::new();
        task.spawn(call);
        // Both arms may be dropped: the loser is the task, which is aborted, or the watch.
        tokio::select! {
            Some(ended) = task.join_next() => ended.unwrap_or_else(|error| Err(failed(&error))),
            _ = stopped.wait_for(|stop| *stop) => Err(stopping()),
        }
    }

    /// Waits until no changing call is in hand, within bounds.
    pub(super) async fn finish(&self) {
        let _ = timeout(FINISH_WITHIN, self.acts.acquire_many(ACTS)).await;
    }
}

fn busy() -> ApiError {
    ApiError::new(
        Code::Busy,
        format!("the daemon has {ACTS} calls in hand and takes no more"),
    )
    .hint("repeat the command; nothing was done")
}

fn stopping() -> ApiError {
    ApiError::new(Code::Stopping, "the daemon is stopping")
        .hint("a run goes on after the next start with `writefencectl resume`")
}

/// A call that panicked (or was cancelled with the runtime): what it did is not known.
fn failed(error: &JoinError) -> ApiError {
    ApiError::new(
        Code::Internal,
        format!("the daemon failed in this call: {error}"),
    )
    .hint("what was done is unknown: look at `writefencectl status` and the daemon's log")
}
