//! The bytes of a session, both ways, in one poll.
//!
//! Each direction: read what is there into the thread's scratch area, look at the messages in
//! place, write them on. Nothing is allocated or copied per message but the statement texts that a
//! fence would have to judge. A permit is taken before the first byte of a group goes upstream.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::decide::{Extent, GROUP, extent};
use super::frame::{PARSE_KEPT, head, is_client_tag, put};
use super::leg::{SCRATCH, with_scratch};
use super::replay::{MoveError, Ready};
use super::session::Session;
use super::track::{LONGEST, window};
use crate::gate::{Lane, Permit, Phase, Turn as HoldTurn};

/// What a held or stalled client may send ahead before it is no longer read from: one whole group
/// and what one more read brings.
const AHEAD: usize = GROUP + SCRATCH;

/// A Flush.
const FLUSH: &[u8] = &[b'H', 0, 0, 0, 4];

/// Something that is not bytes.
pub(crate) enum Turn {
    /// The gate or the targets changed.
    Phase,
    /// A cancel or an end was asked for.
    Asked,
    /// A group at the front of the client's inbox has to be judged.
    Group,
    /// A group wants to go upstream and there is no server.
    NeedServer,
    /// The server is ours for a moment and something has to be put right.
    Chores,
    /// A login made ahead has ended.
    Ahead(Box<Result<Ready, MoveError>>),
    /// The grace is over.
    Timer,
    /// The catalog was read behind the fence.
    Proven,
    /// A COMMIT waits, and the id of its transaction is to be asked for first.
    Xid,
    /// The held write may ask again.
    Ask,
    /// The held write's time is over.
    Expired,
    /// The server refused as a write what was taken for a read, and nothing of it was relayed.
    Misjudged,
    ClientGone,
    ServerGone(String),
    Offence(String),
    /// A message of the client's has more bytes than one may have.
    TooLarge(usize),
}

impl Session {
    /// Moves bytes until something else has to be done.
    pub(crate) fn poll_relay(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        // Register first, look second: a change after the look wakes us.
        let rung = self.watch.poll_changed(cx).is_ready();
        self.handle.register(cx.waker());
        if rung {
            return Poll::Ready(Turn::Phase);
        }
        if let Some(turn) = self.poll_signals(cx) {
            return Poll::Ready(turn);
        }
        loop {
            let from_server = self.pump_server(cx);
            if let Some(turn) = from_server.turn {
                return Poll::Ready(turn);
            }
            if self.chores_due() {
                return Poll::Ready(Turn::Chores);
            }
            let from_client = self.pump_client(cx);
            if let Some(turn) = from_client.turn {
                return Poll::Ready(turn);
            }
            if !from_server.moved && !from_client.moved {
                return Poll::Pending;
            }
        }
    }

    fn poll_signals(&mut self, cx: &mut Context<'_>) -> Option<Turn> {
        let group = &self.group;
        if group.gate.look(Lane::Sql) != self.look || group.targets.version() != self.targets_seen {
            return Some(Turn::Phase);
        }
        // An end waits until the session is quiet.
        if self.handle.cancel_asked()
            || self.handle.pressed()
            || (self.handle.must_end() && self.may_end())
        {
            return Some(Turn::Asked);
        }
        if let Some(ahead) = &mut self.ahead
            && let Poll::Ready(made) = Pin::new(ahead).poll(cx)
        {
            self.ahead = None;
            let made = made.unwrap_or_else(|_| Err(MoveError::Abandoned));
            return Some(Turn::Ahead(Box::new(made)));
        }
        if let Some(timer) = &mut self.timer
            && timer.as_mut().poll(cx).is_ready()
        {
            return Some(Turn::Timer);
        }
        if self
            .unproven
            .is_some_and(|proof| self.eyes.shelf.is_proven(proof))
        {
            return Some(Turn::Proven);
        }
        if let Some(cancelling) = &mut self.cancelling
            && Pin::new(cancelling).poll(cx).is_ready()
        {
            self.cancelling = None;
        }
        if let Some((parked, _)) = &mut self.parked {
            return match parked.poll_turn(cx) {
                Poll::Ready(HoldTurn::Ask) => Some(Turn::Ask),
                Poll::Ready(HoldTurn::Expired) => Some(Turn::Expired),
                Poll::Pending => None,
            };
        }
        None
    }

