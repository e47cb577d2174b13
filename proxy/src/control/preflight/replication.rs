//! What streams from whom, and what would no longer after the move.

use writefence_admin::api::Finding;

use super::{Say, Side, Sides, block, named, pass, warn};
use crate::upstream::{Region, Slot, Survey};

/// Names in one sentence.
const NAMED: usize = 5;

pub(super) fn look(found: &mut Vec<Finding>, sides: &Sides) {
    if let Ok(new) = &sides.new.survey {
        inherited(found, &sides.new, new, block);
    }
    if let (Ok(old), Ok(new)) = (&sides.old.survey, &sides.new.survey) {
        slots(found, (&sides.old.region, old), (&sides.new.region, new));
    }
    for other in &sides.others {
        follower(found, other, &sides.new.region);
    }
}

/// A candidate that names synchronous standbys commits nothing until they are connected to it.
pub(super) fn inherited(found: &mut Vec<Finding>, new: &Side, survey: &Survey, say: Say) {
    let region = &new.region;
    let Some(names) = survey.setting("synchronous_standby_names") else {
        let text = format!("{region} does not tell synchronous_standby_names");
        found.push(warn("synchronous", text));
        return;
    };
    if names.is_empty() {
        let text = format!("commits on {region} will wait for no standby");
        found.push(pass("synchronous", text));
        return;
    }
    let connected = new
        .seen
        .as_ref()
        .ok()
        .and_then(|seen| seen.replicas.as_ref());
    if connected.is_some_and(|replicas| !replicas.is_empty()) {
        let text = format!(
            "{region} has synchronous_standby_names = '{names}': its commits will wait for the \
             standbys that stream from it"
        );
        found.push(warn("synchronous", text));
        return;
    }
    let text = format!(
        "{region} has synchronous_standby_names = '{names}' and no standby of its own: as primary \
         it would hang at every commit; there: ALTER SYSTEM SET synchronous_standby_names = ''; \
         SELECT pg_reload_conf(), and set it again once a standby streams from it"
    );
    found.push(say("synchronous", text));
}

fn slots(found: &mut Vec<Finding>, old: (&Region, &Survey), new: (&Region, &Survey)) {
    let ((from, old), (to, new)) = (old, new);
    let (Some(there), Some(here)) = (&old.slots, &new.slots) else {
        let text = format!("the replication slots of {from} and {to} are not shown");
        found.push(warn("slots", text));
        return;
    };
    let mut level = pass as Say;
    let mut texts = Vec::new();
    // The candidate's own slot has no use after the move.
    let own = new.setting("primary_slot_name").unwrap_or_default();
    let left = |slot: &&Slot| slot.name != own && is_left_behind(slot, here);
    let lost: Vec<&Slot> = there.iter().filter(left).collect();
    let logical: Vec<String> = names(&lost, true);
    if !logical.is_empty() {
        level = warn;
        let how = match there.iter().any(|slot| slot.failover.is_some()) {
            true => format!(
                "make them with failover = true and set sync_replication_slots = on on {to}"
            ),
            false => format!("their consumers start anew on {to}"),
        };
        let list = named(&logical, NAMED);
        texts.push(format!(
            "{} logical slots of {from} are not on {to}: {list}; {how}",
            logical.len()
        ));
    }
    let physical: Vec<String> = names(&lost, false);
    if !physical.is_empty() {
        level = warn;
        let list = named(&physical, NAMED);
        texts.push(format!(
            "whoever streams from {from} by the slots {list} needs them on {to}: SELECT \
             pg_create_physical_replication_slot(name, true)"
        ));
    }
    if texts.is_empty() {
        texts.push(format!(
            "no replication slot of {from} would be left behind"
        ));
    }
    found.push(level("slots", texts.join("; ")));
}

/// In use or meant to last, and without a usable twin on the candidate.
fn is_left_behind(slot: &Slot, candidate: &[Slot]) -> bool {
    let twin = candidate.iter().find(|other| other.name == slot.name);
    let kept = match slot.logical {
        true => twin.is_some_and(|t| t.synced == Some(true) && !t.temporary && t.invalid.is_none()),
        false => twin.is_some(),
    };
    !slot.temporary && !kept && (slot.logical || slot.active)
}

fn names(slots: &[&Slot], logical: bool) -> Vec<String> {
    slots
        .iter()
        .filter(|slot| slot.logical == logical)
        .map(|slot| match &slot.database {
            Some(database) => format!("{} ({database})", slot.name),
            None => slot.name.clone(),
        })
        .collect()
}

/// Another standby follows the candidate to its new timeline, or stays on the old one.
fn follower(found: &mut Vec<Finding>, other: &Side, to: &Region) {
    let region = &other.region;
    let target = match &other.survey {
        Ok(survey) => survey.setting("recovery_target_timeline"),
        Err(error) => {
            let text = format!("{region} does not answer, so whether it follows is open: {error}");
            found.push(warn("followers", text));
            return;
        }
    };
    found.push(match target {
        Some("latest") => pass(
            "followers",
            format!("{region} can follow {to}'s new timeline"),
        ),
        Some(value) => warn(
            "followers",
            format!(
                "{region} has recovery_target_timeline = '{value}' and would not follow {to}; \
                 there: ALTER SYSTEM SET recovery_target_timeline = 'latest', and a restart"
            ),
        ),
        None => warn(
            "followers",
            format!("{region} does not tell recovery_target_timeline"),
        ),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(name: &str, logical: bool) -> Slot {
        Slot {
            name: name.to_owned(),
            logical,
            active: true,
            temporary: false,
            failover: None,
            synced: None,
            invalid: None,
            database: None,
        }
    }

    #[test]
    fn a_logical_slot_is_safe_only_where_its_synced_twin_can_be_used() {
        let (mine, plain) = (slot("s", true), slot("s", true));
        assert!(is_left_behind(&mine, &[]));
        assert!(is_left_behind(&mine, &[plain]));
        let synced = Slot {
            synced: Some(true),
            ..slot("s", true)
        };
        assert!(!is_left_behind(&mine, std::slice::from_ref(&synced)));
        let lost = Slot {
            invalid: Some("wal_removed".to_owned()),
            ..synced.clone()
        };
        assert!(is_left_behind(&mine, &[lost]));
        let not_yet = Slot {
            temporary: true,
            ..synced
        };
        assert!(is_left_behind(&mine, &[not_yet]));
    }

    #[test]
    fn an_unused_physical_slot_and_a_temporary_one_concern_nobody() {
        let unused = Slot {
            active: false,
            ..slot("p", false)
        };
        let temporary = Slot {
            temporary: true,
            ..slot("t", true)
        };
        assert!(!is_left_behind(&unused, &[]) && !is_left_behind(&temporary, &[]));
        assert!(is_left_behind(&slot("p", false), &[]));
    }
}
