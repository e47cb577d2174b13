//! Moving a session to another server without closing the client's connection.
//!
//! Its login there is made ahead of the promotion, while the candidate is still a hot standby, so
//! that at open only what a standby does not allow (LISTEN) and what has changed since is left.
//! What cannot be replayed pins the session; only such sessions are ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::classify::{Kind, Verdict, judge, rule};
use super::frame::put;
use super::message::{Report, parameter, query};
use super::refuse;
use super::replay::{MoveError, Ready, State, VIRTUAL, prepare, replay};
use super::server::Server;
use super::session::{End, Session};
use super::track::Prepared;
use crate::gate::{Lane, Phase};
use crate::group::Group;
use crate::sessions::{SessionState, WallState};
use crate::upstream::Region;

/// Waits between attempts to reach a target: short at first, since a promotion takes milliseconds.
const RETRY: [u64; 6] = [5, 10, 25, 50, 100, 250];

/// How long the login that was left is kept: the end of a backend takes a server's machine about a
/// millisecond, and where all sessions move at once, held writes wait for that long.
const PARTING: Duration = Duration::from_millis(100);

/// Ends a login that was left, a moment later.
fn part_from(group: Arc<Group>, mut old: Server) {
    tokio::spawn(async move {
        tokio::time::sleep(PARTING).await;
        old.leg.farewell();
        let region = old.target.region.as_str();
        group.logins.closed(region, old.pid);
    });
}

impl Session {
    fn state(&self) -> State {
        let version = self
            .track
            .sets
            .version
            .wrapping_add(self.track.statements.version());
        State {
            version,
            defaults: self.track.defaults(),
            sets: self.track.sets.replay().map(str::to_owned).collect(),
            values: self.told_parameters().to_vec(),
            statements: self.track.statements.named().cloned().collect(),
            unnamed: self.track.statements.unnamed().cloned(),
            warm: Vec::new(),
            sql: self.track.statements.sql.values().cloned().collect(),
        }
    }

    /// Parameters as the client was last told them, also while there is no server.
    fn told_parameters(&self) -> &[(String, String)] {
        self.server.as_ref().map_or(&*self.told, |s| &*s.params)
    }

    /// Texts that can be explained: single statements that read or write rows.
    fn warm(&self) -> Vec<String> {
        let plain = |text: &&[u8]| {
            let judged = judge(text, self.track.reported, &self.eyes);
            let [statement] = judged.statements.as_slice() else {
                return false;
            };
            let rows = statement.verdict == Verdict::Read || statement.rule == rule::DML;
            rows && statement.kind == Kind::Other
        };
        let texts = self.track.recent().into_iter().filter(plain);
        texts
            .map(|t| String::from_utf8_lossy(t).into_owned())
            .collect()
    }

    /// A login on the accepted target is ready to be taken.
    pub(crate) fn ready_to_move(&self) -> bool {
        let serial = self.group.targets.serial();
        self.ready
            .as_ref()
            .is_some_and(|r| r.server.target.serial == serial)
    }

    /// Starts a login on the target that this session will need: the candidate while there is one,
    /// else the accepted target where the session is still elsewhere.
    pub(crate) fn log_in_ahead(&mut self) {
        let targets = &self.group.targets;
        let wanted = targets.candidate().unwrap_or_else(|| targets.accepted());
        let have = |s: &Server| s.target.serial == wanted.serial;
        if self.ready.as_ref().is_some_and(|r| !have(&r.server)) {
            self.drop_ready();
        }
        let at_hand = self.server.as_ref().is_some_and(have) || self.ready.is_some();
        // What it has is asked first: replayed twice, it would cost more than it saves.
        let unasked = self.stock_wanted && self.server.is_some();
        if at_hand || unasked || self.ahead.is_some() || self.pinned() {
            return;
        }
        self.ahead = Some(tokio::spawn(prepare(
            Arc::clone(&self.group),
            wanted,
            Arc::clone(&self.who),
            State {
                warm: self.warm(),
                ..self.state()
            },
            self.parked.is_none(),
        )));
    }

