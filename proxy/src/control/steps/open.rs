//! Opening on the new primary, and waiting until everybody is there.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use writefence_admin::api::{ApiError, Code, Evidence, EvidenceKind, RunKind, Step};
use writefence_admin::runbook::RunState;

use super::super::error::refused;
use super::super::unknown;
use super::evidence::lsn_of;
use super::{Course, Found, Stop};
use crate::clock;

/// How long sessions have to move before the run goes on without them; each moves at its next
/// message at the latest.
const MOVES: Duration = Duration::from_secs(5);

/// How long a failover asks once more a primary that was silent before.
const ONCE_MORE: Duration = Duration::from_millis(200);

/// How long nothing else is done behind an opening: some rounds of a commit.
const HELD_FIRST: Duration = Duration::from_millis(50);

impl Course {
    pub(super) async fn open(&mut self) -> Found {
        if !self.desk.actor.is_fenced() && self.is_open_here() {
            self.desk.actor.note_opened().await?;
            return Ok(Vec::new());
        }
        let facts = self.facts()?;
        debug_assert_eq!(
            facts.state,
            RunState::Running,
            "only a running run opens forward"
        );
        let checked = match self.checked.take() {
            Some(checked) => checked,
            None => {
                let fence_lsn = facts.fence_lsn.as_ref().and_then(lsn_of);
                self.checked_successor(fence_lsn).await?
            }
        };
        // After a restart nothing was admitted since; a drain of that is proof at once.
        let last = self
            .desk
            .drains
            .last()
            .filter(|d| d.is_of(self.desk.actor.epoch()));
        let proof = match last.and_then(|d| d.proof()) {
            Some(proof) => proof,
            None => {
                let draining = self
                    .desk
                    .drains
                    .start(clock::now() + self.settings.deadline);
                draining.ended().await;
                draining.proof().ok_or_else(|| {
                    refused(
                        Code::NotDrained,
                        "permits of an earlier epoch are still alive",
                    )
                })?
            }
        };
        // Said first: the tripwire must not see the new target in force with an older time, and take
        // what a probe showed of the old primary in its day for a second writable side.
        self.desk.moved.store(Arc::new(clock::now()));
        self.desk.actor.open(checked, &proof).await?;
        // Why writes did not pass when the daemon started is over.
        self.desk.notice.store(Arc::new(None));
        self.desk.tally.repoint();
        unknown::settle_after_open(&self.desk);
        Ok(Vec::new())
    }

    pub(super) async fn converge(&mut self) -> Found {
        // Nobody of ours takes the new primary's time while held writes go out.
        sleep(HELD_FIRST).await;
        self.desk.servers.refresh();
        let until = clock::now() + MOVES;
        if self.from == self.desk.accepted() {
            return Ok(Vec::new());
        }
        if self.is_left_silent().await? {
            self.let_go().await?;
        }
        let sessions = &self.desk.group.sessions;
        let (reading, others) = loop {
            let left = sessions.backends(&self.from);
            let reading = left.iter().filter(|backend| backend.reading).count();
            let others = left.len() - reading;
            if others == 0 || clock::now() >= until {
                break (reading, others);
            }
            sleep(Duration::from_millis(5)).await;
        };
        if reading + others > 0 && self.has_gone_silent() {
            self.let_go().await?;
            return Ok(Vec::new());
        }
        if reading > 0 {
            let text = format!(
                "{reading} sessions go on reading in {} and move when they have ended",
                self.from
            );
            self.note(Step::Converge, text).await?;
        }
        if others > 0 {
            let text = format!("{others} sessions are still logged in to {}", self.from);
            self.note(Step::Converge, text).await?;
        }
        Ok(Vec::new())
    }

    /// Whether a failover left the old primary because it was silent, and it still is.
    async fn is_left_silent(&self) -> Result<bool, Stop> {
        let barred = |evidence: Evidence| evidence.kind == EvidenceKind::Barrier;
        let answered = self.facts()?.evidence.is_some_and(barred);
        if self.kind != RunKind::Failover || answered || !self.desk.servers.has_database() {
            return Ok(false);
        }
        let asked = timeout(ONCE_MORE, self.desk.servers.observe(&self.from)).await;
        Ok(!matches!(asked, Ok(Ok(_))))
    }

    /// Whether no probe of the old primary was answered since long before the opening.
    fn has_gone_silent(&self) -> bool {
        self.desk.servers.seen(&self.from).is_some_and(|seen| {
            let last = seen.last_at.map(|at| at.elapsed());
            seen.answer.is_err() && last.is_some_and(|ago| ago >= MOVES)
        })
    }

    /// A server that does not answer keeps what its sessions wait for, maybe for ever: where it is
    /// stopped and its machine is not, no connection breaks. They are told, and go on here.
    async fn let_go(&self) -> Result<(), ApiError> {
        let n = self.desk.group.sessions.leave(&self.from);
        if n == 0 {
            return Ok(());
        }
        let text = format!("{} does not answer: {n} sessions let go of it", self.from);
        self.note(Step::Converge, text).await
    }

    fn is_open_here(&self) -> bool {
        self.to
            .as_ref()
            .is_some_and(|to| *to == self.desk.accepted())
    }
}
