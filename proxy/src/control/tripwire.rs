//! The split-brain tripwire: a second side that takes writes, or that somebody wrote to.
//!
//! Looks only at what servers show. It sounds the alarm and opens or fences nothing: the gate sends
//! writes to the accepted primary alone, and shutting it would not stop who writes elsewhere.
//! Background work moves a server's log without any writer, and autovacuum takes transaction ids
//! too. So what counts as a write on a barred server is a transaction id that was given out, within
//! one life of that server, while or after a client was there.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;
use writefence_admin::audit::{Entry, Event};

use super::desk::Desk;
use super::former;
use super::line::OBSERVER;
use crate::shutdown::Shutdown;
use crate::upstream::{Observation, Region, Role, ServerSession, ServerTime, Survey};

/// Between two looks at what the probes found.
const STRIDE: Duration = Duration::from_millis(200);

/// What was found of a region that is not the primary in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// New transactions there may write.
    TakesWrites,
    /// It is barred, and transactions got ids there after it was first seen so.
    WrittenTo {
        /// Its next transaction id when it was first seen.
        from: u64,
        /// And now.
        to: u64,
    },
}

impl Alarm {
    /// For a tired person.
    pub(crate) fn sentence(&self, region: &str, primary: &Region) -> String {
        match self {
            Self::TakesWrites => format!(
                "SPLIT BRAIN: {region} takes writes and {primary} is the primary in force; stop \
                 {region}, or cut it off from its clients, before anything else"
            ),
            Self::WrittenTo { from, to } => format!(
                "SPLIT BRAIN: somebody wrote on {region}, which is not the primary in force: \
                 transactions {from} to {} there are not on {primary}; cut {region} off from its \
                 clients and save what they wrote",
                to.saturating_sub(1)
            ),
        }
    }
}

/// Where a barred server stood when it was first seen so, in one life of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    life: Option<ServerTime>,
    next_xid: u64,
    /// Sessions that had begun by then.
    begun: Option<u64>,
}

/// What a region's last probe amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Judged {
    /// Nothing is wrong.
    Quiet,
    /// It says nothing new: silence ends no alarm.
    Same,
    /// It takes writes.
    TakesWrites,
    /// Barred, and seen so for the first time in this life of it.
    Unmarked,
    /// Barred, and a transaction id was given out since.
    Moved(u64),
}

/// What the tripwire knows.
#[derive(Debug, Default)]
pub(crate) struct Tripwire(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    alarms: BTreeMap<String, Alarm>,
    marks: BTreeMap<String, Mark>,
    raised: u64,
}

impl Tripwire {
    /// What is wrong now, by region.
    pub(crate) fn alarms(&self) -> BTreeMap<String, Alarm> {
        self.state().alarms.clone()
    }

    /// How often an alarm was raised since the start.
    pub(crate) fn raised(&self) -> u64 {
        self.state().raised
    }

    /// What the probe of a region amounts to; `None`: it was not answered.
    fn judge(&self, region: &str, seen: Option<&Observation>) -> Judged {
        let mut state = self.state();
        let Some(seen) = seen else {
            return Judged::Same;
        };
        match (seen.role, seen.writable) {
            // Nobody tells, as where there is no database and no program: silence as well.
            (None, None) => return Judged::Same,
            (Some(Role::Standby), _) | (None, Some(false)) => {
                state.marks.remove(region);
                return Judged::Quiet;
            }
            (None | Some(Role::Primary), Some(true)) => return Judged::TakesWrites,
            (Some(Role::Primary), _) => {}
        }
        let Some(next) = seen.next_xid else {
            return Judged::Same;
        };
        match state.marks.get(region) {
            Some(mark) if mark.life == seen.unbroken_since => match next > mark.next_xid {
                true => Judged::Moved(next),
                false => Judged::Quiet,
            },
            // After a crash ids are given out again: another life, another mark.
            Some(_) | None => Judged::Unmarked,
        }
    }

    fn mark(&self, region: &str, seen: &Observation, begun: Option<u64>) {
        let Some(next_xid) = seen.next_xid else {
            return;
        };
        let life = seen.unbroken_since;
        let mark = Mark {
            life,
            next_xid,
            begun,
        };
        self.state().marks.insert(region.to_owned(), mark);
    }

