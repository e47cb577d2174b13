//! What a session does with a group while not everything may pass: judge, hold, refuse, answer.
//!
//! Groups are taken one at a time and whole, only when everything before them is answered. So an
//! answer given here is always in order, and a held group has sent nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::classify::{Kind, Verdict};
use super::decide::{After, Circumstances, Decision, Extent, View, decide, extent, view};
use super::frame::{head, put};
use super::message::{Report, complete, own, ready, shown};
use super::refuse::{self, Fence};
use super::session::{End, Session, Virtual};
use super::track::Tx;
use crate::gate::{Answer, Begin, End as HoldEnd, Lane, Phase, Refusal};
use crate::sessions::SessionState;

/// Answers withheld while it is open whether the server takes a statement for a write.
const WITHHELD: usize = 64 * 1024;

/// Held at most this long where no fence says how long (behind an ordered release).
const BEHIND: Duration = Duration::from_secs(20);

/// A statement that every PostgreSQL refuses at parsing. Sent where a refusal inside a transaction
/// has to fail that transaction on the server too; its log then says in words what happened.
const FAIL: &str = "writefence refused a statement of this transaction";

/// What is kept of the group in flight.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    group: Vec<u8>,
    withheld: Option<Vec<u8>>,
    misjudged: bool,
    /// The answers turned out well: what was withheld goes out before anything else.
    well: bool,
    pub(crate) after: After,
}

impl Kept {
    /// Keeps a group and withholds its answers.
    fn arm(&mut self, group: &[u8]) {
        self.group = group.to_vec();
        self.withheld = Some(Vec::new());
        self.misjudged = false;
        self.well = false;
    }

    /// True when the answers of the group in flight are being withheld.
    pub(crate) fn armed(&self) -> bool {
        self.withheld.is_some()
    }

    /// The server took the group for a write.
    pub(crate) fn mark_misjudged(&mut self) {
        self.misjudged = true;
    }

    /// Keeps bytes back; false when they are to be relayed.
    pub(crate) fn withhold(&mut self, data: &[u8]) -> bool {
        match &mut self.withheld {
            Some(withheld) if !self.well && withheld.len() + data.len() <= WITHHELD => {
                withheld.extend_from_slice(data);
                true
            }
            Some(_) | None => false,
        }
    }

    /// Gives up withholding: what was kept has to be relayed first.
    pub(crate) fn let_go(&mut self) -> Option<Vec<u8>> {
        self.well = false;
        self.withheld.take()
    }

    /// The group ended and was a write after all. Its withheld answers are dropped.
    pub(crate) fn misjudged(&mut self) -> bool {
        let misjudged = self.misjudged && self.withheld.is_some();
        if misjudged {
            self.withheld = None;
        }
        misjudged
    }

    /// The group ended as it should: nothing is withheld any longer.
    pub(crate) fn answered(&mut self) {
        self.misjudged = false;
        self.well = self.withheld.is_some();
        self.group = Vec::new();
    }
}

impl Session {
    /// A whole group waits and nothing before it is unanswered.
    pub(crate) async fn on_group(&mut self) -> Result<(), End> {
        if self.group.gate.look(Lane::Sql) != self.look {
            return Ok(()); // The relay sees the change first.
        }
        self.chores().await?;
        self.recheck();
        let (bytes, over) = match extent(&self.client.inbox) {
            Ok(Extent::Whole { len, .. }) => (len, false),
            Ok(Extent::Over) => (self.client.inbox.len(), true),
            Ok(Extent::More) => return Ok(()),
            Err(e) => return Err(End::told(refuse::offence(&e.to_string()))),
        };
        let view = if over {
            View {
                opaque: Some("too large to be looked into"),
                ..View::default()
            }
        } else {
            let group = self.client.inbox.get(..bytes).unwrap_or_default();
            view(group, &self.track, &self.eyes)
        };
        match &self.virt {
            Virtual::Failed => return self.in_virtual_failure(&view),
            Virtual::Deferred(_) => return self.after_deferred_begin(&view, bytes).await,
            Virtual::None => {}
        }
        if self.look.phase == Phase::Open && self.track.tx == Tx::Idle {
            return self.on_group_while_open(&view, bytes).await;
        }
        let decision = decide(&view, self.circumstances());
        self.carry_out(decision, &view, bytes).await
    }

    fn answer(&self) -> Answer {
        match self.look.phase {
            Phase::Fenced(answer) => answer,
            Phase::Open => Answer::Hold,
        }
    }

    fn circumstances(&self) -> Circumstances {
        let plan = self.group.gate.plan();
        Circumstances {
            tx: self.track.tx,
            sealed: self.sealed || self.permit.is_none(),
            answer: self.answer(),
            begin: plan.as_ref().map_or(Begin::Auto, |p| p.begin),
            all: plan.as_ref().is_some_and(|p| p.all) && self.look.phase != Phase::Open,
        }
    }

