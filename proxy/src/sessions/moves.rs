//! Whether a session can be moved, as it says itself, and how all of them are asked at once.
//!
//! Only a session's server knows all that the session has, and it can be asked only between
//! transactions. So an answer is as of a round of questions; who could not answer is said to be
//! unknown, never movable.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::{SessionHandle, Sessions};

/// Between two looks at who has answered.
const POLL: Duration = Duration::from_millis(2);

/// Answers are waited for as long as they come: a question takes a millisecond, and who answers
/// nothing for this long is inside a transaction or runs something long.
const STALLED: Duration = Duration::from_millis(250);

/// Why a session cannot be moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// A stable word.
    pub kind: &'static str,
    /// What it has that cannot be moved, as a sentence about it.
    pub reason: String,
}

/// How a session would move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// What would be replayed on another server; empty: nothing has to be.
    pub replays: Vec<String>,
    /// What cannot be replayed: the session would be ended.
    pub pins: Vec<Pin>,
}

/// Rounds of questions to one session.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    asked: AtomicU64,
    answered: AtomicU64,
}

// Relaxed throughout: what an answer says goes through a lock, and nothing is decided by it.
impl Rounds {
    pub(super) fn open(&self) -> bool {
        self.answered.load(Ordering::Relaxed) < self.asked.load(Ordering::Relaxed)
    }

    fn ask(&self, round: u64) {
        self.asked.store(round, Ordering::Relaxed);
    }

    /// Closes the round that is open now. Read before the answer is made up: a later question is
    /// not answered by it.
    pub(super) fn answer(&self, round: u64) {
        self.answered.store(round, Ordering::Relaxed);
    }

    pub(super) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl SessionHandle {
    /// It was asked how it would move, and has not answered.
    pub fn moves_asked(&self) -> bool {
        self.rounds.open()
    }

    /// The round to answer.
    pub fn moves_round(&self) -> u64 {
        self.rounds.asked()
    }

    /// Tells how the session would move.
    pub fn set_moves(&self, moves: Moves) {
        self.told().moves = moves;
    }

    /// What was told is an answer to this round.
    pub fn answer_moves(&self, round: u64) {
        self.rounds.answer(round);
    }
}

impl Sessions {
    /// Asks every session how it would move, and waits until all that can answer have.
    pub async fn take_stock(&self) {
        let round = self.round.fetch_add(1, Ordering::Relaxed) + 1;
        for session in self.handles() {
            session.rounds.ask(round);
            session.waker.wake();
        }
        let mut best = (usize::MAX, Instant::now());
        loop {
            let left = self.handles().iter().filter(|s| s.rounds.open()).count();
            if left < best.0 {
                best = (left, Instant::now());
            }
            if left == 0 || best.1.elapsed() >= STALLED {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
