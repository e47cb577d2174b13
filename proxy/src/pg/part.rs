//! The end of a group, and of a part of one.
//!
//! A client's group is cut where something has to happen between two of its statements. What is
//! before the cut runs first; its ReadyForQuery is not the client's, and if it fails, what is
//! behind the cut is skipped, as PostgreSQL would have done.

use super::classify::Kind;
use super::decide::{
    After, Extent, View, apart, cut, cut_at, extent, plant, rejoin, run_before_query,
};
use super::frame::{HEADER, head};
use super::kept::{Part, Wrap};
use super::message::{parameter, ready};
use super::relay::Seen;
use super::session::Session;
use super::track::Tx;
use super::wall::NAME;
use super::xid::Xid;
use crate::gate::Phase;
use crate::sessions::{SessionState, WallState};

impl Session {
    /// Length and last message of the group at the front of the inbox; it is known to be whole.
    pub(crate) fn front(&self) -> (usize, u8) {
        match extent(&self.client.inbox) {
            Ok(Extent::Whole { len, terminator }) => (len, terminator),
            Ok(Extent::More | Extent::Over) | Err(_) => (self.client.inbox.len(), b'S'),
        }
    }

    fn replace_front(&mut self, group: Vec<u8>) {
        let (len, _) = self.front();
        self.client.inbox.splice(..len, group);
    }

    pub(crate) fn front_group(&self) -> &[u8] {
        let (len, _) = self.front();
        self.client.inbox.get(..len).unwrap_or_default()
    }

    /// Cuts the group at the front of the inbox before step `n`. False where it cannot be cut.
    pub(crate) fn cut(&mut self, view: &mut View, n: usize) -> bool {
        // One cut at a time: what is behind it is looked at again when its turn comes.
        let in_transaction = self.track.tx == Tx::Open;
        // COPY data would come behind the rest, which waits for the COPY to end.
        let copies = view.steps.iter().take(n).any(|s| s.kind == Kind::CopyFrom);
        if self.kept.part != Part::Whole || copies {
            return false;
        }
        let Some(parts) = cut(self.front_group(), view, n, in_transaction) else {
            return false;
        };
        self.replace_front(parts);
        view.steps.truncate(n);
        self.kept.part = Part::First;
        true
    }

    /// Cuts off the Parse messages of a statement that is answered here: they go to the server,
    /// where the statement has to exist under its name. True when there were any.
    pub(crate) fn cut_off_parse(&mut self) -> bool {
        let Some(at) = apart(self.front_group()) else {
            return false;
        };
        self.rejoin();
        let parts = cut_at(self.front_group(), at);
        self.replace_front(parts);
        self.kept.part = Part::First;
        true
    }

    /// Cuts the group at the front of the inbox at this place and lets what is before it pass.
    pub(crate) fn cut_here(&mut self, at: usize) {
        let parts = cut_at(self.front_group(), at);
        self.replace_front(parts);
        self.kept.part = Part::First;
        self.pass(After::default());
    }

    /// Cuts a Query or FunctionCall off the run without a Sync that it stands behind: the two are answered
    /// with one ReadyForQuery, and only each by itself is understood.
    pub(crate) fn cut_off_run(&mut self) {
        if let Some(at) = run_before_query(self.front_group()) {
            let parts = cut_at(self.front_group(), at);
            self.replace_front(parts);
            self.kept.part = Part::Run;
        }
    }

    /// Puts a refusal in the place of step `n` and of all behind it.
    pub(crate) fn plant(&mut self, view: &View, n: usize, why: &'static str) {
        if let Some(group) = plant(self.front_group(), view, n) {
            self.replace_front(group);
            self.kept.planted = Some(why);
        }
    }

    /// Undoes a cut of which no part was sent.
    pub(crate) fn rejoin(&mut self) {
        if std::mem::take(&mut self.kept.part) != Part::Whole {
            self.client.inbox = rejoin(&self.client.inbox);
        }
    }

