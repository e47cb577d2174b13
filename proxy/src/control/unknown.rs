//! Ends what is unknown by proof, and finds out what came of it.
//!
//! A write that lost its upstream blocks every drain until its backend is shown to be gone: then
//! nothing more can come of it, whatever came of it. Whether it was committed is a second question.
//! The server it ran on answers that for as long as it stays what it was; after a move the new
//! primary does, before anybody writes there. Each answer needs the transaction's id, and without
//! one the outcome stays unresolvable.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use writefence_admin::api::Timestamp;
use writefence_admin::audit::{Entry, Event};

use super::desk::Desk;
use super::servers::Under;
use crate::evidence::{Life, NextXid, WriteFate};
use crate::sessions::SessionState;
use crate::shutdown::Shutdown;
use crate::unknown::{UnknownWrite, Xid, outcome};
use crate::upstream::{Observation, Region};

/// Between two questions while something is unknown.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Taken off the age of a loss: the wall clock of the record and the backend's start are read on
/// different machines.
const CLOCKS: Duration = Duration::from_secs(2);

/// Between two looks as long as the primary was not seen.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// An orphan's server that has not answered for this long is asked for by another connection.
const SILENT: Duration = Duration::from_secs(1);

/// Asks the servers as long as something is unknown, and waits otherwise.
pub(crate) async fn watch(desk: &Desk, mut stop: Shutdown) {
    while !stop.is_stopping() {
        for target in desk.group.targets.regions() {
            settle(desk, &target.region).await;
            orphans(desk, &target.region).await;
        }
        // Both arms may be dropped: a sleep and a look at a flag.
        tokio::select! {
            () = sleep(ASK_EVERY) => {}
            () = stop.stopping() => {}
        }
    }
}

/// Looks at the accepted primary for what will be worth knowing when it is lost: the ids of our
/// transactions, and since when it has been running without a crash.
pub(crate) async fn sample(desk: &Desk, mut stop: Shutdown) {
    while !stop.is_stopping() {
        let region = desk.accepted();
        let seen = desk.servers.seen(&region);
        let mut wait = FIRST_LOOK;
        if let Some(seen) = seen.as_ref().and_then(|seen| seen.known()) {
            wait = desk.settings.load().interval;
            note_life(desk, &region, seen);
        }
        sample_xids(desk, &region).await;
        // Both arms may be dropped: a sleep and a look at a flag.
        tokio::select! {
            () = sleep(wait) => {}
            () = stop.stopping() => {}
        }
    }
}

/// Notes since when a server has been running without a crash: before the first write passes, too, for
/// an id is worth nothing without it.
pub(crate) fn note_life(desk: &Desk, region: &Region, seen: &Observation) {
    let since = seen.unbroken_since.map(|since| since.micros());
    desk.group
        .unknown
        .sighted
        .generation(region.as_str(), since);
}

async fn sample_xids(desk: &Desk, region: &Region) {
    // Counted before the server is asked: whoever ends a transaction meanwhile is told apart.
    let ended = desk.group.sessions.writing(region);
    let running = match ended.is_empty() {
        true => Vec::new(),
        // A server that does not answer now leaves nothing to be remembered by.
        false => desk.servers.running_xids(region).await.unwrap_or_default(),
    };
    let ours = running.into_iter().filter_map(|(pid, xid)| {
        let ended_before = *ended.get(&pid)?;
        Some((pid, Xid { xid, ended_before }))
    });
    let ours: HashMap<i32, Xid> = ours.collect();
    desk.group.unknown.sighted.xids(region.as_str(), ours);
}

