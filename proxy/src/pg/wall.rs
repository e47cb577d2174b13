//! Wall two: while fenced, PostgreSQL itself refuses what was misjudged.
//!
//! Each session's `default_transaction_read_only` is set to on by us when the session is quiet, and
//! lowered when the gate opens. Towards the client the variable is virtual: our value is never
//! shown. What the client sets meanwhile is set, learned, and covered by raising the wall again
//! before anything else is sent; it is given back when the wall comes down.
//! The wall is raised by SET and not as a startup option: what a RESET would restore stays the
//! client's own.

use std::future::poll_fn;
use std::task::Poll;

use super::decide::REFUSED;
use super::frame::head;
use super::kept::Wrap;
use super::message::{body, own, parameter_of, report_field};
use super::relay::Seen;
use super::session::{End, GIVEN_UP, Session};
use super::track::Tx;
use super::wrap::tells_write;
use crate::gate::Phase;
use crate::sessions::WallState;

/// The variable behind the wall.
pub(crate) const NAME: &str = "default_transaction_read_only";
const RAISE: &str = "SET default_transaction_read_only = on";

/// Attempts to raise the wall: one may be hit by a cancel that was meant for the statement before.
const RAISES: usize = 3;

/// Whether the wall stands in a session, and what its client believes.
#[derive(Debug)]
pub(crate) struct Wall {
    up: bool,
    /// What the client was last told of the variable.
    told: String,
}

impl Default for Wall {
    fn default() -> Self {
        Self {
            up: false,
            told: "off".into(),
        }
    }
}

impl Wall {
    /// It stands.
    pub(crate) fn stands(&self) -> bool {
        self.up
    }

    /// What the client believes the variable to be.
    pub(crate) fn told(&self) -> &str {
        &self.told
    }

    /// The value at login, before anything of ours.
    pub(crate) fn tell(&mut self, value: &str) {
        value.clone_into(&mut self.told);
    }

    /// On another server, where nothing was set by us.
    pub(crate) fn gone(&mut self) {
        self.up = false;
    }
}

impl Session {
    /// Something has to be put right and the server is free for it.
    pub(crate) fn chores_due(&self) -> bool {
        if self.client_gone {
            return self.permit.is_none();
        }
        // Nothing of ours may be hit by a cancel that is on its way, but for the wall, which is raised
        // again then: a server that does not close the cancel's connection keeps no session without.
        if self.cancelling.is_some() {
            return self.bare_at_rest();
        }
        if self.stock_due() || self.undo_due() {
            return true;
        }
        let Some(_) = &self.server else { return false };
        if !self.careful || !self.track.answered() || self.passing {
            return false;
        }
        if let Wrap::ToEnd(_) = self.kept.wrap {
            return true;
        }
        let fenced = self.look.phase != Phase::Open;
        match self.track.tx {
            Tx::Idle if fenced => !self.wall.up || self.kept.after.rewall,
            Tx::Idle if self.stale() => self.ready_to_move() || self.pinned(),
            Tx::Idle => !self.look.releasing && (self.wall.up || self.sealed),
            Tx::Open => {
                let due = self.grace_over || self.fresh() || self.track.reads_to_its_end();
                (self.sealed && self.kept.after.reseal)
                    || ((fenced || self.stale()) && !self.sealed && due)
            }
            Tx::Failed => fenced && !self.sealed && self.track.is_undone(),
        }
    }

    /// Fenced, with nothing in flight and no transaction, and PostgreSQL would let it write.
    fn bare_at_rest(&self) -> bool {
        let free = self.careful && self.server.is_some() && self.track.answered() && !self.passing;
        let fenced = self.look.phase != Phase::Open;
        free && fenced
            && self.track.tx == Tx::Idle
            && self.kept.wrap == Wrap::None
            && (!self.wall.up || self.kept.after.rewall)
    }

    /// Puts right what is due.
    pub(crate) async fn chores(&mut self) -> Result<(), End> {
        while self.chores_due() {
            if self.client_gone {
                return Err(End::ClientGone);
            }
            if self.cancelling.is_some() {
                self.raise().await?;
                continue;
            }
            if self.undo_due() {
                self.undo_now().await?;
                continue;
            }
            if let Wrap::ToEnd(status) = self.kept.wrap {
                self.unwrap(status).await?;
                continue;
            }
            let fenced = self.look.phase != Phase::Open;
            match self.track.tx {
                Tx::Idle if self.stock_due() => {
                    self.take_stock().await?;
                    self.log_in_ahead();
                }
                Tx::Idle if fenced => self.raise().await?,
                Tx::Idle if self.stale() => self.get_to_target().await?,
                Tx::Idle => self.lower().await?,
                Tx::Open if !self.sealed && self.fresh() => self.seal_fresh().await?,
                Tx::Open => self.seal().await?,
                Tx::Failed => self.let_failed_go(),
            }
        }
        self.recheck();
        Ok(())
    }

