//! One client: works until it is stopped, and writes down every outcome.
//!
//! It never retries. After a failure it goes on with its next id; after a lost connection it
//! connects again first.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::op::{Id, Op, Outcome};
use super::session::{Endpoint, Session, Step, Who};
use crate::eventually::pause;

/// What the clients are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Stop {
    Not,
    AfterThisOne,
    Now,
}

/// What one client saw, in order of time.
pub(super) type Log = Arc<Mutex<Vec<Op>>>;

/// One client at work.
pub(super) struct Client {
    pub(super) who: Who,
    pub(super) endpoint: Endpoint,
    pub(super) pace: Duration,
    pub(super) begin: Instant,
    pub(super) log: Log,
    pub(super) seq: i32,
}

impl Client {
    /// Works until stopped; 1 if it had to be cut off.
    pub(super) async fn work(mut self, mut stop: watch::Receiver<Stop>) -> u64 {
        let mut asked = stop.clone();
        let mut session = None;
        loop {
            if *asked.borrow_and_update() != Stop::Not {
                return 0;
            }
            let start = Instant::now();
            tokio::select! {
                // Dropping the operation closes its connection; it is recorded as unknown.
                () = self.once(&mut session) => {}
                _ = stop.wait_for(|stop| *stop == Stop::Now) => {
                    let id = Id { shape: self.who.shape, client: self.who.client, seq: self.seq };
                    self.note(id.seq, start, Instant::now(), Outcome::Unknown, None, false);
                    return 1;
                }
            }
            pause(self.pace).await;
        }
    }

    /// One operation, or one attempt to connect.
    async fn once(&mut self, session: &mut Option<Session>) {
        let start = Instant::now();
        let Some(living) = session else {
            match Session::connect(&self.endpoint, &self.who).await {
                Ok(new) => *session = Some(new),
                Err(failure) => {
                    let code = failure.sqlstate;
                    self.note(0, start, Instant::now(), Outcome::NoConnection, code, false);
                }
            }
            return;
        };
        self.seq += 1;
        let steps = living.run(&self.who, self.seq).await;
        let mut counted = false;
        for Step {
            seq,
            start,
            end,
            result,
        } in steps
        {
            self.seq = seq;
            match result {
                Ok(()) => self.note(seq, start, end, Outcome::Acked, None, false),
                Err(failure) => {
                    // A connection is lost once, however many operations were on it.
                    let lost = failure.lost && !std::mem::replace(&mut counted, failure.lost);
                    if failure.lost {
                        *session = None;
                    }
                    self.note(seq, start, end, failure.outcome(), failure.sqlstate, lost);
                }
            }
        }
    }

    fn note(
        &self,
        seq: i32,
        start: Instant,
        end: Instant,
        outcome: Outcome,
        sqlstate: Option<String>,
        lost: bool,
    ) {
        let id = Id {
            shape: self.who.shape,
            client: self.who.client,
            seq,
        };
        let (start, end) = (start - self.begin, end - self.begin);
        let op = Op {
            id,
            start,
            end,
            outcome,
            sqlstate,
            lost,
        };
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(op);
    }
}
