//! What a session does with a group while not everything may pass: judge, hold, refuse, answer.
//!
//! Groups are taken one at a time and whole, only when everything before them is answered. So an
//! answer given here is always in order, and a held group has sent nothing. `hold` keeps what
//! waits, `here` answers in place of the server, `part` cuts groups, `wrap` runs what could end its
//! own transaction.

use std::time::Duration;

use super::classify::{Verdict, at_length, rule};
use super::decide::{
    After, Circumstances, Decision, Extent, Manner, View, begins_anew, decide, extent, view,
};
use super::message::{Report, own};
use super::refuse::{self, Fence};
use super::session::{End, Session, Virtual};
use super::track::Tx;
use super::wall::NAME;
use crate::gate::{Answer, Begin, Lane, Phase};

/// Held at most this long where no fence says how long (behind an ordered release).
pub(super) const BEHIND: Duration = Duration::from_secs(20);

/// A statement that every PostgreSQL refuses at parsing. Sent where a refusal inside a transaction
/// has to fail that transaction on the server too; its log then says in words what happened.
const FAIL: &str = "writefence refused a statement of this transaction";

/// The first reading of a database's catalog, and the one after a change, is waited for at most so
/// long behind a fence. It takes milliseconds; longer would hold up reads where the observer hangs.
const FIRST_READING: Duration = Duration::from_secs(2);

/// Whether the session has a schema of its own for temporary objects.
const TEMPORARIES: &str = "SELECT pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0";

impl Session {
    /// A whole group waits and nothing before it is unanswered.
    pub(crate) async fn on_group(&mut self) -> Result<(), End> {
        if self.group.gate.look(Lane::Sql) != self.look {
            return Ok(()); // The relay sees the change first.
        }
        self.chores().await?;
        self.recheck();
        self.rejoin();
        if self.track.skipping() {
            // The server ignores everything up to the Sync.
            self.pass(After::default());
            return Ok(());
        }
        let (mut bytes, over) = match extent(&self.client.inbox) {
            Ok(Extent::Whole { len, .. }) => (len, false),
            Ok(Extent::Over) => (self.client.inbox.len(), true),
            Ok(Extent::More) => return Ok(()),
            Err(e) => return self.expel(&refuse::offence(&e.to_string())).await,
        };
        if self.is_uncovered_run() {
            return self.cover_run(over).await;
        }
        if self.reads_catalog_first().await {
            return Ok(()); // Looked at again, with or without a catalog.
        }
        if !over && !self.in_run() {
            self.cut_off_run();
            (bytes, _) = self.front();
        }
        let view = if over {
            View::opaque("too large to be looked into")
        } else {
            self.view_front(bytes).await
        };
        let view = if self.may_be_temporary(&view).await? {
            self.view_front(bytes).await
        } else {
            view
        };
        if self.track.answered() && self.wants_xid(&self.client.inbox) {
            self.learn_xid().await?;
            return Ok(()); // Looked at again, with or without a server.
        }
        match &self.virt {
            Virtual::Failed(_) => return self.in_virtual_failure(view).await,
            Virtual::Deferred(_) => return self.after_deferred_begin(view, bytes).await,
            Virtual::None => {}
        }
        if self.look.phase == Phase::Open && self.track.tx == Tx::Idle && !self.in_run() {
            return self.on_group_while_open(&view, bytes).await;
        }
        self.settle(view).await
    }

    /// Behind a fence nothing is judged by names alone while the catalog is about to be known: what
    /// a user's function does that read-only mode lets pass is told by the catalog only. Once per
    /// fence, so that an observer that hangs costs a session one wait.
    async fn reads_catalog_first(&mut self) -> bool {
        let waited = self.catalog_waited == Some(self.look.epoch);
        if waited || self.look.phase == Phase::Open || !self.eyes.shelf.is_awaited() {
            return false;
        }
        self.catalog_waited = Some(self.look.epoch);
        // May be dropped: nothing but the waiting is lost.
        let read = tokio::time::timeout(FIRST_READING, self.eyes.shelf.read()).await;
        if read.is_err() {
            tracing::warn!("judged without the catalog, which was not read in time");
        }
        true
    }

    async fn view_front(&self, bytes: usize) -> View {
        let group = self.client.inbox.get(..bytes).unwrap_or_default();
        at_length(bytes, || view(group, &self.track, &self.eyes)).await
    }