    /// The gate is open, but held writes leave first, or the server is not the target yet.
    async fn on_group_while_open(&mut self, view: &View, bytes: usize) -> Result<(), End> {
        if self.look.releasing {
            let reads =
                view.opaque.is_none() && view.statements().all(|s| s.verdict == Verdict::Read);
            return if reads && self.server.is_some() {
                self.pass(After::default());
                Ok(())
            } else {
                self.hold(bytes).await
            };
        }
        self.get_to_target().await
    }

    async fn carry_out(
        &mut self,
        decision: Decision,
        view: &View,
        bytes: usize,
    ) -> Result<(), End> {
        match decision {
            Decision::Pass(after) => {
                if self.server.is_none() && !self.reach_for_read().await? {
                    return Ok(());
                }
                self.pass(after);
                Ok(())
            }
            Decision::Try(after) => {
                if self.server.is_none() && !self.reach_for_read().await? {
                    return Ok(());
                }
                if self.answer() == Answer::Hold && self.track.answered() {
                    let group = self.client.inbox.get(..bytes).unwrap_or_default();
                    self.kept.arm(group);
                }
                self.pass(after);
                Ok(())
            }
            Decision::Write(why) => self.on_write(why, bytes).await,
            Decision::Refuse(why) => {
                let report = self.fence().way_out(why);
                self.refuse_group(&report).await
            }
            Decision::Defer => self.defer(view),
            Decision::Show(name) => self.show(&name),
            Decision::Virtual(text) => self.set_virtually(text),
        }
    }

    /// The group at the front of the inbox may go on.
    pub(crate) fn pass(&mut self, after: After) {
        self.kept.after = After {
            rewall: self.kept.after.rewall | after.rewall,
            reseal: self.kept.after.reseal | after.reseal,
        };
        // A server that was lost meanwhile leaves the group where it is, to be judged again.
        self.passing = self.server.is_some();
    }

    async fn on_write(&mut self, why: &str, bytes: usize) -> Result<(), End> {
        if self.track.tx == Tx::Idle && self.answer() == Answer::Hold {
            return self.hold(bytes).await;
        }
        let report = self.fence().write(why);
        self.refuse_group(&report).await
    }

