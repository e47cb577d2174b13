//! The status document: from memory and the last probes, without waiting for anybody.

use writefence_admin::api::{
    FenceAnswer, GroupStatus, InFlight, LaneStatus, Lanes, Phase, RegionStatus, Role,
};

use super::actor::shown;
use super::desk::Desk;
use super::former;
use crate::clock;
use crate::gate::{self, Lane};
use crate::upstream::{self, Lsn, Target};

/// One group as it is now.
pub(crate) fn group(desk: &Desk) -> GroupStatus {
    let lanes = Lanes {
        http: lane(desk, Lane::Http),
        sql: lane(desk, Lane::Sql),
    };
    let fenced = desk.actor.is_fenced();
    let primary = desk.actor.is_decided().then(|| desk.accepted().to_string());
    GroupStatus {
        name: desk.group.name.clone(),
        phase: if fenced { Phase::Fenced } else { Phase::Open },
        answer: if fenced { lanes.sql.answer } else { None },
        epoch: desk.actor.epoch().value(),
        primary,
        lanes,
        in_flight: in_flight(desk),
        drain: desk
            .drains
            .last()
            .map(|draining| desk.drains.document(&draining)),
        regions: desk
            .group
            .targets
            .regions()
            .iter()
            .map(|t| region(desk, t))
            .collect(),
        replication: desk.group.sessions.replicating() as u64,
        run: desk.run(),
        notices: notices(desk),
    }
}

/// The counts of a group as they are now.
pub(crate) fn in_flight(desk: &Desk) -> InFlight {
    let counts = desk.group.sessions.counts();
    let requests = desk.group.requests.counts();
    let connections = desk.group.connections.counts();
    let held = desk.group.gate.counts();
    // A drain that has ended asked for them later than the last probe.
    let epoch = desk.actor.epoch();
    let drained = desk.drains.last().filter(|drain| drain.is_of(epoch));
    let accepted = desk.servers.seen(&desk.accepted());
    let prepared = drained
        .and_then(|drain| drain.prepared())
        .or_else(|| accepted.and_then(|seen| seen.known().and_then(|o| o.prepared.clone())));
    InFlight {
        executing: counts.executing + requests.executing + connections.executing,
        orphaned: counts.orphaned + requests.orphaned + connections.orphaned,
        open_transactions: counts.open_transactions,
        held: held.http.held_waiting + held.sql.held_waiting,
        unknown: desk.group.gate.unknown(),
        prepared_transactions: prepared.and_then(|list| u64::try_from(list.len()).ok()),
    }
}

/// Sentences an operator has to read first.
pub(crate) fn notices(desk: &Desk) -> Vec<String> {
    let primary = desk.accepted();
    let alarms = desk.tripwire.alarms();
    let alarms = alarms
        .iter()
        .map(|(region, alarm)| alarm.sentence(region, &primary));
    let mut all: Vec<String> = alarms.collect();
    all.extend(desk.notice.load().iter().cloned());
    all.extend(desk.leftover.notice());
    if let Some(why) = desk.group.unknown.broken() {
        all.push(format!(
            "the list of unknown outcomes cannot be written: {why}"
        ));
    }
    all.extend(former::notices(desk));
    if let Some(why) = desk.book.trail().broken() {
        all.push(format!(
            "the audit cannot be written, so writes would not be opened again: {why}"
        ));
    }
    all
}

fn lane(desk: &Desk, lane: Lane) -> LaneStatus {
    let look = desk.group.gate.look(lane);
    let answer: Option<FenceAnswer> = match look.phase {
        gate::Phase::Open => None,
        gate::Phase::Fenced(answer) => Some(shown(answer)),
    };
    LaneStatus {
        phase: if answer.is_some() {
            Phase::Fenced
        } else {
            Phase::Open
        },
        answer,
        in_flight: desk.group.gate.in_flight(lane),
    }
}

fn region(desk: &Desk, target: &Target) -> RegionStatus {
    let seen = desk.servers.seen(&target.region);
    let known = seen.as_ref().and_then(|s| s.known());
    let role = known.and_then(|o| o.role);
    RegionStatus {
        name: target.region.to_string(),
        address: target.endpoint.addresses().first().map(ToString::to_string),
        role: role.map(|role| match role {
            upstream::Role::Primary => Role::Primary,
            upstream::Role::Standby => Role::Standby,
        }),
        writable: known.and_then(|o| o.writable),
        system_identifier: known
            .and_then(|o| o.system_identifier)
            .map(|id| id.to_string()),
        timeline: known
            .and_then(|o| o.timeline)
            .map(upstream::Timeline::value),
        lsn: match role {
            Some(upstream::Role::Primary) => known.and_then(|o| o.insert_lsn),
            Some(upstream::Role::Standby) => known.and_then(|o| o.replay_lsn),
            None => None,
        }
        .map(|lsn| lsn.to_string()),
        lag_bytes: lag_bytes(desk, target),
        lag_seconds: lag_seconds(desk, target),
        reachable: seen.as_ref().map(|s| s.answer.is_ok()),
        last_probe_ms: seen.as_ref().map(|s| clock::ms_since(s.at)),
        problem: seen.as_ref().and_then(|s| s.answer.as_ref().err().cloned()),
    }
}

/// Bytes between the primary's end of the log and what a standby has replayed.
pub(crate) fn lag_bytes(desk: &Desk, target: &Target) -> Option<u64> {
    let own = desk.servers.seen(&target.region)?;
    let own = own.known()?;
    if own.role == Some(upstream::Role::Primary) {
        return Some(0);
    }
    let end = primary_end(desk)?;
    own.lag_bytes(end)
}

/// Seconds behind: 0 where everything is replayed, since an idle primary's last commit only grows
/// older.
pub(crate) fn lag_seconds(desk: &Desk, target: &Target) -> Option<f64> {
    let bytes = lag_bytes(desk, target)?;
    if bytes == 0 {
        return Some(0.0);
    }
    let own = desk.servers.seen(&target.region)?;
    own.known()?.replay_age.map(|age| age.as_secs_f64())
}

fn primary_end(desk: &Desk) -> Option<Lsn> {
    let accepted = desk.servers.seen(&desk.accepted())?;
    let known = accepted.known()?;
    (known.role == Some(upstream::Role::Primary))
        .then_some(known.lsn)
        .flatten()
}
