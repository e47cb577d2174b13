//! One session: one task for both directions, and the one place that chooses what comes next.
//!
//! While the gate is open, `relay` moves bytes and this loop sleeps. It wakes here for everything
//! that is not bytes: a changed phase, a group that has to be judged, a server that is gone, a
//! client that is gone, a login made ahead. Each case is one call; the cases stand in `careful`,
//! `wall`, `migrate` and `lost`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio::time::{Instant, Sleep};

use super::catalog::Proof;
use super::classify::{Eyes, Policy};
use super::kept::{Kept, Part, Wrap};
use super::leg::Leg;
use super::message::Report;
use super::orphan::Orphan;
use super::params::Pairs;
use super::refuse;
use super::relay::Turn;
use super::replay::{MoveError, Ready, Who};
use super::server::Server;
use super::track::{Track, Tx};
use super::wall::Wall;
use super::xid::Xid;
use crate::gate::{End as HoldEnd, Epoch, Lane, Look, Parked, Permit, Phase, Watch};
use crate::group::Group;
use crate::sessions::{SessionGuard, SessionState, WallState};

/// Why a server is gone that was let go of.
pub(crate) const GIVEN_UP: &str = "it was given up";

/// Why a session is over. None of these is a failure of ours.
#[derive(Debug)]
pub(crate) enum End {
    /// The client left; what it had begun is finished or known to be undone.
    ClientGone,
    /// The client is told why, then its connection is closed.
    Told(Box<Report>),
    /// The server ended it in a way a direct connection would have seen.
    Server,
}

impl End {
    pub(crate) fn told(report: Report) -> Self {
        Self::Told(Box::new(report))
    }
}

/// A transaction that exists for the client only.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Virtual {
    /// The server's transaction status is the client's.
    #[default]
    None,
    /// This BEGIN was answered here and waits to be sent with the first statement.
    Deferred(String),
    /// The client's transaction has failed, the server has none; it began so.
    Failed(String),
}

/// Everything a session owns.
pub(crate) struct Session {
    pub(crate) group: Arc<Group>,
    /// What its texts are judged with.
    pub(crate) eyes: Eyes,
    pub(crate) handle: SessionGuard,
    pub(crate) watch: Watch,
    /// Who the client is, as it is told to servers.
    pub(crate) who: Arc<Who>,
    /// Client and server settled the login between them: nobody can log in again in its stead.
    pub(crate) passed_through: bool,
    pub(crate) client: Leg,
    pub(crate) server: Option<Server>,
    pub(crate) track: Track,
    pub(crate) permit: Option<Permit>,
    /// The fence behind which the catalog has to be read before what is in flight is known to read.
    pub(crate) unproven: Option<Proof>,
    /// What is in flight holds no permit: it was proven to read behind a fence, or passed as a read
    /// while held writes left.
    pub(crate) let_go: bool,
    /// What the gate showed when this session last took notice.
    pub(crate) look: Look,
    /// When that last changed.
    pub(crate) turned: Option<Instant>,
    /// The targets' version when this session last took notice.
    pub(crate) targets_seen: u64,
    /// A candidate was named: the server is to be asked what the session has.
    pub(crate) stock_wanted: bool,
    /// Parameters as the client was last told them, while there is no server to know them.
    pub(crate) told: Arc<Pairs>,
    /// Every group has to be judged: the gate is not simply open, or the server is not the target.
    pub(crate) careful: bool,
    pub(crate) wall: Wall,
    pub(crate) virt: Virtual,
    /// The open transaction may not write any more.
    pub(crate) sealed: bool,
    /// The epoch in which the server was asked for temporary tables.
    pub(crate) temporaries_asked: Option<Epoch>,
    /// The fence behind which the first reading of the catalog was waited for.
    pub(crate) catalog_waited: Option<Epoch>,
    /// The client's transaction was lost while the client asked for nothing. A COMMIT is told so:
    /// most drivers do not look whether its answer says ROLLBACK.
    pub(crate) untold: Option<Box<Report>>,
    /// The grace of the fence in force is over.
    pub(crate) grace_over: bool,
    /// A login made ahead, or being made.
    pub(crate) ahead: Option<JoinHandle<Result<Ready, MoveError>>>,
    pub(crate) ready: Option<Box<Ready>>,
    /// Why the login ahead was refused. It is tried again at the move, when it may succeed: the
    /// candidate may only have been behind.
    pub(crate) refused: Option<String>,
    pub(crate) parked: Option<(Parked, Instant)>,
    /// What the group in flight may need yet: its bytes, its withheld answers.
    pub(crate) kept: Kept,
    pub(crate) timer: Option<Pin<Box<Sleep>>>,
    pub(crate) cancelling: Option<JoinHandle<()>>,
    /// Bytes of the client's that are dropped unseen (rest of a refused message).
    pub(crate) drop_bytes: usize,
    /// A group was refused: everything up to its Sync is dropped.
    pub(crate) drop_to_sync: bool,
    /// The group at the front of the inbox was judged and may pass.
    pub(crate) passing: bool,
    /// The server is to be asked for the answers that it keeps back.
    pub(crate) flush_due: bool,
    /// The server is to be asked whether the open run has failed.
    pub(crate) probe_due: bool,
    /// Rest of a message that is being relayed, per direction.
    pub(crate) client_rest: usize,
    pub(crate) server_rest: usize,
    pub(crate) client_gone: bool,
    /// Tag of the client's message whose rest is awaited.
    pub(crate) torn: Option<u8>,
    pub(crate) orphan: Orphan,
    /// An operator wants undone what keeps a drain waiting.
    pub(crate) undoing: bool,
    pub(crate) xid: Xid,
    /// FATAL that the server sent before it closed.
    pub(crate) last_words: Option<Vec<u8>>,
}