    fn drop_ready(&mut self) {
        if let Some(mut ready) = self.ready.take() {
            ready.server.leg.farewell();
            self.group
                .logins
                .closed(ready.server.target.region.as_str(), ready.server.pid);
            self.handle.set_ahead(None, 0);
        }
    }

    /// Puts the session on the accepted target, with the wall down. Afterwards either the server is
    /// the target, or the client has been refused and there is no server.
    pub(crate) async fn get_to_target(&mut self) -> Result<(), End> {
        if self.server.is_some() && !self.stale() {
            return self.lower().await;
        }
        self.take_stock().await?;
        let region = self.group.targets.accepted().region.clone();
        if let Some(pin) = self.pins().first() {
            return Err(self.unmovable(&region, &pin.reason));
        }
        self.handle.set_state(SessionState::Moving);
        let started = Instant::now();
        let mut attempt = 0;
        loop {
            let e = match self.ready_on_target().await {
                Ok(ready) => match self.swap(ready).await {
                    Ok(()) => {
                        let totals = &self.group.sessions.totals;
                        totals.moved_after(started.elapsed());
                        return Ok(());
                    }
                    Err(e) => e,
                },
                Err(e) => e,
            };
            if !e.passes() {
                return Err(self.unmovable(&region, &e.chain()));
            }
            let waited = started.elapsed();
            let look = self.group.gate.look(Lane::Sql);
            let fenced = look.phase != Phase::Open && self.permit.is_none();
            if waited >= self.group.settings.load().reach_timeout || fenced {
                let report = refuse::unreachable(region.as_str(), waited, &e.chain());
                return self.without_server(&report).await;
            }
            let pause = RETRY.get(attempt).or(RETRY.last()).copied().unwrap_or(250);
            attempt += 1;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    fn unmovable(&self, region: &Region, reason: &str) -> End {
        let (id, user) = (self.handle.id(), self.handle.user());
        tracing::info!(session = id, user, %region, reason, "a session ends: it cannot be moved");
        self.group
            .sessions
            .totals
            .ended_unmovable
            .fetch_add(1, Ordering::Relaxed);
        let waiting = !self.client.inbox.is_empty();
        // Without a server, it may have been restarted where it is.
        let moved = self.server.is_some();
        End::told(refuse::unmovable(region.as_str(), moved, reason, waiting))
    }

    async fn without_server(&mut self, report: &Report) -> Result<(), End> {
        self.drop_server();
        self.release();
        self.refuse_group(report).await
    }

    async fn ready_on_target(&mut self) -> Result<Ready, MoveError> {
        let accepted = self.group.targets.accepted();
        if let Some(ahead) = self.ahead.take() {
            // It may be for this target or for another; if it is not done soon, a login of our own
            // is quicker than its turn.
            let soon = Duration::from_millis(20);
            let abort = ahead.abort_handle();
            match tokio::time::timeout(soon, ahead).await {
                Ok(Ok(Ok(ready))) => {
                    self.drop_ready();
                    self.ready = Some(Box::new(ready));
                }
                Ok(_) => {}
                Err(_) => abort.abort(),
            }
        }
        if self.ready_to_move()
            && let Some(ready) = self.ready.take()
        {
            return Ok(*ready);
        }
        self.drop_ready();
        let (group, who) = (Arc::clone(&self.group), Arc::clone(&self.who));
        prepare(group, accepted, who, self.state(), false).await
    }

    /// Takes over a ready login and lets go of the old one.
    async fn swap(&mut self, mut ready: Ready) -> Result<(), MoveError> {
        ready.server.leg.check_alive().await?;
        let now = self.state();
        let mut unnamed = ready.unnamed.take();
        if ready.version != Some(now.version) {
            unnamed = None;
            let mut discard = Vec::new();
            query(&mut discard, "DISCARD ALL");
            ready.server.ask(&discard, 1).await?;
            replay(&mut ready.server, &now).await?;
        }
        self.finish_replay(&mut ready.server, unnamed).await?;
        let old = self.server.replace(ready.server);
        self.wall.gone();
        self.sealed = false;
        self.temporaries_asked = None;
        self.eyes.policy.temporaries = false;
        self.handle.set_wall(WallState::Down);
        self.handle.set_ahead(None, 0);
        self.handle.set_close_needed(false);
        // A wish that the old server be given up is about that one.
        self.handle.take_give_up(false, false);
        self.last_words = None;
        self.track.moved();
        self.refused = None;
        let Some(new) = &self.server else {
            return Ok(());
        };
        self.handle
            .set_backend(Some((new.target.region.clone(), new.pid)));
        drop(ready.under_way);
        self.track.reported = new.reading();
        let lost = std::mem::take(&mut self.told);
        let told = old.as_ref().map_or(&*lost, |o| &*o.params);
        for (name, value) in new.params.iter() {
            let known = told.iter().any(|(n, v)| n == name && v == value);
            if !known && !VIRTUAL.contains(&name.as_str()) {
                parameter(self.client.queue(), name, value);
            }
        }
        if let Some(old) = old {
            part_from(Arc::clone(&self.group), old);
            self.group
                .sessions
                .totals
                .moved
                .fetch_add(1, Ordering::Relaxed);
        }
        self.recheck();
        Ok(())
    }

    /// What only a primary allows, or what belongs to the last moment.
    async fn finish_replay(
        &mut self,
        server: &mut Server,
        replayed: Option<Arc<Prepared>>,
    ) -> Result<(), MoveError> {
        let mut messages = Vec::new();
        let listens = self.track.sets.listens.len();
        for channel in &self.track.sets.listens {
            let quoted = channel.replace('"', "\"\"");
            query(&mut messages, &format!("LISTEN \"{quoted}\""));
        }
        if listens > 0
            && let Some((sqlstate, message)) = server.ask(&messages, listens).await?.error
        {
            return Err(MoveError::Replay { sqlstate, message });
        }
        let unnamed = self.track.statements.unnamed().and_then(|p| p.frame());
        // Parsed ahead already, and no simple query in between has destroyed it.
        let there = listens == 0 && replayed.as_ref().and_then(|p| p.frame()) == unnamed;
        if let Some(frame) = unnamed.filter(|_| !there) {
            let mut parse = frame.to_vec();
            put(&mut parse, b'S', &[]);
            // As with the named ones: what cannot be prepared any more could not be executed either.
            server.ask(&parse, 1).await?;
        }
        if listens > 0 {
            let notice = Report {
                severity: "NOTICE",
                sqlstate: "00000".into(),
                message: "the session has moved to another server; notifications sent meanwhile may be missing".into(),
                detail: Some(format!("LISTEN was repeated on region \"{}\".", server.target.region)),
                hint: None,
            };
            notice.notice(self.client.queue());
        }
        Ok(())
    }

    /// There is no server and a read waits: any server of the group will do that answers, the
    /// candidate first, since it is what the session moves to. False: the client was refused.
    pub(crate) async fn reach_for_read(&mut self) -> Result<bool, End> {
        let started = Instant::now();
        let accepted = self.group.targets.accepted();
        if self.ready.is_none() {
            self.log_in_ahead();
            if let Some(ahead) = self.ahead.take()
                && let Ok(Ok(ready)) = ahead.await
            {
                self.ready = Some(Box::new(ready));
            }
        }
        let made = match self.ready.take() {
            Some(ready) => Ok(*ready),
            None => {
                let (group, who) = (Arc::clone(&self.group), Arc::clone(&self.who));
                prepare(group, Arc::clone(&accepted), who, self.state(), false).await
            }
        };
        let result = match made {
            Ok(ready) => self.swap(ready).await,
            Err(e) => Err(e),
        };
        match result {
            Ok(()) => {
                let totals = &self.group.sessions.totals;
                totals.moved_after(started.elapsed());
                self.chores().await?;
                Ok(self.server.is_some())
            }
            Err(e) => {
                let report =
                    refuse::unreachable(accepted.region.as_str(), Duration::ZERO, &e.chain());
                self.refuse_group(&report).await?;
                Ok(false)
            }
        }
    }

    /// The gate is open, a group waits, and there is no server.
    pub(crate) async fn need_server(&mut self) -> Result<(), End> {
        self.get_to_target().await?;
        if self.permit.is_none() && self.server.is_some() {
            self.handle.set_state(SessionState::Idle);
        }
        Ok(())
    }
}