    fn marked(&self, region: &str) -> Option<Mark> {
        self.state().marks.get(region).copied()
    }

    /// Keeps the alarm of a region; whether it is a new one.
    fn set(&self, region: &str, alarm: Alarm) -> bool {
        let mut state = self.state();
        let kind = std::mem::discriminant(&alarm);
        let before = state.alarms.insert(region.to_owned(), alarm);
        let is_new = before.is_none_or(|before| std::mem::discriminant(&before) != kind);
        state.raised += u64::from(is_new);
        is_new
    }

    fn quiet(&self, region: &str) {
        let mut state = self.state();
        // Somebody did write there: that is over only when the server rejoins or starts anew.
        if !matches!(state.alarms.get(region), Some(Alarm::WrittenTo { .. })) {
            state.alarms.remove(region);
        }
    }

    fn clear(&self, region: &str) {
        self.state().alarms.remove(region);
    }

    fn forget(&self, region: &str) {
        let mut state = self.state();
        state.alarms.remove(region);
        state.marks.remove(region);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change replaces whole values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a client that is not ours is there, or was since the mark. One that may not be looked at
/// counts.
fn was_visited(mark: &Mark, survey: &Survey) -> bool {
    let is_observer = |session: &&ServerSession| {
        let name = session.application.as_deref();
        name.is_some_and(|name| name.starts_with(OBSERVER))
    };
    let there = survey.sessions.iter().flatten().any(|s| !is_observer(&s));
    let came = match (mark.begun, survey.sessions_begun) {
        (Some(then), Some(now)) => now > then,
        (None, _) | (_, None) => false,
    };
    there || came
}

/// Looks until the end.
pub(crate) async fn watch(desk: &Arc<Desk>, mut stop: Shutdown) {
    while !stop.is_stopping() {
        // Both arms may be dropped: a sleep and a look at a flag.
        tokio::select! {
            () = sleep(STRIDE) => {}
            () = stop.stopping() => return,
        }
        for target in desk.group.targets.regions() {
            look(desk, &target.region).await;
            former::record(desk, &target.region).await;
        }
    }
}

async fn look(desk: &Desk, region: &Region) {
    let (wire, name) = (&desk.tripwire, region.as_str());
    let facts = desk.book.live();
    // Behind the point of no return the candidate becomes writable before it is in force.
    let promoting = facts.as_ref().and_then(|facts| facts.pnr.as_ref());
    let is_candidate = promoting.is_some_and(|pinned| pinned.region == name);
    if *region == desk.accepted() || is_candidate || !desk.actor.is_decided() {
        wire.forget(name);
        return;
    }
    // A probe from before the last change of the target says nothing about it.
    let seen = desk.servers.seen(region);
    let Some(seen) = seen.filter(|seen| seen.at >= desk.moved_at()) else {
        return;
    };
    match (wire.judge(name, seen.known()), seen.known()) {
        (Judged::Same, _) | (_, None) => {}
        (Judged::Quiet, Some(known)) if known.role != Some(Role::Primary) => wire.clear(name),
        (Judged::Quiet, Some(_)) => wire.quiet(name),
        (Judged::TakesWrites, Some(_)) => found(desk, region, Alarm::TakesWrites),
        (Judged::Unmarked, Some(known)) => {
            wire.clear(name);
            if let Ok(survey) = desk.servers.survey(region, &[]).await {
                wire.mark(name, known, survey.sessions_begun);
            }
        }
        (Judged::Moved(to), Some(known)) => {
            let Some(mark) = wire.marked(name) else {
                return;
            };
            let from = mark.next_xid;
            if let Some(Alarm::WrittenTo { .. }) = wire.alarms().get(name) {
                wire.set(name, Alarm::WrittenTo { from, to });
                return;
            }
            match desk.servers.survey(region, &[]).await {
                Ok(survey) if was_visited(&mark, &survey) => {
                    found(desk, region, Alarm::WrittenTo { from, to });
                }
                // Nobody was there: autovacuum.
                Ok(survey) => wire.mark(name, known, survey.sessions_begun),
                Err(_) => {}
            }
        }
    }
}

fn found(desk: &Desk, region: &Region, alarm: Alarm) {
    if desk.tripwire.set(region.as_str(), alarm.clone()) {
        raise(desk, region, &alarm);
    }
}

/// The one place where an alarm leaves for the log and for whoever else has to hear of it.
fn raise(desk: &Desk, region: &Region, alarm: &Alarm) {
    let text = alarm.sentence(region.as_str(), &desk.accepted());
    let epoch = desk.actor.epoch().value();
    tracing::error!(group = %desk.group.name, region = %region, epoch, "{text}");
    let trail = desk.book.trail();
    let mut entry = Entry::new(Event::SplitBrain, "alarm").fact("region", region);
    entry.group = Some(desk.group.name.clone());
    entry.epoch = Some(epoch);
    trail.append(entry.fact("what", text));
    trail.sync_soon();
}

#[cfg(test)]
mod tests {
    use super::super::tests::fake::{primary, standby};
    use super::*;

    fn barred(next: u64, life: i64) -> Observation {
        Observation {
            writable: Some(false),
            next_xid: Some(next),
            unbroken_since: Some(ServerTime::from_micros(life)),
            ..primary("a", 1)
        }
    }

    #[test]
    fn a_second_writable_side_is_told_of_once_and_again_only_after_its_end() {
        let wire = Tripwire::default();
        assert_eq!(wire.judge("a", Some(&primary("a", 1))), Judged::TakesWrites);
        assert!(wire.set("a", Alarm::TakesWrites) && !wire.set("a", Alarm::TakesWrites));
        assert_eq!(wire.judge("a", None), Judged::Same, "silence ends nothing");
        assert_eq!(wire.judge("a", Some(&standby("a", 2))), Judged::Quiet);
        wire.quiet("a");
        assert!(wire.alarms().is_empty() && wire.set("a", Alarm::TakesWrites));
        assert_eq!(wire.raised(), 2);
        // A program may tell of one and not of the other.
        let told = |writable| Observation {
            role: None,
            writable,
            ..primary("a", 1)
        };
        assert_eq!(
            wire.judge("a", Some(&told(Some(true)))),
            Judged::TakesWrites
        );
        assert_eq!(wire.judge("a", Some(&told(None))), Judged::Same);
        assert_eq!(wire.judge("a", Some(&told(Some(false)))), Judged::Quiet);
    }

    #[test]
    fn a_transaction_on_a_barred_server_is_noticed_within_one_life_of_it() {
        let wire = Tripwire::default();
        assert_eq!(wire.judge("a", Some(&barred(100, 1))), Judged::Unmarked);
        wire.mark("a", &barred(100, 1), Some(7));
        assert_eq!(wire.judge("a", Some(&barred(100, 1))), Judged::Quiet);
        assert_eq!(wire.judge("a", Some(&barred(102, 1))), Judged::Moved(102));
        let written = Alarm::WrittenTo { from: 100, to: 102 };
        let text = written.sentence("a", &Region::new("b"));
        assert!(text.contains("transactions 100 to 101"), "{text}");
        // It stays said until the server rejoins, …
        wire.set("a", written);
        wire.quiet("a");
        assert_eq!(wire.alarms().len(), 1);
        // … or begins another life, with a count of its own.
        assert_eq!(wire.judge("a", Some(&barred(150, 2))), Judged::Unmarked);
    }

    #[test]
    fn an_id_that_was_given_out_while_nobody_was_there_is_autovacuum() {
        let mark = Mark {
            life: None,
            next_xid: 1,
            begun: Some(7),
        };
        let session = |application: Option<&str>| ServerSession {
            application: application.map(str::to_owned),
            ..ServerSession::default()
        };
        let survey = |sessions, begun| Survey {
            sessions: Some(sessions),
            sessions_begun: Some(begun),
            ..Survey::default()
        };
        let ours = || session(Some("writefence observer 1f"));
        assert!(!was_visited(&mark, &survey(vec![ours()], 7)));
        assert!(was_visited(&mark, &survey(vec![ours(), session(None)], 7)));
        assert!(
            was_visited(&mark, &survey(vec![ours()], 8)),
            "it came and went"
        );
    }
}
