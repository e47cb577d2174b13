//! The end of the daemon: a word that everybody hears, and tasks that are waited for.
//!
//! No task is started that nobody knows: [`Tasks`] counts them, so that the end can wait until
//! journals are written and sessions have said good-bye, and no longer than its deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

/// Tells everybody to stop. Dropping it tells them too.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Hears when to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// A stopper and its ear.
#[must_use]
pub fn pair() -> (Stopper, Shutdown) {
    let (tell, hear) = watch::channel(false);
    (Stopper(tell), Shutdown(hear))
}

impl Stopper {
    /// From now on everything stops; repeats do nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether it was said already.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// The bare channel, for parts that know nothing of this one.
    #[must_use]
    pub fn receiver(&self) -> watch::Receiver<bool> {
        self.0.clone()
    }

    /// Resolves when it is said. Safe to drop and to ask again.
    pub async fn stopping(&mut self) {
        // An error means that the stopper is gone, which says the same.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

/// The tasks of the daemon.
#[derive(Clone, Debug)]
pub struct Tasks {
    count: Arc<watch::Sender<usize>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self {
            count: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl Tasks {
    /// Starts a task that the end waits for.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.count.send_modify(|n| *n += 1);
        let leave = Leave(Arc::clone(&self.count));
        tokio::spawn(async move {
            let _leave = leave;
            task.await;
        });
    }

    /// Waits until all have ended, at most this long; says how many are left.
    pub async fn ended(&self, at_most: Duration) -> usize {
        let mut count = self.count.subscribe();
        let _ = tokio::time::timeout(at_most, count.wait_for(|n| *n == 0)).await;
        *self.count.borrow()
    }
}

/// Counts a task out, also when it panics.
struct Leave(Arc<watch::Sender<usize>>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n = n.saturating_sub(1));
    }
}
