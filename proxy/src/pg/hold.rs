//! Writes that wait for the gate to open: parked, woken, expired, cancelled.

use std::time::Duration;

use tokio::time::Instant;

use super::careful::BEHIND;
use super::decide::After;
use super::frame::{head, put};
use super::message::Report;
use super::session::{End, Session};
use crate::gate::{Answer, End as HoldEnd, Lane, Phase, Refusal};
use crate::sessions::SessionState;

impl Session {
    /// Parks the group at the front of the inbox.
    pub(crate) async fn hold(&mut self, bytes: usize) -> Result<(), End> {
        self.rejoin();
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
    pub(crate) fn pass_admitted(&mut self) {
        if self.permit.is_some() {
            self.pass(After::default());
        }
    }

    /// Its time in the waiting room is over.
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
        self.rejoin();
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
}