impl Session {
    /// Runs the session until it is over, and tells the client how where it has to be told.
    pub(crate) async fn run(mut self: Box<Self>) {
        let end = loop {
            // Boxed, and the turn gone before it is waited for: what a turn needs while it lasts would
            // otherwise be kept by every session in rest.
            let taken = {
                let turn = poll_fn(|cx| self.poll_relay(cx)).await;
                Box::pin(self.take(turn))
            };
            if let Err(end) = taken.await {
                break end;
            }
        };
        Box::pin(self.finish(end)).await;
    }

    async fn take(&mut self, turn: Turn) -> Result<(), End> {
        match turn {
            Turn::Phase => self.on_phase().await,
            Turn::Asked => self.on_asked().await,
            Turn::Group => self.on_group().await,
            Turn::NeedServer => self.need_server().await,
            Turn::Chores => self.chores().await,
            Turn::Ahead(made) => {
                self.on_ahead(*made);
                Ok(())
            }
            Turn::Timer => {
                self.timer = None;
                // While open it is an orphan's.
                self.grace_over |= self.look.phase != Phase::Open;
                self.cancel_orphan();
                Ok(())
            }
            Turn::Proven => {
                self.prove();
                Ok(())
            }
            Turn::Xid => self.learn_xid().await,
            Turn::Ask => self.on_turn_to_ask().await,
            Turn::Expired => self.on_expired().await,
            Turn::Misjudged => self.on_misjudged().await,
            Turn::ClientGone => self.on_client_gone().await,
            Turn::ServerGone(why) => self.on_server_gone(&why).await,
            Turn::TooLarge(bytes) => {
                let most = self.group.settings.load().message;
                self.expel(&refuse::too_large(bytes, most)).await
            }
            Turn::Offence(what) => {
                let totals = &self.group.sessions.totals;
                totals
                    .offences
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.expel(&refuse::offence(&what)).await
            }
        }
    }

    /// The gate's phase, its plan or the targets changed.
    async fn on_phase(&mut self) -> Result<(), End> {
        let before = self.look;
        self.look = self.group.gate.look(Lane::Sql);
        if before.epoch != self.look.epoch {
            self.turned = Some(Instant::now());
        }
        self.eyes.policy = Policy {
            temporaries: self.eyes.policy.temporaries,
            ..self.group.settings.load().policy
        };
        let version = self.group.targets.version();
        if version != self.targets_seen {
            self.track.watched = self.group.targets.candidate().is_some();
            self.stock_wanted = self.track.watched && !self.stale();
        }
        self.targets_seen = version;
        self.let_go &= !self.track.answered();
        let turned = before.epoch != self.look.epoch && !self.stale();
        let uncovered = !self.wall.stands() && !self.sealed;
        if turned && uncovered {
            // What was proven of a read in flight was proven behind another fence.
            self.handle.set_wall(WallState::Down);
        }
        self.recheck();
        match self.look.phase {
            Phase::Fenced(_) => {
                // An opening that was slept through: too late to be counted again.
                if turned && uncovered && self.let_go && self.permit.is_none() {
                    self.send_cancel();
                }
                self.on_fence(before != self.look);
            }
            Phase::Open => {
                self.count_again();
                self.grace_over = false;
                self.timer = None;
                self.handle.set_digest(None);
            }
        }
        self.chores().await?;
        self.log_in_ahead();
        Ok(())
    }

