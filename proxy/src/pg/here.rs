//! What is answered here in place of the server: SHOW of the virtual variable, what is accepted
//! without effect, and transactions that exist for the client only.

use super::classify::Kind;
use super::decide::{After, Circumstances, Decision, Step, View, decide};
use super::frame::{HEADER, head, put};
use super::message::{complete, describe, own, row};
use super::refuse;
use super::session::{End, Session, Virtual};
use super::track::Tx;
use crate::gate::{Lane, Phase};

/// An answer to the one statement of a group.
#[derive(Clone, Copy)]
pub(crate) enum Here<'a> {
    /// Nothing but its command tag.
    Done(&'a str),
    /// What SHOW gives.
    Shown { name: &'a str, value: &'a str },
}

impl Here<'_> {
    /// Answers Describe.
    fn describe(self, out: &mut Vec<u8>) {
        match self {
            Here::Done(_) => put(out, b'n', &[]),
            Here::Shown { name, .. } => describe(out, name),
        }
    }

    /// Answers Execute.
    fn execute(self, out: &mut Vec<u8>) {
        match self {
            Here::Done(tag) => complete(out, tag),
            Here::Shown { value, .. } => {
                row(out, value);
                complete(out, "SHOW");
            }
        }
    }
}

impl Session {
    /// Whether the group at the front of the inbox can be answered here now. If not, something of
    /// it has to go to the server first, or it has been refused.
    pub(crate) async fn free_to_answer(&mut self) -> Result<bool, End> {
        self.close_unsynced().await?;
        if !self.cut_off_parse() {
            return Ok(true);
        }
        if self.server.is_some() || self.reach_for_read().await? {
            self.pass(After::default());
        }
        Ok(false)
    }

    /// Answers the group at the front of the inbox as the server would, and ends it.
    pub(crate) fn answer_here(&mut self, here: Here<'_>) {
        let (len, terminator) = self.front();
        let mut out = Vec::new();
        let mut at = 0;
        while at < len {
            let rest = self.client.inbox.get(at..len).unwrap_or_default();
            let Ok(Some(h)) = head(rest) else { break };
            match h.tag {
                b'Q' => {
                    if let Here::Shown { .. } = here {
                        here.describe(&mut out);
                    }
                    here.execute(&mut out);
                }
                b'B' => put(&mut out, b'2', &[]),
                b'C' => put(&mut out, b'3', &[]),
                b'D' => {
                    if rest.get(HEADER) == Some(&b'S') {
                        put(&mut out, b't', &[&[0, 0]]);
                    }
                    here.describe(&mut out);
                }
                b'E' => here.execute(&mut out),
                _ => {}
            }
            at += h.total;
        }
        self.client.consume(len);
        self.client.queue().extend_from_slice(&out);
        if terminator != b'H' {
            self.close_here(false);
        }
    }

    /// SHOW of the virtual variable: the client's own value.
    pub(crate) async fn show(&mut self, name: &str) -> Result<(), End> {
        if self.free_to_answer().await? {
            let value = self.wall.told().to_owned();
            let value = &value;
            self.answer_here(Here::Shown { name, value });
        }
        Ok(())
    }

    /// What is accepted without effect.
    pub(crate) async fn accept(&mut self, tag: &str) -> Result<(), End> {
        if self.free_to_answer().await? {
            self.answer_here(Here::Done(tag));
        }
        Ok(())
    }

    // --- transactions that exist for the client only ---

    /// BEGIN: answered here, sent with the first statement.
    pub(crate) async fn defer(&mut self, view: &View) -> Result<(), End> {
        let begin = view.steps.first().map(|step| step.text.clone());
        if self.free_to_answer().await?
            && let Some(begin) = begin
        {
            let start = begin.as_bytes().first_chunk::<5>();
            let start = start.is_some_and(|word| word.eq_ignore_ascii_case(b"start"));
            self.virt = Virtual::Deferred(begin);
            self.answer_here(Here::Done(if start {
                "START TRANSACTION"
            } else {
                "BEGIN"
            }));
            self.recheck();
        }
        Ok(())
    }