    /// Whether what a group changes may be temporary tables. Only the server knows whether the
    /// session has any, since functions make them too; it is asked when that first matters. While
    /// wall two stands none can be made.
    async fn may_be_temporary(&mut self, view: &View) -> Result<bool, End> {
        let asked = self.temporaries_asked == Some(self.look.epoch);
        let matters = self.look.phase != Phase::Open && changes_tables(view);
        let free = self.server.is_some() && self.track.answered() && self.track.tx != Tx::Failed;
        if asked || !matters || !free {
            return Ok(false);
        }
        let mut message = Vec::new();
        own(&mut message, TEMPORARIES);
        let Some(answer) = self.question(&message, 1).await? else {
            return Ok(false);
        };
        self.temporaries_asked = Some(self.look.epoch);
        let has = answer
            .rows
            .first()
            .is_some_and(|row| row.as_deref() == Some("t"));
        self.eyes.policy.temporaries = has;
        Ok(has)
    }

    /// Decides on the group at the front of the inbox, or on the part of it that can be decided on
    /// by itself, and does what was decided.
    pub(crate) async fn settle(&mut self, mut view: View) -> Result<(), End> {
        let now = self.circumstances();
        let mut decision = decide(&view, now);
        if self.in_run() {
            decision = whole(decision);
        }
        if let Decision::Cut(n) = decision {
            decision = if self.cut(&mut view, n) {
                decide(&view, now)
            } else {
                Decision::Refuse("it can be run in parts only, and was bound as a whole")
            };
        }
        self.carry_out(decision, &view).await
    }

    fn answer(&self) -> Answer {
        match self.look.phase {
            Phase::Fenced(answer) => answer,
            Phase::Open => Answer::Hold,
        }
    }

    pub(crate) fn circumstances(&self) -> Circumstances {
        let plan = self.group.gate.plan();
        let run = self.in_run();
        Circumstances {
            tx: if run { Tx::Open } else { self.track.tx },
            sealed: self.sealed || self.permit.is_none() || (run && self.grace_over),
            answer: self.answer(),
            begin: plan.as_ref().map_or(Begin::Auto, |p| p.begin),
            all: plan.as_ref().is_some_and(|p| p.all) && self.look.phase != Phase::Open,
        }
    }

    /// A run was begun before the fence and has not seen its Sync: one transaction, of which no part
    /// may wait or be committed without the rest.
    fn in_run(&self) -> bool {
        self.track.unsynced() && self.permit.is_some() && self.track.tx == Tx::Idle
    }

    /// A run that was let go as a read and has not seen its Sync: its transaction began before wall two
    /// stood, and the server would let it write.
    fn is_uncovered_run(&self) -> bool {
        self.look.phase != Phase::Open
            && self.track.tx == Tx::Idle
            && self.track.unsynced()
            && self.permit.is_none()
            && self.server.is_some()
            && !self.wall.stands()
            && !self.sealed
    }

    /// Of such a run only what was bound before goes on, since that was proven. Before anything new of
    /// it the run is ended, so that what is new runs behind wall two.
    async fn cover_run(&mut self, over: bool) -> Result<(), End> {
        match begins_anew(self.front_group()) {
            None if !over => self.pass(After::default()),
            Some(at) if at > 0 && !over => self.cut_here(at),
            None | Some(_) => self.close_unsynced().await?,
        }
        Ok(())
    }

    /// The gate is open, but held writes leave first, or the server is not the target yet.
    async fn on_group_while_open(&mut self, view: &View, bytes: usize) -> Result<(), End> {
        if self.look.releasing {
            let reads =
                view.opaque.is_none() && view.steps.iter().all(|s| s.verdict == Verdict::Read);
            return if reads && self.server.is_some() {
                self.let_go = true;
                self.pass(After::default());
                Ok(())
            } else {
                self.hold(bytes).await
            };
        }
        self.get_to_target().await
    }

    async fn carry_out(&mut self, decision: Decision, view: &View) -> Result<(), End> {
        match decision {
            Decision::Send(manner, after) => self.send_group(manner, after).await,
            Decision::Plant(n, why) => {
                let totals = &self.group.sessions.totals;
                totals
                    .fenced
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                self.plant(view, n, why);
                self.send_group(Manner::Plain, After::default()).await
            }
            Decision::Write(why) => {
                let (bytes, _) = self.front();
                self.on_write(why, bytes).await
            }
            // A part is never cut again.
            Decision::Cut(_) => self.refuse_way_out("it cannot be run in parts").await,
            Decision::Refuse(why) => self.refuse_way_out(why).await,
            Decision::Defer => self.defer(view).await,
            Decision::Show(name) => self.show(&name).await,
            Decision::Accept(tag) => self.accept(tag).await,
        }
    }