    /// What was let go behind a fence counts again: it was proven for that fence alone.
    fn count_again(&mut self) {
        // On the old primary it reads on behind the barrier.
        let covered = self.wall.stands() || self.stale();
        if !self.let_go || self.permit.is_some() || covered {
            return;
        }
        // Else the phase has changed once more, or held writes leave first: it is looked at again.
        if let Ok(permit) = self.group.gate.admit(Lane::Sql)
            && permit.epoch() == self.look.epoch
        {
            self.hold_permit(permit);
            self.let_go = false;
        }
    }

    /// Whether groups may simply pass, from what is known now.
    pub(crate) fn recheck(&mut self) {
        let open = self.look.phase == Phase::Open && !self.look.releasing;
        self.careful = !open
            || self.stale()
            || self.wall.stands()
            || self.virt != Virtual::None
            || self.kept.part != Part::Whole
            || self.kept.wrap != Wrap::None
            || self.sealed;
    }

    /// The server is not the accepted target.
    pub(crate) fn stale(&self) -> bool {
        let serial = self.group.targets.accepted().serial;
        self.server
            .as_ref()
            .is_some_and(|s| s.target.serial != serial)
    }

    /// A fence fell, or its times changed: what is in flight is judged now.
    fn on_fence(&mut self, fell: bool) {
        // A group that was admitted and is not sent yet is not among those in flight: its permit
        // stays, or it would go out behind the fence without one.
        let reads = self.track.tx == Tx::Idle || self.track.reads_to_its_end();
        if fell && self.permit.is_some() && reads && !self.passing {
            self.prove();
        }
        if self.permit.is_some() {
            let words = self.track.in_flight().next().map(|g| g.words().to_vec());
            self.handle
                .set_digest(words.map(|w| super::lost::digest(&w)));
        }
        self.set_timer();
        self.cancel_orphan();
    }

    /// What is in flight stops counting if it is proven to change nothing. No wall stands behind that,
    /// so the names in it must stand for the same behind the fence as before. A transaction is let go
    /// on that is read-only by its own words, with all that it reads.
    fn prove(&mut self) {
        self.unproven = None;
        self.try_to_prove();
        let waits = self.unproven.is_some() && self.permit.is_some();
        self.handle.set_unproven(waits);
    }

    fn try_to_prove(&mut self) {
        let epoch = self.look.epoch.value();
        if self.let_go && self.permit.is_none() {
            return self.confirm();
        }
        let proof = Proof::behind_fence(epoch);
        let shelf = &self.eyes.shelf;
        let reader = self.track.reads_to_its_end() && !self.track.notifies();
        let idle = self.permit.is_some()
            && (self.track.tx == Tx::Idle || reader)
            && !self.track.copy_in
            && !self.passing;
        let reads = idle && self.track.only_reads(&self.eyes);
        // Without a catalog nothing with a name in it is a read; with one it may turn out to be.
        let may_be = reads || (idle && shelf.catalog().model().is_none());
        if !may_be {
            return;
        }
        let nameless = Eyes::without_catalog(self.eyes.policy, "a name would need one");
        if reads && (shelf.is_proven(proof) || self.track.only_reads(&nameless)) {
            self.release();
            self.let_go = !self.track.answered();
            // The barrier spares it: before anything else is sent, PostgreSQL refuses its writes.
            self.handle.set_wall(match reader {
                true => WallState::Reading,
                false => WallState::LetGo,
            });
        } else {
            self.unproven = Some(proof);
            shelf.prove(proof);
        }
    }

    /// What was let go is to be proven once more: the barrier has ended whoever could have changed
    /// since what its names stand for.
    fn prove_again(&mut self) {
        let fenced = self.look.phase != Phase::Open;
        if !fenced || !self.let_go || self.track.answered() || self.track.tx != Tx::Idle {
            return;
        }
        let proof = Proof::behind_barrier(self.look.epoch.value());
        self.unproven = Some(proof);
        self.eyes.shelf.prove(proof);
    }

    fn confirm(&mut self) {
        if self.track.answered() || self.track.tx != Tx::Idle {
            return;
        }
        self.handle
            .set_wall(match self.track.only_reads(&self.eyes) {
                true => WallState::Proven,
                false => WallState::Down,
            });
    }