/// Asks a region about the writes that were lost there.
pub(crate) async fn settle(desk: &Desk, region: &Region) {
    let ledger = &desk.group.unknown;
    // What an HTTP server or an opaque connection had shows in no list of backends: its end is for
    // evidence about the whole region, or for an operator, to tell.
    let of_region = |write: &UnknownWrite| {
        write.region == region.as_str() && write.request.is_none() && write.pid != 0
    };
    let lost: Vec<_> = ledger.open_ones().into_iter().filter(of_region).collect();
    if lost.is_empty() {
        return;
    }
    let asked = lost.iter().map(|write| (write.pid, age(write))).collect();
    // No answer, or one without the privilege to see everything, proves nothing.
    let Ok(alive) = desk.servers.alive(region, asked).await else {
        return;
    };
    let (running, gone): (Vec<_>, Vec<_>) = lost.into_iter().partition(|w| alive.contains(&w.pid));
    learn_from_running(desk, region, &running).await;
    for write in &gone {
        let Some(life) = life_of(write) else {
            end(desk, write, outcome::UNRESOLVABLE);
            continue;
        };
        let Some(xid) = write.xid else { continue };
        let fates = desk
            .servers
            .fates(region, Under::SameLife(life), vec![xid])
            .await;
        let found = match fates.as_deref() {
            Ok([fate]) => word(*fate),
            // It is no primary any more, or does not answer: its successor will be asked.
            Ok(_) | Err(_) => outcome::BACKEND_GONE,
        };
        if found != write.outcome {
            end(desk, write, found);
        }
    }
}

/// The life in which a write's id means something; `None` where that or the id is not known, and
/// then its outcome cannot be found out.
fn life_of(write: &UnknownWrite) -> Option<Life> {
    write.xid?;
    let (timeline, since) = (write.timeline?, write.generation?);
    Some(Life { timeline, since })
}

/// A backend that still runs a lost write shows its id.
async fn learn_from_running(desk: &Desk, region: &Region, running: &[UnknownWrite]) {
    let wanted = |write: &&UnknownWrite| write.xid.is_none() && write.single;
    if !running.iter().any(|write| wanted(&write)) {
        return;
    }
    let Ok(xids) = desk.servers.running_xids(region).await else {
        return;
    };
    for write in running.iter().filter(wanted) {
        if let Some((_, xid)) = xids.iter().find(|(pid, _)| *pid == write.pid) {
            desk.group.unknown.learn_xid(write.id, *xid);
        }
    }
}

/// A session whose client has left waits for its server's answer, which a dead connection never
/// brings. Once the backend is shown to be gone, so is the connection.
async fn orphans(desk: &Desk, region: &Region) {
    let sessions = desk.group.sessions.snapshot();
    let silent: Vec<_> = sessions
        .into_iter()
        .filter(|s| s.state == SessionState::Orphaned && s.permitted && s.since > SILENT)
        .filter_map(|s| match s.backend {
            Some((at, pid)) if at == *region => Some((s.id, pid)),
            Some(_) | None => None,
        })
        .collect();
    if silent.is_empty() {
        return;
    }
    let asked = silent.iter().map(|(_, pid)| (*pid, SILENT)).collect();
    let Ok(alive) = desk.servers.alive(region, asked).await else {
        return;
    };
    for (id, _) in silent.iter().filter(|(_, pid)| !alive.contains(pid)) {
        desk.group.sessions.give_up(*id);
    }
}

/// After evidence about the old primary: nothing can be committed there any more, so what is still
/// unknown ends. What came of it is asked of the promoted server, whose next id before anybody
/// wrote there is `next`; what it cannot tell is left to [`settle_after_open`].
pub(crate) async fn resolve_after(desk: &Desk, old: &Region, new: &Region, next: Option<NextXid>) {
    let ledger = &desk.group.unknown;
    let accepted = desk.group.targets.accepted();
    let timeline = accepted.identity.map(|identity| identity.timeline.value());
    let generation = ledger.sighted.generation_of(old.as_str());
    // Without a crash since, or its id may have been given out twice before the promotion.
    let same_life = |write: &UnknownWrite| {
        write.timeline == timeline && generation.is_none_or(|g| write.generation == Some(g))
    };
    // What was found committed on the old primary need not have arrived.
    let concerned = ledger.list().into_iter().filter(|write| {
        let committed = matches!(
            write.outcome.as_str(),
            outcome::COMMITTED | outcome::PREPARED
        );
        write.region == old.as_str() && (write.is_open() || committed && same_life(write))
    });
    let (askable, rest): (Vec<_>, Vec<_>) =
        concerned.partition(|w| w.xid.is_some() && life_of(w).is_some() && same_life(w));
    let xids: Vec<u64> = askable.iter().filter_map(|write| write.xid).collect();
    let fates = match next {
        Some(next) if !xids.is_empty() => {
            let asked = desk.servers.fates(new, Under::Successor(next), xids).await;
            asked.unwrap_or_else(|error| {
                tracing::warn!(group = %desk.group.name, %error, "lost writes were not looked up");
                Vec::new()
            })
        }
        Some(_) | None => Vec::new(),
    };
    for (n, write) in askable.iter().enumerate() {
        let found = fates
            .get(n)
            .map_or(outcome::BACKEND_GONE, |fate| word(*fate));
        end(desk, write, found);
    }
    for write in &rest {
        end(desk, write, outcome::BACKEND_GONE);
    }
}

