//! The split-brain tripwire: a second side that takes writes, or that somebody wrote to.
//!
//! Looks only at what the probes show. It sounds the alarm and opens or fences nothing: the gate
//! sends writes to the accepted primary alone, and shutting it would not stop who writes elsewhere.
//! Background work moves a server's log without any writer, so what counts as a write on a barred
//! server is its next transaction id, within one life of that server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::desk::Desk;
use crate::shutdown::Shutdown;
use crate::upstream::{Observation, Region, Role, ServerTime};

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
type Mark = (Option<ServerTime>, u64);

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

    /// Takes in what a region shows; the alarm to raise, if it is a new one.
    fn see(&self, region: &str, seen: Option<&Observation>) -> Option<Alarm> {
        let mut state = self.state();
        let now = state.judge(region, seen);
        match now {
            None => {
                state.alarms.remove(region);
                None
            }
            Some(alarm) => {
                let before = state.alarms.insert(region.to_owned(), alarm.clone());
                let kind = std::mem::discriminant(&alarm);
                let is_new = before.is_none_or(|before| std::mem::discriminant(&before) != kind);
                state.raised += u64::from(is_new);
                is_new.then_some(alarm)
            }
        }
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

impl State {
    /// A server that does not answer keeps the alarm it has: silence is no sign of an end.
    fn judge(&mut self, region: &str, seen: Option<&Observation>) -> Option<Alarm> {
        let Some(seen) = seen else {
            return self.alarms.get(region).cloned();
        };
        if seen.role != Some(Role::Primary) {
            self.marks.remove(region);
            return None;
        }
        if seen.writable == Some(true) {
            return Some(Alarm::TakesWrites);
        }
        let next = seen.next_xid?;
        let mark = self
            .marks
            .entry(region.to_owned())
            .or_insert((seen.unbroken_since, next));
        if mark.0 != seen.unbroken_since {
            // After a crash ids are given out again: another life, another mark.
            *mark = (seen.unbroken_since, next);
        }
        let from = mark.1;
        (next > from).then_some(Alarm::WrittenTo { from, to: next })
    }
}

/// Looks until the end.
pub(crate) async fn watch(desk: &Arc<Desk>, mut stop: Shutdown) {
    while !stop.is_stopping() {
        // Both arms may be dropped: a sleep and a look at a flag.
        tokio::select! {
            () = sleep(STRIDE) => {}
            () = stop.stopping() => return,
        }
        look(desk);
    }
}

fn look(desk: &Desk) {
    let accepted = desk.accepted();
    let facts = desk.book.live();
    // Behind the point of no return the candidate becomes writable before it is in force.
    let promoting = facts.as_ref().and_then(|facts| facts.pnr.as_ref());
    for target in desk.group.targets.regions() {
        let region = &target.region;
        let is_candidate = promoting.is_some_and(|pinned| pinned.region == region.as_str());
        if *region == accepted || is_candidate || !desk.actor.is_decided() {
            desk.tripwire.forget(region.as_str());
            continue;
        }
        let Some(seen) = desk.servers.seen(region) else {
            continue;
        };
        // A probe from before the last change of the target says nothing about it.
        if seen.at < desk.moved_at() {
            continue;
        }
        if let Some(alarm) = desk.tripwire.see(region.as_str(), seen.known()) {
            raise(desk, region, &alarm);
        }
    }
}

/// The one place where an alarm leaves for the log and for whoever else has to hear of it.
fn raise(desk: &Desk, region: &Region, alarm: &Alarm) {
    let text = alarm.sentence(region.as_str(), &desk.accepted());
    let epoch = desk.actor.epoch().value();
    tracing::error!(group = %desk.group.name, region = %region, epoch, "{text}");
}

#[cfg(test)]
mod tests {
    use super::super::tests::fake::primary;
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
        let open = primary("a", 1);
        assert_eq!(wire.see("a", Some(&open)), Some(Alarm::TakesWrites));
        assert_eq!(wire.see("a", Some(&open)), None);
        // Silence ends nothing.
        assert_eq!(wire.see("a", None), None);
        assert_eq!(wire.alarms().len(), 1);
        wire.see("a", Some(&super::super::tests::fake::standby("a", 2)));
        assert!(wire.alarms().is_empty());
        assert_eq!(wire.see("a", Some(&open)), Some(Alarm::TakesWrites));
        assert_eq!(wire.raised(), 2);
    }

    #[test]
    fn a_transaction_on_a_barred_server_is_noticed_within_one_life_of_it() {
        let wire = Tripwire::default();
        assert_eq!(wire.see("a", Some(&barred(100, 1))), None);
        assert_eq!(wire.see("a", Some(&barred(100, 1))), None);
        let written = Alarm::WrittenTo { from: 100, to: 102 };
        assert_eq!(wire.see("a", Some(&barred(102, 1))), Some(written.clone()));
        let text = written.sentence("a", &Region::new("b"));
        assert!(text.contains("transactions 100 to 101"), "{text}");
        // Another life begins with its own count.
        assert_eq!(wire.see("a", Some(&barred(150, 2))), None);
        assert!(wire.alarms().is_empty());
    }
}
