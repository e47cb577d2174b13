//! Who the two servers are, whether one follows the other, and how far it is behind.

use writefence_admin::api::Finding;

use super::{Say, Side, Sides, block, pass, warn};
use crate::upstream::{Observation, Region, Role, Survey};

/// A candidate further behind than this would be waited for within the write gap.
const LAG_WARN_BYTES: u64 = 16 << 20;

/// The same, in seconds.
const LAG_WARN_SECONDS: f64 = 1.0;

pub(super) fn look(found: &mut Vec<Finding>, sides: &Sides) {
    let (old, new) = (&sides.old, &sides.new);
    match (&old.seen, &new.seen) {
        (Ok(seen_old), Ok(seen_new)) => {
            let text = format!("{} and {} answer", old.region, new.region);
            found.push(pass("reachable", text));
            primary(found, &old.region, seen_old);
            let former = seen_old.timeline > seen_new.timeline;
            candidate(found, &new.region, seen_new, former);
            pair(found, (&old.region, seen_old), (&new.region, seen_new));
        }
        (seen_old, seen_new) => {
            for (side, asked) in [(old, seen_old), (new, seen_new)] {
                if let Err(error) = asked {
                    found.push(block("reachable", format!("{}: {error}", side.region)));
                }
            }
        }
    }
    if let Ok(survey) = &new.survey {
        replay(found, &new.region, survey, block);
        room(found, new, survey);
    }
    if let Ok(survey) = &old.survey {
        rewind(found, &old.region, survey);
    }
}

fn primary(found: &mut Vec<Finding>, region: &Region, seen: &Observation) {
    found.push(match (seen.role, seen.writable) {
        (Some(Role::Primary), Some(true)) => pass("primary", format!("{region} takes writes")),
        (Some(Role::Primary), Some(false)) => block(
            "primary",
            format!("{region} is a primary with default_transaction_read_only on"),
        ),
        (Some(Role::Standby), _) => block("primary", format!("{region} is in recovery")),
        (Some(Role::Primary) | None, _) => block(
            "primary",
            format!("{region} does not say whether it takes writes"),
        ),
    });
}

/// `former`: its timeline is older than the one in force, so that it was the primary once.
pub(super) fn candidate(
    found: &mut Vec<Finding>,
    region: &Region,
    seen: &Observation,
    former: bool,
) {
    found.push(match seen.role {
        Some(Role::Standby) => pass("candidate", format!("{region} is a standby")),
        Some(Role::Primary) if former => block(
            "candidate",
            format!(
                "{region} is a former primary and follows nobody yet; `status` says how it comes back"
            ),
        ),
        Some(Role::Primary) => block(
            "candidate",
            format!("{region} is not in recovery: it was promoted already"),
        ),
        None => block(
            "candidate",
            format!("{region} does not say whether it is in recovery"),
        ),
    });
}

fn pair(found: &mut Vec<Finding>, old: (&Region, &Observation), new: (&Region, &Observation)) {
    let ((from, old), (to, new)) = (old, new);
    found.push(match (old.system_identifier, new.system_identifier) {
        (Some(a), Some(b)) if a == b => pass(
            "system_identifier",
            format!("{from} and {to} are copies of one cluster"),
        ),
        (Some(_), Some(_)) => block("system_identifier", other_cluster(to)),
        (None, _) | (_, None) => block(
            "system_identifier",
            "it cannot be read: GRANT EXECUTE ON FUNCTION pg_control_system() TO the observer"
                .to_owned(),
        ),
    });
    if new.role == Some(Role::Primary) {
        // It receives nothing, and the condition above says why.
        return;
    }
    found.push(match (old.timeline, new.received_timeline) {
        (Some(a), Some(b)) if a == b => pass(
            "streaming",
            format!("{to} receives timeline {a} from its primary"),
        ),
        (Some(a), Some(b)) => block(
            "streaming",
            format!(
                "{to} receives timeline {b}, {from} is on {a}: it follows in a moment, or it has to \
                 be brought back with pg_rewind, after a CHECKPOINT on {from}"
            ),
        ),
        (_, None) => block(
            "streaming",
            format!("{to} is not streaming, or the observer lacks pg_monitor to see it"),
        ),
        (None, _) => block("streaming", format!("{from} does not tell its timeline")),
    });
    found.push(lag(from, old, to, new));
}