    pub(crate) fn fence(&self) -> Fence<'_> {
        Fence {
            group: &self.group.name,
            epoch: self.look.epoch,
            sqlstate: self.group.settings.sqlstate,
            retry_after: self.group.settings.retry_after,
        }
    }

    // --- holding ---

    async fn hold(&mut self, bytes: usize) -> Result<(), End> {
        self.close_unsynced().await?;
        let hold = self.group.gate.plan().map_or(BEHIND, |p| p.hold);
        let now = Instant::now();
        match self.group.gate.park(Lane::Sql, bytes, now + hold) {
            Ok(parked) => {
                self.parked = Some((parked, now));
                self.handle.set_state(SessionState::Held);
                self.log_in_ahead();
                Ok(())
            }
            Err(refusal) => {
                let report = match refusal {
                    Refusal::RoomFull { .. } => self
                        .fence()
                        .full("the number of held writes is at its limit"),
                    Refusal::RoomBytes { .. } => self
                        .fence()
                        .full("the bytes of held writes are at their limit"),
                    Refusal::Expired { .. } => self.fence().expired(hold),
                    Refusal::Fenced { .. } => self.fence().write("writes are refused at once"),
                };
                self.refuse_group(&report).await
            }
        }
    }

    /// Woken. That is a rumour, not an admission: the gate is asked again.
    pub(crate) async fn on_turn_to_ask(&mut self) -> Result<(), End> {
        let Some((parked, _)) = &mut self.parked else {
            return Ok(());
        };
        let permit = match parked.ask() {
            Ok(permit) => permit,
            Err(look) => {
                return match look.phase {
                    // The answer was changed to reject while we waited.
                    Phase::Fenced(Answer::Reject) => {
                        self.look = look;
                        let report = self.fence().write("held until the fence was set to refuse");
                        self.refuse_parked(HoldEnd::Refused, &report).await
                    }
                    Phase::Fenced(Answer::Hold) | Phase::Open => Ok(()),
                };
            }
        };
        self.parked = None;
        self.look = self.group.gate.look(Lane::Sql);
        self.hold_permit(permit);
        self.get_to_target().await?;
        if self.server.is_none() {
            return Ok(()); // Refused: the target could not be reached.
        }
        self.open_deferred(false).await?;
        self.recheck();
        self.pass_admitted();
        Ok(())
    }

    /// Lets a group pass for which a permit was taken, if it is still held: whoever lost the server
    /// or refused the group has given it back.
    fn pass_admitted(&mut self) {
        if self.permit.is_some() {
            self.pass(After::default());
        }
    }

    pub(crate) async fn on_expired(&mut self) -> Result<(), End> {
        let held = self
            .parked
            .as_ref()
            .map_or(Duration::ZERO, |(_, since)| since.elapsed());
        let report = self.fence().expired(held);
        self.refuse_parked(HoldEnd::Expired, &report).await
    }

    pub(crate) async fn refuse_parked(&mut self, end: HoldEnd, report: &Report) -> Result<(), End> {
        if let Some((parked, _)) = self.parked.take() {
            parked.finish(end);
        }
        self.handle.set_state(SessionState::Idle);
        self.refuse_group(report).await
    }

    /// PostgreSQL refused as a write what was sent as a read: it is one, and nothing was relayed.
    pub(crate) async fn on_misjudged(&mut self) -> Result<(), End> {
        let mut group = std::mem::take(&mut self.kept.group);
        let mut close = Vec::new();
        let mut at = 0;
        // Statements it prepared by name exist on this server; sent again they would collide.
        while let Ok(Some(h)) = head(group.get(at..).unwrap_or_default()) {
            let frame = group.get(at..at + h.total).unwrap_or_default();
            if let (b'P', Some((name, _))) = (h.tag, super::message::parse_head(frame))
                && !name.is_empty()
            {
                put(&mut close, b'C', &[b"S", name, b"\0"]);
            }
            at += h.total;
        }
        let bytes = group.len();
        group.append(&mut self.client.inbox);
        self.client.inbox = group;
        if !close.is_empty() {
            put(&mut close, b'S', &[]);
            self.ask_server(&close, 1).await?;
        }
        if self.group.gate.look(Lane::Sql).phase == Phase::Open {
            return Ok(()); // Opened meanwhile: it goes the ordinary way.
        }
        self.on_write("PostgreSQL found that it writes", bytes)
            .await
    }

    // --- refusing and answering here ---

    /// Refuses the group at the front of the inbox. An open transaction fails with it.
    pub(crate) async fn refuse_group(&mut self, report: &Report) -> Result<(), End> {
        let totals = &self.group.sessions.totals;
        totals
            .fenced
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.close_unsynced().await?;
        if self.track.tx == Tx::Open {
            let mut fail = Vec::new();
            own(&mut fail, FAIL);
            self.ask_server(&fail, 1).await?;
            self.track.tx = Tx::Failed;
        }
        if matches!(self.virt, Virtual::Deferred(_)) {
            self.virt = Virtual::Failed;
        }
        if self.permit.is_some() && self.track.tx == Tx::Idle {
            self.release();
        }
        report.error(self.client.queue());
        self.drop_group();
        self.recheck();
        Ok(())
    }

    /// Drops the group at the front of the inbox; its ReadyForQuery is given here.
    fn drop_group(&mut self) {
        let Ok(Some(h)) = head(&self.client.inbox) else {
            return;
        };
        if matches!(h.tag, b'Q' | b'F') {
            let here = h.total.min(self.client.inbox.len());
            self.drop_bytes = h.total - here;
            self.client.consume(here);
            let status = self.client_status();
            ready(self.client.queue(), status);
        } else {
            self.drop_to_sync = true;
        }
    }

    /// The transaction status the client believes in.
    pub(crate) fn client_status(&self) -> u8 {
        match self.virt {
            Virtual::None => self.track.tx.status(),
            Virtual::Deferred(_) => b'T',
            Virtual::Failed => b'E',
        }
    }

    /// Answers a group of one statement as the server would, with this command tag.
    fn answer_here(&mut self, tag: &str) {
        let Ok(Extent::Whole { len, .. }) = extent(&self.client.inbox) else {
            return;
        };
        let status = self.client_status();
        let mut at = 0;
        let mut out = Vec::new();
        while at < len {
            let rest = self.client.inbox.get(at..len).unwrap_or_default();
            let Ok(Some(h)) = head(rest) else { break };
            match h.tag {
                b'Q' => {
                    complete(&mut out, tag);
                    ready(&mut out, status);
                }
                b'P' => put(&mut out, b'1', &[]),
                b'B' => put(&mut out, b'2', &[]),
                b'C' => put(&mut out, b'3', &[]),
                b'D' if rest.get(5) == Some(&b'S') => {
                    put(&mut out, b't', &[&[0, 0]]);
                    put(&mut out, b'n', &[]);
                }
                b'D' => put(&mut out, b'n', &[]),
                b'E' => complete(&mut out, tag),
                b'S' => ready(&mut out, status),
                _ => {}
            }
            at += h.total;
        }
        self.client.consume(len);
        self.client.queue().extend_from_slice(&out);
    }

    fn show(&mut self, name: &str) -> Result<(), End> {
        let value = self.wall.told().to_owned();
        if let Ok(Extent::Whole { len, .. }) = extent(&self.client.inbox) {
            self.client.consume(len);
        }
        let status = self.client_status();
        let out = self.client.queue();
        shown(out, name, &value);
        ready(out, status);
        Ok(())
    }

    // --- transactions that exist for the client only ---

    fn defer(&mut self, view: &View) -> Result<(), End> {
        let Some((_, text)) = view.only() else {
            return Ok(());
        };
        let mut message = Vec::new();
        own(&mut message, &text);
        self.virt = Virtual::Deferred(message);
        self.answer_here("BEGIN");
        self.recheck();
        Ok(())
    }

    async fn after_deferred_begin(&mut self, view: &View, bytes: usize) -> Result<(), End> {
        if let Some((s, _)) = view.only()
            && let Some(tag) = end_tag(&s.kind)
        {
            self.virt = Virtual::None;
            self.answer_here(tag);
            self.recheck();
            return Ok(());
        }
        if self.look.phase == Phase::Open && !self.look.releasing {
            return match self.group.gate.admit(Lane::Sql) {
                Ok(permit) => {
                    self.hold_permit(permit);
                    self.get_to_target().await?;
                    if self.server.is_some() {
                        self.open_deferred(false).await?;
                    }
                    self.pass_admitted();
                    Ok(())
                }
                Err(_) => Ok(()), // The relay sees the change.
            };
        }
        let inside = Circumstances {
            tx: Tx::Open,
            sealed: true,
            ..self.circumstances()
        };
        match decide(view, inside) {
            Decision::Pass(after) | Decision::Try(after) => {
                if self.server.is_none() && !self.reach_for_read().await? {
                    return Ok(());
                }
                self.open_deferred(true).await?;
                if self.server.is_some() {
                    self.sealed = true;
                    self.pass(after);
                }
                Ok(())
            }
            Decision::Write(why) | Decision::Refuse(why) => self.on_write(why, bytes).await,
            Decision::Defer | Decision::Show(_) | Decision::Virtual(_) => {
                self.on_write("setting inside a transaction that is not begun yet", bytes)
                    .await
            }
        }
    }

    /// Sends the BEGIN that was answered here.
    async fn open_deferred(&mut self, read_only: bool) -> Result<(), End> {
        let Virtual::Deferred(begin) = &self.virt else {
            return Ok(());
        };
        let mut messages = begin.clone();
        let mut readies = 1;
        if read_only {
            own(&mut messages, "SET TRANSACTION READ ONLY");
            readies = 2;
        }
        self.ask_server(&messages, readies).await?;
        if self.server.is_none() {
            // Lost with the BEGIN: for the client its transaction has failed.
            let region = self.group.targets.accepted().region.clone();
            let report = refuse::lost(region.as_str(), "it was lost at BEGIN", true);
            return self.refuse_group(&report).await;
        }
        self.virt = Virtual::None;
        self.track.tx = Tx::Open;
        self.recheck();
        Ok(())
    }

    fn in_virtual_failure(&mut self, view: &View) -> Result<(), End> {
        let ends = view.only().is_some_and(|(s, _)| end_tag(&s.kind).is_some());
        let commits = view
            .only()
            .is_some_and(|(s, _)| matches!(s.kind, Kind::Commit { .. }));
        if let Some(report) = self.untold.take().filter(|_| commits) {
            self.virt = Virtual::None;
            report.error(self.client.queue());
            self.drop_group();
            self.recheck();
        } else if ends {
            self.virt = Virtual::None;
            self.answer_here("ROLLBACK");
            self.recheck();
        } else {
            refuse::in_failed().error(self.client.queue());
            self.drop_group();
        }
        Ok(())
    }

    /// Ends an extended run that the client has not closed with a Sync yet. Nothing in it may be a
    /// write: such a run holds a permit and is never here.
    async fn close_unsynced(&mut self) -> Result<(), End> {
        if !self.track.unsynced() || self.server.is_none() {
            return Ok(());
        }
        let mut sync = Vec::new();
        put(&mut sync, b'S', &[]);
        self.track.sync();
        let status = self.ask_server(&sync, 1).await?;
        self.track.ready(status, &self.eyes);
        Ok(())
    }
}

fn end_tag(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::Commit { chain: false } => Some("COMMIT"),
        Kind::Rollback { chain: false } => Some("ROLLBACK"),
        _ => None,
    }
}