    /// A group behind a BEGIN that was answered here.
    pub(crate) async fn after_deferred_begin(
        &mut self,
        mut view: View,
        bytes: usize,
    ) -> Result<(), End> {
        if self.ends_virtually(&mut view).await? {
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
        match decide(&view, inside) {
            Decision::Write(why) | Decision::Refuse(why) => self.on_write(why, bytes).await,
            Decision::Show(name) => self.show(&name).await,
            Decision::Accept(tag) => self.accept(tag).await,
            Decision::Send(..) | Decision::Cut(_) | Decision::Plant(..) | Decision::Defer => {
                if self.server.is_none() && !self.reach_for_read().await? {
                    return Ok(());
                }
                self.open_deferred(true).await?;
                if self.server.is_none() || self.track.tx != Tx::Open {
                    return Ok(());
                }
                self.sealed = true;
                self.settle(view).await
            }
        }
    }

    /// Sends the BEGIN that was answered here.
    pub(crate) async fn open_deferred(&mut self, read_only: bool) -> Result<(), End> {
        let Virtual::Deferred(begin) = &self.virt else {
            return Ok(());
        };
        let mut messages = Vec::new();
        let mut readies = 1;
        own(&mut messages, begin);
        if read_only {
            own(&mut messages, "SET TRANSACTION READ ONLY");
            readies = 2;
        }
        let status = self.ask_server(&messages, readies).await?;
        if self.server.is_none() {
            // Lost with the BEGIN: for the client its transaction has failed.
            let report = self.lost_at("BEGIN");
            return self.refuse_group(&report).await;
        }
        self.virt = Virtual::None;
        self.track.tx = Tx::of(status);
        self.recheck();
        Ok(())
    }

    /// A group in a transaction that has failed for the client only.
    pub(crate) async fn in_virtual_failure(&mut self, mut view: View) -> Result<(), End> {
        let commits = |s: &Step| matches!(s.kind, Kind::Commit { .. });
        let untold = self.untold.take();
        if let Some(report) = untold.filter(|_| view.steps.first().is_some_and(commits)) {
            self.virt = Virtual::None;
            report.error(self.client.queue());
            self.rejoin();
            let out = self.drop_front();
            self.client.queue().extend_from_slice(&out);
            self.recheck();
            return Ok(());
        }
        if self.ends_virtually(&mut view).await? {
            return Ok(());
        }
        refuse::in_failed().error(self.client.queue());
        self.rejoin();
        let out = self.drop_front();
        self.client.queue().extend_from_slice(&out);
        Ok(())
    }

    /// Answers a group that only ends, or only closes a run of, a transaction that exists for the
    /// client alone. True when it was one.
    async fn ends_virtually(&mut self, view: &mut View) -> Result<bool, End> {
        let Some(first) = view.steps.first() else {
            let (len, _) = self.front();
            let nothing = view.opaque.is_none() && len == HEADER;
            if nothing {
                self.answer_here(Here::Done(""));
            }
            return Ok(nothing);
        };
        let (Kind::Commit { chain } | Kind::Rollback { chain }) = first.kind else {
            return Ok(false);
        };
        let commits = matches!(first.kind, Kind::Commit { .. });
        if view.opaque.is_some() || view.steps.len() > 1 && !self.cut(view, 1) {
            return Ok(false);
        }
        if !self.free_to_answer().await? {
            return Ok(true);
        }
        let (begin, failed) = match std::mem::take(&mut self.virt) {
            Virtual::None => return Ok(true),
            Virtual::Deferred(begin) => (begin, false),
            Virtual::Failed(begin) => (begin, true),
        };
        if chain {
            self.virt = Virtual::Deferred(begin);
        }
        // A COMMIT of a failed transaction says what it did.
        let tag = if commits && !failed {
            "COMMIT"
        } else {
            "ROLLBACK"
        };
        self.answer_here(Here::Done(tag));
        self.recheck();
        Ok(true)
    }
}