/// Seconds count only where bytes are missing: on an idle primary the last commit just grows older.
fn lag(from: &Region, old: &Observation, to: &Region, new: &Observation) -> Finding {
    let (Some(end), Some(replayed)) = (old.lsn, new.replay_lsn) else {
        let text = format!("how far {to} is behind is not known; GRANT pg_monitor to the observer");
        return warn("lag", text);
    };
    let bytes = end.bytes_since(replayed);
    let seconds = match (bytes, new.replay_age) {
        (0, _) => Some(0.0),
        (_, age) => age.map(|age| age.as_secs_f64()),
    };
    let time = seconds.map_or_else(
        || ", in seconds not known".to_owned(),
        |s| format!(", {s:.1} s"),
    );
    let text = format!("{to} is {bytes} bytes{time} behind {from}");
    // Some bytes are always under way on a busy primary, and their age is that of the last commit.
    let late = bytes > LAG_WARN_BYTES || (bytes > 1 << 20 && seconds > Some(LAG_WARN_SECONDS));
    if late {
        warn("lag", text)
    } else {
        pass("lag", text)
    }
}

/// A standby that replays nothing, or late on purpose, never catches up within a budget. In a failover
/// it need not: a promotion ends the pause and replays what was received.
pub(super) fn replay(found: &mut Vec<Finding>, region: &Region, survey: &Survey, stays: Say) {
    if survey.replay_paused == Some(true) {
        let text = format!(
            "replay is paused on {region}, so it does not catch up; there: SELECT \
             pg_wal_replay_resume()"
        );
        found.push(stays("replay", text));
        return;
    }
    match survey.setting("recovery_min_apply_delay") {
        Some("0") => found.push(pass("replay", format!("{region} replays without delay"))),
        Some(ms) => {
            let text = format!(
                "{region} replays {ms} ms late on purpose; there: ALTER SYSTEM SET \
                 recovery_min_apply_delay = 0; SELECT pg_reload_conf()"
            );
            found.push(stays("replay", text));
        }
        None => {
            let text = format!("{region} does not tell recovery_min_apply_delay");
            found.push(warn("replay", text));
        }
    }
}

/// Sessions that have a place today and would have none tomorrow.
fn room(found: &mut Vec<Finding>, new: &Side, survey: &Survey) {
    let number = |name| {
        survey
            .setting(name)
            .and_then(|text| text.parse::<usize>().ok())
    };
    let (Some(most), Some(kept)) = (
        number("max_connections"),
        number("superuser_reserved_connections"),
    ) else {
        return;
    };
    let places = most.saturating_sub(kept);
    let text = format!("{} has places for {places} sessions", new.region);
    found.push(pass("places", text));
}

/// The old primary is to come back as a standby without being copied whole.
fn rewind(found: &mut Vec<Finding>, region: &Region, survey: &Survey) {
    let on = |name| survey.setting(name).map(|value| value == "on");
    // pg_rewind reads the log back to the last checkpoint before the fork; a shutdown recycles it.
    let keeps = survey.setting("wal_keep_size").map(|mb| mb != "0");
    let archives = survey.setting("archive_mode").map(|mode| mode != "off");
    let forgets = keeps == Some(false) && archives == Some(false);
    found.push(match (on("data_checksums"), on("wal_log_hints")) {
        (Some(true), _) | (_, Some(true)) if forgets => warn(
            "rewind",
            format!(
                "{region} may have recycled the log that pg_rewind needs, and would be copied anew; \
                 there: ALTER SYSTEM SET wal_keep_size = '1GB'; SELECT pg_reload_conf()"
            ),
        ),
        (Some(true), _) | (_, Some(true)) => pass(
            "rewind",
            format!("{region} can be brought back with pg_rewind"),
        ),
        (Some(false), Some(false)) => warn(
            "rewind",
            format!(
                "after an unplanned move {region} needs a new base backup: pg_rewind needs data \
                 checksums or wal_log_hints = on (a restart of {region})"
            ),
        ),
        (None, _) | (_, None) => warn(
            "rewind",
            format!("{region} does not tell whether pg_rewind could bring it back"),
        ),
    });
}

pub(super) fn other_cluster(region: &Region) -> String {
    format!("{region} has another system identifier: it is no copy of the primary")
}