    // --- server to client ---

    fn pump_server(&mut self, cx: &mut Context<'_>) -> Pumped {
        let mut pumped = Pumped::default();
        loop {
            if !self.client_gone && self.client.backed_up() {
                match self.client.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(_)) => return pumped.with(Turn::ClientGone),
                    Poll::Pending => return pumped,
                }
            }
            let read = with_scratch(|scratch| {
                let leg = &mut self.server.as_mut()?.leg;
                match leg.poll_read(cx, scratch) {
                    Poll::Pending => None,
                    Poll::Ready(Ok(0)) => {
                        Some(Some(Turn::ServerGone("it closed the connection".into())))
                    }
                    Poll::Ready(Err(e)) => Some(Some(Turn::ServerGone(e.to_string()))),
                    Poll::Ready(Ok(n)) => {
                        self.handle.meter().sent(n);
                        Some(self.take_server(cx, scratch.get(..n).unwrap_or_default()))
                    }
                }
            });
            match read {
                None => return pumped,
                Some(Some(turn)) => return pumped.with(turn),
                Some(None) => pumped.moved = true,
            }
            if self.chores_due() {
                return pumped;
            }
        }
    }

    fn take_server(&mut self, cx: &mut Context<'_>, fresh: &[u8]) -> Option<Turn> {
        let mut kept = match &mut self.server {
            Some(s) => std::mem::take(&mut s.leg.inbox),
            None => return None,
        };
        let (used, turn) = if kept.is_empty() {
            let (used, turn) = self.server_messages(cx, fresh);
            kept.extend_from_slice(fresh.get(used..).unwrap_or_default());
            (0, turn)
        } else {
            kept.extend_from_slice(fresh);
            self.server_messages(cx, &kept)
        };
        kept.drain(..used.min(kept.len()));
        if let Some(server) = &mut self.server
            && !kept.is_empty()
        {
            server.leg.inbox = kept;
        }
        turn
    }

    /// Looks at messages from the server and relays them; returns how many bytes are done with.
    fn server_messages(&mut self, cx: &mut Context<'_>, data: &[u8]) -> (usize, Option<Turn>) {
        let mut at = self.server_rest.min(data.len());
        self.server_rest -= at;
        // Start of what goes on to the client as it is.
        let mut from = 0;
        let mut turn = None;
        while turn.is_none() && at < data.len() {
            let rest = data.get(at..).unwrap_or_default();
            let h = match head(rest) {
                Ok(Some(h)) => h,
                Ok(None) => break,
                Err(e) => return (at, Some(Turn::ServerGone(e.to_string()))),
            };
            if !is_inspected(h.tag) || h.total > PARSE_KEPT {
                let here = h.total.min(rest.len());
                self.server_rest = h.total - here;
                at += here;
                continue;
            }
            let Some(frame) = rest.get(..h.total) else {
                break;
            };
            let seen = self.see(h.tag, frame);
            if !matches!(seen, Seen::Relay) {
                turn = self.relay(cx, data.get(from..at).unwrap_or_default());
                from = at + h.total;
            }
            match seen {
                Seen::Relay | Seen::Swallow => {}
                Seen::Instead(bytes) => turn = turn.or_else(|| self.relay(cx, &bytes)),
                Seen::Misjudged => turn = Some(Turn::Misjudged),
            }
            at += h.total;
        }
        let turn = self
            .relay(cx, data.get(from..at).unwrap_or_default())
            .or(turn);
        (at, turn)
    }

    /// Writes bytes of the server on to the client, or keeps them while an answer is withheld.
    fn relay(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Option<Turn> {
        if data.is_empty() || self.client_gone {
            return None;
        }
        if self.kept.withhold(data) {
            return None;
        }
        let withheld = self.kept.let_go();
        let sent = withheld.map_or(Ok(()), |w| self.client.send(cx, &w));
        match sent.and_then(|()| self.client.send(cx, data)) {
            Ok(()) => None,
            Err(_) => Some(Turn::ClientGone),
        }
    }

    /// Takes note of a message of the server's.
    fn see(&mut self, tag: u8, frame: &[u8]) -> Seen {
        match tag {
            b'G' => {
                self.track.copy_in();
                // The client sends no data before it has seen this.
                self.kept.disarm();
            }
            b'S' => return self.see_parameter(frame),
            b'E' => return self.see_error(frame),
            b'Z' => return self.see_ready(frame),
            b'1' if self.track.is_probe_answered() => return Seen::Swallow,
            _ => self.track.received(tag, frame),
        }
        Seen::Relay
    }

    // --- client to server ---

    fn pump_client(&mut self, cx: &mut Context<'_>) -> Pumped {
        let mut pumped = Pumped::default();
        if self.client_gone {
            return self.pump_orphan(cx);
        }
        loop {
            if let Some(server) = &mut self.server
                && server.leg.backed_up()
            {
                match server.leg.poll_flush(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(e)) => return pumped.with(Turn::ServerGone(e.to_string())),
                    Poll::Pending => return pumped,
                }
            }
            // What came before and could not go on then.
            if !self.client.inbox.is_empty() {
                let data = std::mem::take(&mut self.client.inbox);
                let (used, turn) = self.client_messages(cx, &data);
                self.keep(data, used);
                if let Some(turn) = turn {
                    return pumped.with(turn);
                }
                if used > 0 {
                    pumped.moved = true;
                    continue;
                }
                if self.client.inbox.len() >= AHEAD && self.stalled() {
                    return pumped;
                }
            }
            match self.read_client(cx) {
                Poll::Pending => return pumped,
                Poll::Ready(Some(turn)) => return pumped.with(turn),
                Poll::Ready(None) => pumped.moved = true,
            }
        }
    }

    /// What the client had sent before it left goes out; then our direction is closed, if nothing
    /// but the server's end of the connection is left to wait for.
    fn pump_orphan(&mut self, cx: &mut Context<'_>) -> Pumped {
        let pumped = Pumped::default();
        let hang_up = self.is_to_hang_up();
        let torn = self.client_rest > 0;
        let Some(server) = &mut self.server else {
            return pumped;
        };
        let done = match server.leg.poll_flush(cx) {
            Poll::Ready(Ok(())) if hang_up => server.leg.poll_hang_up(cx, torn),
            other => other,
        };
        match done {
            Poll::Ready(Ok(())) => self.orphan.hung_up |= hang_up,
            Poll::Ready(Err(e)) => return pumped.with(Turn::ServerGone(e.to_string())),
            Poll::Pending => {}
        }
        pumped
    }

    fn keep(&mut self, mut data: Vec<u8>, used: usize) {
        if used < data.len() {
            data.drain(..used);
            self.client.inbox = data;
        }
    }

    fn read_client(&mut self, cx: &mut Context<'_>) -> Poll<Option<Turn>> {
        with_scratch(|scratch| {
            let n = match std::task::ready!(self.client.poll_read(cx, scratch)) {
                Ok(0) | Err(_) => return Poll::Ready(Some(Turn::ClientGone)),
                Ok(n) => n,
            };
            self.handle.meter().received(n);
            let fresh = scratch.get(..n).unwrap_or_default();
            if !self.client.inbox.is_empty() {
                self.client.inbox.extend_from_slice(fresh);
                return Poll::Ready(None);
            }
            let (used, turn) = self.client_messages(cx, fresh);
            self.client
                .inbox
                .extend_from_slice(fresh.get(used..).unwrap_or_default());
            Poll::Ready(turn)
        })
    }

    /// The client is not read from beyond a bound: its next group has to wait.
    fn stalled(&self) -> bool {
        self.parked.is_some()
            || self.cancelling.is_some()
            || self.track.is_full()
            || self.track.run_is_asked_for()
            || self.careful
            || self.group.settings.load().track_xid
    }

    /// Looks at messages of the client and sends them on; returns how many bytes are done with.
    fn client_messages(&mut self, cx: &mut Context<'_>, data: &[u8]) -> (usize, Option<Turn>) {
        if self.drop_bytes > 0 {
            let n = self.drop_bytes.min(data.len());
            self.drop_bytes -= n;
            return (n, None);
        }
        let mut at = self.client_rest.min(data.len());
        self.client_rest -= at;
        let mut turn = None;
        while turn.is_none() && at < data.len() {
            let rest = data.get(at..).unwrap_or_default();
            let h = match head(rest) {
                Ok(Some(h)) => h,
                Ok(None) => break,
                // What is before it goes on all the same: it is known as sent.
                Err(e) => {
                    turn = Some(Turn::Offence(e.to_string()));
                    break;
                }
            };
            if !is_client_tag(h.tag) {
                let e = super::frame::FrameError::UnknownTag(h.tag);
                turn = Some(Turn::Offence(e.to_string()));
                break;
            }
            // Read only where it can matter: the bound is never below this.
            if h.total > SCRATCH && h.total > self.group.settings.load().message {
                turn = Some(Turn::TooLarge(h.total));
                break;
            }
            if h.tag == b'X' {
                turn = Some(Turn::ClientGone);
                break;
            }
            if self.drop_to_sync {
                // What is sent before it has to go first, so this is looked at on its own.
                if at > 0 {
                    break;
                }
                return self.dropped(rest, h.tag, h.total);
            }
            if is_group(h.tag)
                && let Some(stop) = self.may_not_pass(rest)
            {
                turn = stop;
                break;
            }
            if self.waits_for_run(h.tag) {
                break;
            }
            if self.track.is_overlong() && h.tag != b'S' {
                let what = format!("more than {LONGEST} bytes are kept of a run without its Sync");
                turn = Some(Turn::Offence(what));
                break;
            }
            let window = window(h);
            let Some(seen) = rest.get(..window) else {
                break;
            };
            self.track.sent(h.tag, seen, window == h.total);
            if matches!(h.tag, b'Q' | b'F' | b'S' | b'H') {
                self.passing = false;
            }
            let here = h.total.min(rest.len());
            self.client_rest = h.total - here;
            self.torn = Some(h.tag);
            at += here;
        }
        let mut sent = self.send_on(cx, data.get(..at).unwrap_or_default());
        if std::mem::take(&mut self.flush_due) && sent.is_ok() {
            self.track.unflushed = false;
            sent = self.send_on(cx, FLUSH);
        }
        if std::mem::take(&mut self.probe_due) && sent.is_ok() {
            let mut probe = Vec::new();
            put(&mut probe, b'P', &[b"\0\0\0\0"]);
            probe.extend_from_slice(FLUSH);
            self.track.ask_for_run();
            sent = self.send_on(cx, &probe);
        }
        match sent {
            Ok(()) => (at, turn),
            Err(e) => (at, Some(Turn::ServerGone(e.to_string()))),
        }
    }

    fn send_on(&mut self, cx: &mut Context<'_>, data: &[u8]) -> io::Result<()> {
        match &mut self.server {
            Some(server) if !data.is_empty() => server.leg.send(cx, data),
            // COPY data for a server that is gone: its COPY has failed already.
            Some(_) | None => Ok(()),
        }
    }

    /// `None`: the message may go on. Otherwise the relay stops before it, with or without a turn.
    fn may_not_pass(&mut self, rest: &[u8]) -> Option<Option<Turn>> {
        if self.passing {
            return None;
        }
        // Asked for before this group came: the cancel is for what is in flight, not for this.
        if self.handle.cancel_asked() {
            return Some(Some(Turn::Asked));
        }
        if self.cancelling.is_some() || self.parked.is_some() || self.track.is_full() {
            return Some(None);
        }
        if self.careful {
            let turn = self.careful_turn(rest);
            // Else the server keeps what this group waits for until the group itself is there.
            self.flush_due = turn.is_none()
                && self.track.unflushed
                && !self.track.copy_in
                && matches!(extent(rest), Ok(Extent::Whole { .. } | Extent::Over));
            return Some(turn);
        }
        if self.wants_xid(rest) {
            // It is asked when everything before is answered.
            return Some(self.track.answered().then_some(Turn::Xid));
        }
        if self.server.is_none() {
            return Some(Some(Turn::NeedServer));
        }
        let Some(permit) = &self.permit else {
            return match self.group.gate.admit(Lane::Sql) {
                // The epoch tells whether the phase changed and came back since we looked.
                Ok(permit) if permit.epoch() == self.look.epoch => {
                    self.hold_permit(permit);
                    None
                }
                Ok(_) | Err(_) => Some(Some(Turn::Phase)),
            };
        };
        // A group behind one that is in flight: the permit counts it, but only while nothing changed.
        let now = self.group.gate.look(Lane::Sql);
        (now != self.look || is_over(permit)).then_some(Some(Turn::Phase))
    }

    /// A Query or a FunctionCall in a run without its Sync: the server ignores it if the run has failed,
    /// and answers it if not. So that its answer is not waited for in vain, that has to be known first:
    /// a Parse of our own is answered or ignored as it would be. It is of the unnamed statement, which
    /// a Query destroys and a FunctionCall does not; that one waits for what is known to be owed.
    fn waits_for_run(&mut self, tag: u8) -> bool {
        let mingles = matches!(tag, b'Q' | b'F') && self.track.unsynced() && !self.track.copy_in;
        if !mingles || self.track.skipping() {
            return false;
        }
        if tag == b'F' {
            self.flush_due = self.track.unflushed;
            return !self.track.caught_up();
        }
        self.probe_due = !self.track.run_is_asked_for();
        !self.track.run_is_well()
    }

    /// In careful mode a group is judged whole, and only when nothing before it is unanswered.
    fn careful_turn(&self, rest: &[u8]) -> Option<Turn> {
        match extent(rest) {
            Err(e) => Some(Turn::Offence(e.to_string())),
            Ok(Extent::More) => None,
            Ok(Extent::Whole { .. } | Extent::Over) => {
                self.track.caught_up().then_some(Turn::Group)
            }
        }
    }

    /// A message inside a refused group.
    fn dropped(&mut self, rest: &[u8], tag: u8, total: usize) -> (usize, Option<Turn>) {
        if tag == b'S' {
            if rest.len() < total {
                return (0, None);
            }
            self.drop_to_sync = false;
            let status = self.client_status();
            super::message::ready(self.client.queue(), status);
            return (total, None);
        }
        let here = total.min(rest.len());
        self.drop_bytes = total - here;
        (here, None)
    }

    /// True while the gate admits without further ado; for logs and tests.
    pub(crate) fn plainly_open(&self) -> bool {
        self.look.phase == Phase::Open && !self.careful
    }
}

/// What a direction did in one go.
#[derive(Default)]
struct Pumped {
    moved: bool,
    turn: Option<Turn>,
}

impl Pumped {
    fn with(mut self, turn: Turn) -> Self {
        self.turn = Some(turn);
        self
    }
}

/// What becomes of a message from the server.
pub(crate) enum Seen {
    Relay,
    Swallow,
    Instead(Vec<u8>),
    Misjudged,
}

/// Messages of the server that are looked at; all others stream through.
fn is_inspected(tag: u8) -> bool {
    matches!(tag, b'Z' | b'C' | b'1' | b'E' | b'S' | b'G' | b'I' | b's')
}

/// Beyond its deadline. Without a fleet a permit has none, and then no clock is read.
fn is_over(permit: &Permit) -> bool {
    permit.deadline().is_some() && !permit.valid(tokio::time::Instant::now())
}

/// Messages that belong to a statement group.
fn is_group(tag: u8) -> bool {
    matches!(
        tag,
        b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' | b'F'
    )
}
