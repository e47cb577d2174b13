//! A former primary that is seen again: what of its log nobody else has, and how it comes back.
//!
//! It is refused by its timeline until it follows the new primary; nothing here lets it in. What is
//! said rests on the probes and on the fork point that the new primary's history told.

use writefence_admin::api::DivergedLog;
use writefence_admin::runbook::Fact;

use super::desk::Desk;
use crate::upstream::{Identity, Lsn, Observation, Region, Role};

/// The part of a former primary's log that its successor does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Diverged {
    /// Where the successor left it.
    pub(crate) from: Lsn,
    /// Its end, as seen last.
    pub(crate) to: Lsn,
    /// Its timeline.
    pub(crate) timeline: u32,
}

impl Diverged {
    /// Of a server as it was seen; `None` where the successor's fork is not from its timeline, or
    /// something is not known.
    pub(crate) fn of(seen: &Observation, successor: Identity) -> Option<Self> {
        let timeline = seen.timeline?;
        let is_same_system = seen.system_identifier? == successor.system_identifier;
        // Timelines are numbered by one: only the direct successor's fork is known here.
        if !is_same_system || timeline.value() + 1 != successor.timeline.value() {
            return None;
        }
        let (from, to) = (successor.fork_lsn?, seen.lsn?);
        Some(Self {
            from,
            to: to.max(from),
            timeline: timeline.value(),
        })
    }

    /// Bytes of it.
    pub(crate) const fn bytes(&self) -> u64 {
        self.to.bytes_since(self.from)
    }

    /// For the journal and the report.
    pub(crate) fn document(&self, region: &Region, sight: Sight) -> DivergedLog {
        DivergedLog {
            region: region.to_string(),
            timeline: self.timeline,
            from_lsn: self.from.to_string(),
            to_lsn: self.to.to_string(),
            bytes: self.bytes(),
            seen_again: sight == Sight::Again,
        }
    }

    /// As a range, with the timeline it is on.
    pub(crate) fn range(&self) -> String {
        let Self { from, to, timeline } = self;
        format!(
            "{from} to {to} of timeline {timeline} ({} bytes)",
            self.bytes()
        )
    }
}

/// When the end of a former primary's log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Before it was lost: it may have written on.
    Before,
    /// When it was there again.
    Again,
}

/// Records what a failover lost, once the primary that it gave up is there again: only then its whole
/// log can be seen. Asked of each region at each look.
pub(crate) async fn record(desk: &Desk, region: &Region) {
    let Some(facts) = desk.book.facts() else {
        return;
    };
    // With a fence LSN everything acknowledged was waited for, and nothing is lost.
    let is_lossy = facts.promoted.is_some() && facts.fence_lsn.is_none();
    let is_known = facts.diverged.is_some_and(|log| log.seen_again);
    let is_its = facts.started.from.as_deref() == Some(region.as_str());
    let accepted = desk.group.targets.accepted();
    let moved = facts.to.as_deref() == Some(accepted.region.as_str());
    if !is_lossy || is_known || !is_its || !moved || !desk.actor.is_decided() {
        return;
    }
    let seen = desk.servers.seen(region);
    let seen = seen.filter(|seen| seen.at >= desk.moved_at());
    let primary = seen
        .as_ref()
        .and_then(|seen| seen.known())
        .filter(|known| known.role == Some(Role::Primary));
    let Some(found) = primary
        .zip(accepted.identity)
        .and_then(|(known, identity)| Diverged::of(known, identity))
    else {
        return;
    };
    let log = found.document(region, Sight::Again);
    if let Err(error) = desk.book.note(Fact::Diverged(log)).await {
        tracing::warn!(group = %desk.group.name, %error, "what was lost is not on record");
    }
}

/// The commands that bring a former primary back, with what only its operator knows in capitals.
/// Without the checkpoint pg_rewind may read the timeline from before the promotion and say that there
/// is nothing to do.
pub(crate) fn rewind(desk: &Desk, old: &Region, new: &Region) -> String {
    let source = desk.group.targets.region(new);
    let (host, port) = source.map_or_else(
        |_| ("HOST".to_owned(), "PORT".to_owned()),
        |target| {
            (
                target.endpoint.host.clone(),
                target.endpoint.port.to_string(),
            )
        },
    );
    format!(
        "CHECKPOINT on {new}, and on {old}, stopped: pg_rewind --target-pgdata=DATA_OF_{} --write-recovery-conf \
         --source-server='host={host} port={port} user=SUPERUSER dbname=postgres'; where it finds its log \
         recycled, --restore-target-wal with an archive, or a new base backup",
        old.as_str().to_ascii_uppercase()
    )
}

/// What operators have to know of each former primary that answers and has not rejoined.
pub(crate) fn notices(desk: &Desk) -> Vec<String> {
    let accepted = desk.group.targets.accepted();
    let Some(identity) = accepted.identity.filter(|_| desk.actor.is_decided()) else {
        return Vec::new();
    };
    let regions = desk.group.targets.regions();
    let others = regions.iter().filter(|t| t.region != accepted.region);
    others
        .filter_map(|target| {
            let seen = desk.servers.seen(&target.region)?;
            let known = seen.known()?;
            let is_former = known.role == Some(Role::Primary)
                && known.timeline.is_some_and(|t| t < identity.timeline);
            is_former.then(|| notice(desk, &target.region, known, identity))
        })
        .collect()
}

fn notice(desk: &Desk, region: &Region, seen: &Observation, successor: Identity) -> String {
    // The run waited for all that was acknowledged before its fence LSN.
    let facts = desk.book.facts();
    let is_complete = facts.is_some_and(|facts| {
        facts.started.from.as_deref() == Some(region.as_str())
            && facts.promoted.is_some()
            && facts.fence_lsn.is_some()
    });
    let what = match Diverged::of(seen, successor) {
        Some(diverged) if is_complete && diverged.bytes() > 0 => format!(
            "nothing acknowledged is missing there (its log from {} was written behind the barrier); \
             to bring it back,",
            diverged.range()
        ),
        Some(diverged) if diverged.bytes() == 0 => {
            "nothing of its log is missing there; to bring it back,".to_owned()
        }
        Some(diverged) => format!(
            "its log from {} is on no other server; save what is needed of it (pg_waldump), then",
            diverged.range()
        ),
        None => "what its log has that no other server has is not known; then".to_owned(),
    };
    format!(
        "{region} is a former primary and is refused until it follows {}: {what} {}",
        desk.accepted(),
        rewind(desk, region, &desk.accepted())
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::fake::primary;
    use super::*;
    use crate::upstream::Timeline;

    fn successor(timeline: u32) -> Identity {
        Identity {
            system_identifier: 42,
            timeline: Timeline::new(timeline).unwrap(),
            fork_lsn: Some(Lsn::new(600)),
        }
    }

    #[test]
    fn what_was_written_behind_the_fork_is_named() {
        let found = Diverged::of(&primary("a", 1), successor(2)).unwrap();
        assert_eq!(found.range(), "0/258 to 0/3E8 of timeline 1 (400 bytes)");
        // A promotion in between left another mark than the one that is known.
        assert_eq!(Diverged::of(&primary("a", 1), successor(3)), None);
    }
}
