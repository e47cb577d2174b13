//! Clients at work: a thread of its own runs them all, so that neither the clients nor the one
//! who moves the primary waits for the other.
//!
//! All stop on request; one that gets no answer by then is cut off, and counts as hung.

use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::client::{Client, Log, Stop};
use super::op::{Op, Outcome};
use super::session::{Endpoint, Who};
use super::shape::Shape;
use crate::eventually::until;

/// What a client that is asked to stop may take for the answer it is waiting for: beyond whatever
/// holds a write, so that only one that never comes is missing.
const LAST_ANSWER: Duration = Duration::from_secs(30);

/// How many clients there are and how they behave.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where they log in.
    pub endpoint: Endpoint,
    /// Clients of each writing shape.
    pub writers: i16,
    /// Clients of each reading shape.
    pub readers: i16,
    /// Pause between two operations of one client; it bounds how finely a gap can be seen.
    pub pace: Duration,
    /// Which shapes write.
    pub shapes: Vec<Shape>,
}

impl Plan {
    /// One writer of every shape, two readers of each kind, 2 ms between operations.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let shapes = Shape::WRITERS.to_vec();
        Self {
            endpoint,
            writers: 1,
            readers: 2,
            pace: Duration::from_millis(2),
            shapes,
        }
    }

    /// The same with clients of an API at this port, the HTTP front's.
    #[must_use]
    pub fn with_api(mut self, port: u16) -> Self {
        self.endpoint.api = Some(port);
        self.shapes.extend(Shape::API);
        self
    }

    /// The same with a client of every shape whose session has something to lose.
    #[must_use]
    pub fn mixed(endpoint: Endpoint) -> Self {
        let mut plan = Self::new(endpoint);
        plan.shapes.extend(Shape::STATEFUL);
        plan
    }
}

/// A running load. Dropping it cuts all clients off.
#[derive(Debug)]
pub struct Load {
    run: i32,
    begin: Instant,
    logs: Vec<Log>,
    stop: watch::Sender<Stop>,
    thread: Option<JoinHandle<u64>>,
}

/// What all clients saw.
#[derive(Debug)]
pub struct History {
    /// Which load.
    pub run: i32,
    /// Every operation, in no order across clients.
    pub ops: Vec<Op>,
    /// Clients that never got an answer to their last operation.
    pub hung: u64,
    /// When the load ended, counted from its start.
    pub end: Duration,
}

impl Load {
    /// Starts the clients of `plan`; `run` keeps their ids apart from other loads'.
    ///
    /// # Errors
    /// The thread can't be started.
    pub(super) fn start(plan: &Plan, run: i32) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let begin = Instant::now();
        let (stop, stopped) = watch::channel(Stop::Not);
        let mut logs = Vec::new();
        let mut clients = Vec::new();
        let writers = plan.shapes.iter().map(|shape| (*shape, plan.writers));
        let api = plan.endpoint.api.map(|_| (Shape::ApiRead, plan.readers));
        let readers = Shape::READERS.iter().map(|shape| (*shape, plan.readers));
        let readers = readers.chain(api);
        for (shape, count) in writers.chain(readers) {
            for client in 0..count {
                let log = Log::default();
                logs.push(Arc::clone(&log));
                let who = Who { run, shape, client };
                let endpoint = plan.endpoint.clone();
                clients.push(Client {
                    who,
                    endpoint,
                    pace: plan.pace,
                    begin,
                    log,
                    seq: 0,
                });
            }
        }
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let tasks: Vec<_> = clients
                        .into_iter()
                        .map(|client| tokio::spawn(client.work(stopped.clone())))
                        .collect();
                    let mut hung = 0;
                    for task in tasks {
                        // A client that panicked is not one that got its answers.
                        hung += task.await.unwrap_or(1);
                    }
                    hung
                })
            })?;
        Ok(Self {
            run,
            begin,
            logs,
            stop,
            thread: Some(thread),
        })
    }

    /// The time of the load, in which operations are recorded.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// Its number, which its rows carry.
    #[must_use]
    pub const fn run(&self) -> i32 {
        self.run
    }

    /// Waits until every client has had a success.
    ///
    /// # Errors
    /// One has not, after half a minute.
    pub async fn warm(&self) -> Result<()> {
        until(
            "a first success of every client",
            Duration::from_secs(30),
            async || {
                Ok(self.logs.iter().all(|log| {
                    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
                    log.iter().any(|op| op.outcome == Outcome::Acked)
                }))
            },
        )
        .await
    }

    /// Operations that ended at or after `from`, so far.
    #[must_use]
    pub fn since(&self, from: Duration) -> Vec<Op> {
        let mut ops = Vec::new();
        for log in &self.logs {
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            ops.extend(
                log[log.partition_point(|op| op.end < from)..]
                    .iter()
                    .cloned(),
            );
        }
        ops
    }

    /// Stops the clients, each after its current operation, and gives back what they saw.
    ///
    /// # Errors
    /// The load's thread panicked.
    pub async fn stop(mut self) -> Result<History> {
        self.stop.send_replace(Stop::AfterThisOne);
        let thread = self.thread.take().context("a load is stopped once")?;
        let patient = until("the clients' last answers", LAST_ANSWER, async || {
            Ok(thread.is_finished())
        });
        // Those still waiting are hung: cut off and counted, which is the answer to the error.
        drop(patient.await);
        self.stop.send_replace(Stop::Now);
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        let hung = joined.map_err(|_| anyhow::anyhow!("the load's thread panicked"))?;
        Ok(History {
            run: self.run,
            ops: self.since(Duration::ZERO),
            hung,
            end: self.now(),
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