    async fn send_group(&mut self, manner: Manner, mut after: After) -> Result<(), End> {
        if self.server.is_none() && !self.reach_for_read().await? {
            return Ok(());
        }
        let (len, terminator) = self.front();
        if manner == Manner::Wrapped && terminator == b'H' {
            // Its transaction would have to stay around what the client sends next.
            return self
                .on_write("a procedure behind which no Sync stands", len)
                .await;
        }
        if manner != Manner::Plain {
            // Before version 14 a server does not report that code has lowered wall two.
            let server = self.server.as_ref();
            after.rewall |= server.is_some_and(|s| s.param(NAME).is_none());
            if self.answer() == Answer::Hold && self.track.answered() {
                let group = self.client.inbox.get(..len).unwrap_or_default();
                self.kept.arm(group);
            }
        }
        if manner == Manner::Wrapped && !self.wrap().await? {
            return Ok(());
        }
        self.pass(after);
        Ok(())
    }

    /// The group at the front of the inbox may go on.
    pub(crate) fn pass(&mut self, after: After) {
        self.kept.after = self.kept.after.and(after);
        // A server that was lost meanwhile leaves the group where it is, to be judged again.
        self.passing = self.server.is_some();
    }

    pub(crate) async fn on_write(&mut self, why: &str, bytes: usize) -> Result<(), End> {
        if self.track.tx == Tx::Idle && self.answer() == Answer::Hold && !self.in_run() {
            return self.hold(bytes).await;
        }
        let report = self.fence().write(why);
        self.refuse_group(&report).await
    }

    async fn refuse_way_out(&mut self, why: &str) -> Result<(), End> {
        let report = self.fence().way_out(why);
        self.refuse_group(&report).await
    }

    pub(crate) fn fence(&self) -> Fence<'_> {
        Fence {
            group: &self.group.name,
            epoch: self.look.epoch,
            sqlstate: self.group.settings.load().sqlstate,
            retry_after: self.group.settings.load().retry_after,
        }
    }

    /// Refuses the group at the front of the inbox. An open transaction fails with it.
    pub(crate) async fn refuse_group(&mut self, report: &Report) -> Result<(), End> {
        let totals = &self.group.sessions.totals;
        totals
            .fenced
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.rejoin();
        self.kept.disarm();
        self.close_unsynced().await?;
        if self.track.tx == Tx::Open {
            self.fail_transaction().await?;
        }
        if let Virtual::Deferred(begin) = &mut self.virt {
            self.virt = Virtual::Failed(std::mem::take(begin));
        }
        if self.permit.is_some() && self.track.tx == Tx::Idle {
            self.release();
        }
        report.error(self.client.queue());
        let out = self.drop_front();
        self.client.queue().extend_from_slice(&out);
        self.recheck();
        Ok(())
    }

    /// Fails the open transaction on the server.
    pub(crate) async fn fail_transaction(&mut self) -> Result<(), End> {
        let mut fail = Vec::new();
        own(&mut fail, FAIL);
        self.ask_server(&fail, 1).await?;
        if self.server.is_some() {
            self.track.tx = Tx::Failed;
        }
        Ok(())
    }

    /// The transaction status the client believes in.
    pub(crate) fn client_status(&self) -> u8 {
        match self.virt {
            Virtual::None => self.track.tx.status(),
            Virtual::Deferred(_) => b'T',
            Virtual::Failed(_) => b'E',
        }
    }

    /// Ends an extended run that the client has not closed with a Sync yet. One with a permit may
    /// have written, and is undone: what is refused was not executed, nor any part of it.
    pub(crate) async fn close_unsynced(&mut self) -> Result<(), End> {
        if !self.track.unsynced() || self.server.is_none() {
            return Ok(());
        }
        if self.permit.is_some() {
            return self.abort_run().await;
        }
        self.track.sync();
        let status = self.sync_run().await?;
        self.track.ready(status, &self.eyes);
        self.let_go &= !self.track.answered();
        Ok(())
    }
}

/// Within a run that may have written nothing can be cut or answered here: either would need a Sync
/// of ours, which would commit a part of it.
fn whole(decision: Decision) -> Decision {
    match decision {
        Decision::Cut(_) => Decision::Refuse("it cannot be run in parts"),
        Decision::Show(_) | Decision::Accept(_) => Decision::Send(Manner::Plain, After::default()),
        Decision::Send(..)
        | Decision::Plant(..)
        | Decision::Write(_)
        | Decision::Refuse(_)
        | Decision::Defer => decision,
    }
}

/// Something in it is refused only because the table it changes is taken for a permanent one.
fn changes_tables(view: &View) -> bool {
    let rules = [rule::DML, rule::COPY_FROM, rule::ROW_LOCK, rule::SEQUENCE];
    let mut steps = view.steps.iter();
    steps.any(|s| s.verdict == Verdict::Write && rules.contains(&s.rule))
}