/// A server promoted by others may have been written to since, so only what it never heard of can be
/// told: an id that it has not given out yet.
pub(crate) fn resolve_by_others(desk: &Desk, old: &Region, next: Option<NextXid>) {
    for write in desk.group.unknown.open_ones() {
        if write.region != old.as_str() {
            continue;
        }
        let beyond = write.xid.zip(next).is_some_and(|(x, n)| x >= n.value());
        let found = if beyond {
            outcome::LOST
        } else {
            outcome::UNRESOLVABLE
        };
        end(desk, &write, found);
    }
}

/// Once writes pass, transaction ids are given out anew and an old one may read as committed: what
/// was not resolved before stays unresolvable. Where writes go on on the same server nothing was
/// given out twice, and it goes on being asked.
pub(crate) fn settle_after_open(desk: &Desk) {
    let accepted = desk.group.targets.accepted();
    let timeline = accepted.identity.map(|identity| identity.timeline.value());
    for write in desk.group.unknown.open_ones() {
        let at_home = write.region == accepted.region.as_str() && write.timeline == timeline;
        if !at_home {
            end(desk, &write, outcome::UNRESOLVABLE);
        }
    }
}

/// Ends a write with what was found of it, and leaves a record: nobody was asked, and whoever has to
/// answer for that write must find what it was concluded from.
pub(crate) fn end(desk: &Desk, write: &UnknownWrite, found: &str) {
    if !desk.group.unknown.resolve(write.id, found) || write.outcome == found {
        return;
    }
    tracing::info!(group = %desk.group.name, write = write.id, xid = write.xid, found, "lost write");
    let trail = desk.book.trail();
    trail.append(entry(desk, write, found));
    trail.sync_soon();
}

/// A record about a write of unknown outcome.
pub(crate) fn entry(desk: &Desk, write: &UnknownWrite, outcome: &str) -> Entry {
    let mut entry = Entry::new(Event::Unknown, outcome)
        .fact("write", write.id)
        .fact("at", &write.at)
        .fact("region", &write.region)
        .fact("was", &write.outcome);
    entry.group = Some(desk.group.name.clone());
    entry.epoch = Some(desk.actor.epoch().value());
    entry.run = desk.book.live().map(|facts| facts.run);
    let further = [
        ("xid", write.xid.map(|xid| xid.to_string())),
        (
            "timeline",
            write.timeline.map(|timeline| timeline.to_string()),
        ),
        ("digest", write.digest.clone()),
        ("idempotency_key", write.idempotency_key.clone()),
    ];
    for (name, text) in further {
        if let Some(text) = text {
            entry = entry.fact(name, text);
        }
    }
    entry
}

const fn word(fate: WriteFate) -> &'static str {
    match fate {
        WriteFate::Committed => outcome::COMMITTED,
        WriteFate::Lost => outcome::LOST,
        WriteFate::Undecided => outcome::PREPARED,
        WriteFate::Unresolvable => outcome::UNRESOLVABLE,
    }
}

fn age(write: &UnknownWrite) -> Duration {
    let at: Option<Timestamp> =
        serde_json::from_value(serde_json::Value::String(write.at.clone())).ok();
    let since = at.and_then(|at| SystemTime::now().duration_since(at.as_system_time()).ok());
    since.unwrap_or_default().saturating_sub(CLOCKS)
}