    /// Drops the group at the front of the inbox. Returns the ReadyForQuery it is owed, where that
    /// is due now and not at a Sync.
    pub(crate) fn drop_front(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let Ok(Some(h)) = head(&self.client.inbox) else {
            return out;
        };
        if matches!(h.tag, b'Q' | b'F') {
            let here = h.total.min(self.client.inbox.len());
            self.drop_bytes = h.total - here;
            self.client.consume(here);
            ready(&mut out, self.client_status());
        } else {
            self.drop_to_sync = true;
        }
        out
    }

    /// A first part has failed: drops the rest. Returns as `drop_front` does.
    pub(crate) fn drop_behind(&mut self, part: Part) -> Vec<u8> {
        if part == Part::Run {
            self.drop_to_sync = true;
            return Vec::new();
        }
        self.drop_front()
    }

    /// The group or part that was just answered here, in full, has ended.
    pub(crate) fn close_here(&mut self, failed: bool) {
        let part = std::mem::take(&mut self.kept.part);
        if part != Part::Whole && failed {
            let out = self.drop_behind(part);
            self.client.queue().extend_from_slice(&out);
        } else if part == Part::Whole {
            let status = self.client_status();
            ready(self.client.queue(), status);
        }
    }

    /// A ReadyForQuery came.
    pub(crate) fn see_ready(&mut self, frame: &[u8]) -> Seen {
        let status = frame.get(HEADER).copied().unwrap_or(b'I');
        self.handle.meter().answered();
        let failed = self.track.failing();
        if self.kept.wrap == Wrap::Around {
            // For the client, and for all that is tracked, there is no transaction.
            self.track.ready(b'I', &self.eyes);
            self.kept.wrap = Wrap::ToEnd(status);
            return Seen::Swallow;
        }
        self.track.ready(status, &self.eyes);
        if self.track.tx == Tx::Idle {
            self.handle.transaction_ended();
            self.xid = Xid::default();
        }
        let after = &mut self.kept.after;
        if std::mem::take(&mut after.sealed) && self.track.tx == Tx::Open {
            self.sealed = true;
            self.handle.set_wall(WallState::Reading);
        }
        if self.track.tx != Tx::Open {
            after.chained = false;
        } else if after.chained {
            self.sealed = false;
        }
        self.let_go &= !self.track.answered();
        if self.track.quiescent() {
            if std::mem::take(&mut self.track.changed_catalog) {
                self.eyes.shelf.changed();
            }
            if std::mem::take(&mut self.sealed) {
                self.handle
                    .set_wall(match (self.wall.stands(), self.look.phase) {
                        (true, _) => WallState::Standing,
                        (false, Phase::Fenced(_)) => WallState::Reading,
                        (false, Phase::Open) => WallState::Down,
                    });
            }
            self.release();
        } else if self.track.answered() && self.permit.is_some() {
            self.handle.set_state(if self.track.chained() {
                SessionState::Chained
            } else {
                SessionState::InTransaction
            });
        }
        let own = std::mem::take(&mut self.kept.after.own);
        if self.kept.misjudged() {
            return Seen::Misjudged;
        }
        let mut news = Vec::new();
        if own && !failed {
            self.learn_own(&mut news);
        }
        self.kept.answered();
        let part = std::mem::take(&mut self.kept.part);
        if part != Part::Whole {
            let mut out = self.kept.let_go().unwrap_or_default();
            out.append(&mut news);
            if failed {
                out.append(&mut self.drop_behind(part));
            }
            return Seen::Instead(out);
        }
        if news.is_empty() {
            return Seen::Relay;
        }
        news.extend_from_slice(frame);
        Seen::Instead(news)
    }

    /// The client has changed the virtual variable: what the server says of it now is the client's
    /// own value, and is told as PostgreSQL would have told it.
    pub(crate) fn learn_own(&mut self, out: &mut Vec<u8>) {
        let Some(value) = self.server.as_ref().and_then(|s| s.param(NAME)) else {
            return;
        };
        if value != self.wall.told() {
            parameter(out, NAME, value);
            let value = value.to_owned();
            self.wall.tell(&value);
        }
    }
}