    /// The open transaction has failed and nothing of it is left: it needs no permit, and nothing but
    /// its end comes behind it. A client may stay in it for as long as it likes.
    fn let_failed_go(&mut self) {
        self.sealed = true;
        self.handle.set_wall(WallState::Reading);
        self.release();
    }

    /// The open transaction is younger than the fence: what an AND CHAIN began, or what no permit
    /// was taken for.
    fn fresh(&self) -> bool {
        self.kept.after.chained || self.permit.is_none()
    }

    async fn raise(&mut self) -> Result<(), End> {
        let mut message = Vec::new();
        own(&mut message, RAISE);
        let mut why = String::from("it does not stay read-only");
        for _ in 0..RAISES {
            self.kept.after.rewall = false;
            // Before the question is sent: its own ParameterStatus is not the client's to see.
            self.wall.up = true;
            let Some(answer) = self.question(&message, 1).await? else {
                return Ok(());
            };
            let said = self.server.as_ref().and_then(|s| s.param(NAME));
            match answer.error {
                None if said.is_none_or(|value| value == "on") => {
                    self.handle.set_wall(WallState::Standing);
                    return Ok(());
                }
                None => {}
                Some((_, error)) => why = error,
            }
        }
        // A session without the wall must not be served; another login is.
        self.on_server_gone(&format!("it could not be made read-only: {why}"))
            .await
    }

    /// Gives the session back what its client set, on the server it is on.
    pub(crate) async fn lower(&mut self) -> Result<(), End> {
        self.sealed = false;
        self.handle.set_wall(WallState::Down);
        if !self.wall.up {
            return Ok(());
        }
        let mut message = Vec::new();
        let names = [NAME, "session characteristics"];
        own(&mut message, &format!("RESET {NAME}"));
        let mut readies = 1;
        for text in self.track.sets.texts_of(&names) {
            own(&mut message, text);
            readies += 1;
        }
        self.ask_server(&message, readies).await?;
        self.wall.up = false;
        let mut news = Vec::new();
        self.learn_own(&mut news);
        self.client.queue().extend_from_slice(&news);
        Ok(())
    }

    /// Makes the open transaction read-only on the server. One that has not written so far needs
    /// no permit any more; one that has keeps it until its end.
    async fn seal(&mut self) -> Result<(), End> {
        let mut message = Vec::new();
        // The second statement takes a snapshot, after which PostgreSQL lets nothing make the
        // transaction read-write again but going back to a savepoint.
        own(&mut message, "SET LOCAL transaction_read_only = on");
        own(
            &mut message,
            "SELECT pg_catalog.pg_current_xact_id_if_assigned()::text",
        );
        self.kept.after.reseal = false;
        let Some(answer) = self.question(&message, 2).await? else {
            return Ok(());
        };
        self.sealed = true;
        self.track.tx = Tx::of(answer.status);
        if answer.error.is_none() {
            self.xid = super::xid::Xid::read(answer.rows.first());
        }
        let wrote = !answer.rows.first().is_some_and(Option::is_none) || self.track.notifies();
        if answer.error.is_none() {
            self.handle.set_wall(WallState::Reading);
            if !wrote {
                self.release();
            }
        }
        self.recheck();
        Ok(())
    }

    /// Makes a transaction that has just begun read-only on the server, without taking a snapshot,
    /// after which its isolation level could not be chosen. It has written nothing: the permit of
    /// the transaction before it ends.
    async fn seal_fresh(&mut self) -> Result<(), End> {
        let mut message = Vec::new();
        own(&mut message, "SET TRANSACTION READ ONLY");
        own(&mut message, "SHOW transaction_read_only");
        self.kept.after.chained = false;
        let Some(answer) = self.question(&message, 2).await? else {
            return Ok(());
        };
        self.sealed = true;
        self.track.tx = Tx::of(answer.status);
        let shut = answer
            .rows
            .first()
            .is_some_and(|on| on.as_deref() == Some("on"));
        if self.track.tx == Tx::Open && !shut {
            self.fail_transaction().await?;
        }
        if self.server.is_some() {
            self.handle.set_wall(WallState::Reading);
        }
        self.release();
        self.recheck();
        Ok(())
    }

    /// Asks the server something of our own; returns the transaction status. A server that is lost
    /// meanwhile is dealt with as such.
    pub(crate) async fn ask_server(&mut self, messages: &[u8], readies: usize) -> Result<u8, End> {
        Ok(self
            .question(messages, readies)
            .await?
            .map_or(b'I', |a| a.status))
    }

