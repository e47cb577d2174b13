//! Which region may serve reads in place of the primary's own, told ahead of the need.
//!
//! A front must not wait for a probe when it finds the primary's region gone, so the answer is kept
//! ready: the standby that is least behind, if that is within `reads.max_lag`. How far behind is
//! told against the last end of the log that the primary showed; what it wrote after that look is
//! not known to anybody while it is away, and was written within one probe's interval.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::desk::Desk;
use crate::shutdown::Shutdown;
use crate::upstream::{Lsn, Observation, Region, Role};

/// Keeps the group's answer up to date.
pub(crate) async fn keep(desk: &Desk, mut stop: Shutdown) {
    while !stop.is_stopping() {
        let found = find(desk).map(Arc::new);
        desk.group.nearby.store(found);
        let interval = desk.settings.load().interval;
        // Both arms may be dropped: a sleep and a look at a flag.
        tokio::select! {
            () = sleep(interval) => {}
            () = stop.stopping() => {}
        }
    }
}

fn find(desk: &Desk) -> Option<Region> {
    let settings = desk.settings.load();
    if !settings.reads_elsewhere {
        return None;
    }
    let accepted = desk.accepted();
    let primary = desk.servers.seen(&accepted)?;
    let end = primary.last.as_ref().and_then(|seen| seen.lsn)?;
    let others = desk.group.targets.regions().iter();
    let others = others.filter(|target| target.region != accepted);
    let behind = others.filter_map(|target| {
        let seen = desk.servers.seen(&target.region)?;
        let age = behind(seen.known()?, end)?;
        Some((age, target.region.clone()))
    });
    nearest(behind, settings.max_lag)
}

/// How old a standby's data is; `None` if that is not known, or it is no standby.
fn behind(standby: &Observation, end: Lsn) -> Option<Duration> {
    if standby.role != Some(Role::Standby) {
        return None;
    }
    match standby.lag_bytes(end)? {
        0 => Some(Duration::ZERO),
        _ => standby.replay_age,
    }
}

/// The least of those that are not too old.
fn nearest(all: impl Iterator<Item = (Duration, Region)>, max_lag: Duration) -> Option<Region> {
    let near = all.filter(|(age, _)| *age <= max_lag);
    let (_, region) = near.min_by_key(|(age, _)| *age)?;
    Some(region)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_least_behind_is_taken_unless_all_are_too_old() {
        let of = |ms, name: &str| (Duration::from_millis(ms), Region::new(name));
        let max = Duration::from_millis(500);
        let found = |all: Vec<_>| nearest(all.into_iter(), max).map(|r| r.to_string());
        assert_eq!(found(vec![of(400, "b"), of(0, "c")]), Some("c".to_owned()));
        assert_eq!(
            found(vec![of(500, "b"), of(501, "c")]),
            Some("b".to_owned())
        );
        assert_eq!(found(vec![of(501, "b")]), None);
        assert_eq!(found(vec![]), None);
    }
}