    fn set_timer(&mut self) {
        let Some(plan) = self.group.gate.plan() else {
            return;
        };
        self.grace_over = Instant::now() >= plan.grace;
        self.timer = (!self.grace_over).then(|| Box::pin(tokio::time::sleep_until(plan.grace)));
    }

    /// The permit's work is done.
    pub(crate) fn release(&mut self) {
        self.unproven = None;
        // An operator's word was about this work, not about what comes later.
        self.undoing = false;
        if let Some(permit) = self.permit.take() {
            self.handle.set_unproven(false);
            self.handle.set_permitted(false);
            self.handle.set_idle();
            drop(permit);
        }
    }

    /// Takes note of a permit.
    pub(crate) fn hold_permit(&mut self, permit: Permit) {
        self.permit = Some(permit);
        self.handle.set_permitted(true);
        self.handle.set_state(SessionState::Executing);
    }

    /// A cancel or an end was asked for.
    async fn on_asked(&mut self) -> Result<(), End> {
        let (permitted, stale) = (self.permit.is_some(), self.stale());
        if self.handle.take_give_up(permitted, stale && self.is_owed()) && self.server.is_some() {
            return self.on_server_gone(GIVEN_UP).await;
        }
        if self.handle.take_reprove() {
            self.prove_again();
        }
        for why in self.handle.take_quits() {
            self.on_quit(why).await?;
        }
        if self.handle.take_force() {
            return self.undo().await;
        }
        if self.handle.must_end() && self.may_end() {
            return Err(End::told(refuse::ended(
                "the session was ended by the operator of writefence",
            )));
        }
        if !self.handle.take_cancel() {
            return Ok(());
        }
        if self.parked.is_some() {
            return self
                .refuse_parked(HoldEnd::Cancelled, &refuse::cancelled())
                .await;
        }
        if !self.track.answered() {
            self.send_cancel();
        }
        Ok(())
    }

    /// It waits for its server. Whoever is in rest moves as always.
    fn is_owed(&self) -> bool {
        !self.track.answered() || self.track.tx != Tx::Idle
    }

    /// Asks the server to cancel what it is doing for this session.
    pub(crate) fn send_cancel(&mut self) {
        let Some(server) = &self.server else { return };
        let (endpoint, pid, secret) =
            (server.endpoint().clone(), server.pid, server.secret.clone());
        let timeout = self.group.settings.load().login_timeout;
        self.cancelling = Some(tokio::spawn(async move {
            // The server closes this connection once the signal is sent. No further statement
            // is sent before that, so the cancel cannot hit a later one.
            if let Err(e) = crate::upstream::wire::cancel(&endpoint, pid, &secret, timeout).await {
                tracing::debug!(error = %e, %endpoint, "cancel could not be passed on");
            }
        }));
    }

    /// Nothing would be lost by ending the session now.
    pub(crate) fn may_end(&self) -> bool {
        self.track.quiescent() || self.parked.is_some()
    }

    /// A login made ahead is there, or failed; a failure only means that the move takes longer.
    fn on_ahead(&mut self, made: Result<Ready, MoveError>) {
        match made {
            Ok(ready) => {
                let told = Some((ready.server.target.region.clone(), ready.server.pid));
                self.handle.set_ahead(told, ready.server.target.serial);
                self.ready = Some(Box::new(ready));
                self.refused = None;
            }
            Err(e) => {
                let error = e.chain();
                tracing::debug!(session = self.handle.id(), error, "login ahead failed");
                self.refused = (!e.passes()).then_some(error);
            }
        }
        self.tell_moves();
    }

    async fn finish(mut self: Box<Self>, end: End) {
        if let End::Told(report) = &end
            && !self.client_gone
            && self.server_rest == 0
        {
            report.error(self.client.queue());
        }
        // Whatever is still owed to the client gets a bounded time; a client that does not read
        // must not keep the session.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), self.client.flush()).await;
        if let Some(ahead) = self.ahead.take() {
            ahead.abort();
        }
        for mut server in self
            .server
            .take()
            .into_iter()
            .chain(self.ready.take().map(|r| r.server))
        {
            server.leg.farewell();
            self.group
                .logins
                .closed(server.target.region.as_str(), server.pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Session;

    /// Thousands are in rest at a time: what is seldom there is boxed.
    #[test]
    fn a_session_is_small() {
        let size = size_of::<Session>();
        assert!(size <= 2048, "{size} bytes");
    }
}