    pub(crate) async fn question(
        &mut self,
        messages: &[u8],
        readies: usize,
    ) -> Result<Option<super::server::Answer>, End> {
        let timeout = self.group.settings.load().login_timeout;
        let Some(server) = &mut self.server else {
            return Ok(None);
        };
        // A server that is given up is not waited for: its session is wanted elsewhere.
        let (targets, serial) = (&self.group.targets, server.target.serial);
        let permitted = self.permit.is_some();
        let given_up = poll_fn(|cx| {
            self.handle.register(cx.waker());
            let stale = targets.serial() != serial;
            match self.handle.must_give_up(permitted, stale) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        let answer = tokio::select! {
            answer = tokio::time::timeout(timeout, server.ask(messages, readies)) => answer,
            () = given_up => {
                // Not to be heard again where the session is then.
                self.handle.take_give_up(false, false);
                self.on_server_gone(GIVEN_UP).await?;
                return Ok(None);
            }
        };
        self.answered_us(answer).await
    }

    /// Closes the client's run with a Sync of ours; what the server still owed for it goes on to the
    /// client, but the end of it. Returns the transaction status.
    pub(crate) async fn sync_run(&mut self) -> Result<u8, End> {
        let timeout = self.group.settings.load().login_timeout;
        let Some(server) = &mut self.server else {
            return Ok(b'I');
        };
        let answer = tokio::time::timeout(timeout, server.sync()).await;
        Ok(self.answered_us(answer).await?.map_or(b'I', |a| a.status))
    }

    async fn answered_us(
        &mut self,
        answer: Result<std::io::Result<super::server::Answer>, tokio::time::error::Elapsed>,
    ) -> Result<Option<super::server::Answer>, End> {
        let answer = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(e)) => {
                self.on_server_gone(&e.to_string()).await?;
                return Ok(None);
            }
            Err(_) => {
                self.on_server_gone("it did not answer in time").await?;
                return Ok(None);
            }
        };
        self.pass_on(&answer.others);
        if let Some((sqlstate, message)) = &answer.error {
            tracing::debug!(
                session = self.handle.id(),
                sqlstate,
                message,
                "a statement of our own failed"
            );
        }
        Ok(Some(answer))
    }

    /// Relays what came between answers of ours: notices, notifications, parameters.
    fn pass_on(&mut self, frames: &[u8]) {
        let mut at = 0;
        while let Ok(Some(h)) = head(frames.get(at..).unwrap_or_default()) {
            let frame = frames.get(at..at + h.total).unwrap_or_default();
            if h.tag != b'S' || matches!(self.see_parameter(frame), Seen::Relay) {
                self.client.queue().extend_from_slice(frame);
            }
            at += h.total;
        }
    }

    /// A ParameterStatus came.
    pub(crate) fn see_parameter(&mut self, frame: &[u8]) -> Seen {
        let Some((name, value)) = parameter_of(body(frame)) else {
            return Seen::Relay;
        };
        if let Some(server) = &mut self.server {
            server.note(name, value);
            self.track.reported = server.reading();
        }
        if name == "in_hot_standby" {
            return Seen::Swallow;
        }
        if name != NAME {
            return Seen::Relay;
        }
        if self.wall.up {
            // Something inside a statement lowered the wall: it is raised again before anything
            // else is sent. The statement's own transaction is read-only all the same.
            self.kept.after.rewall |= value == "off";
            return Seen::Swallow;
        }
        if self.look.phase != Phase::Open || self.stale() {
            // The barrier's reload, seen by what still runs there: reads go on behind an opening too.
            return Seen::Swallow;
        }
        value.clone_into(&mut self.wall.told);
        Seen::Relay
    }

    /// An ErrorResponse came.
    pub(crate) fn see_error(&mut self, frame: &[u8]) -> Seen {
        self.track.failed();
        let severity = report_field(body(frame), b'V').unwrap_or_default();
        if matches!(severity, b"FATAL" | b"PANIC") {
            // The session may outlive its server: what the client is told is decided at its end.
            self.last_words = Some(frame.to_vec());
            return Seen::Swallow;
        }
        let text =
            |code| String::from_utf8_lossy(report_field(body(frame), code).unwrap_or_default());
        if let Some(why) = self.kept.planted
            && text(b'M').contains(REFUSED)
        {
            return self.refusal(why);
        }
        if !tells_write(&text(b'C'), self.kept.wrap) {
            return Seen::Relay;
        }
        if self.kept.armed() && self.track.tx == Tx::Idle {
            self.kept.mark_misjudged();
            return Seen::Swallow;
        }
        if self.wall.up || self.sealed {
            return self.refusal("PostgreSQL found that it writes");
        }
        if self.plainly_open() {
            let totals = &self.group.sessions.totals;
            totals
                .unexpected_read_only
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Seen::Relay
    }

    fn refusal(&self, why: &str) -> Seen {
        let mut out = Vec::new();
        self.fence().write(why).error(&mut out);
        Seen::Instead(out)
    }
}
