//! Conditions of a move, each with a sentence for a tired person.
//!
//! What is not known is a warning or a block, never a pass.

use writefence_admin::api::{ApiError, Code, Finding, Level};

use super::desk::Desk;
use super::error::refused;
use crate::upstream::{Observation, Region, Role};

/// A candidate further behind than this would be waited for within the write gap.
const LAG_WARN_BYTES: u64 = 16 << 20;

/// The conditions of a planned move.
pub(crate) async fn findings(desk: &Desk, from: &Region, to: &Region) -> Vec<Finding> {
    let (old, new) = tokio::join!(desk.servers.observe(from), desk.servers.observe(to));
    let mut found = Vec::new();
    match (&old, &new) {
        (Ok(old), Ok(new)) => {
            primary(&mut found, from, old);
            candidate(&mut found, to, new);
            pair(&mut found, (from, old), (to, new));
        }
        (old, new) => {
            for (region, asked) in [(from, old), (to, new)] {
                if let Err(error) = asked {
                    found.push(block("reachable", format!("{region}: {error}")));
                }
            }
        }
    }
    sessions(&mut found, desk);
    desk_itself(&mut found, desk);
    found
}

/// The conditions of an unplanned move: only the candidate is asked.
pub(crate) async fn for_failover(desk: &Desk, to: &Region) -> Vec<Finding> {
    let mut found = Vec::new();
    match desk.servers.observe(to).await {
        Ok(new) => {
            candidate(&mut found, to, &new);
            let accepted = desk.group.targets.accepted().identity;
            if let (Some(ours), Some(theirs)) = (accepted, new.system_identifier)
                && ours.system_identifier != theirs
            {
                found.push(block("system_identifier", other_cluster(to)));
            }
        }
        Err(error) => found.push(block("reachable", format!("{to}: {error}"))),
    }
    found
}

/// The error that these findings amount to, if one blocks.
pub(crate) fn unblocked(found: &[Finding]) -> Result<(), ApiError> {
    let blocking: Vec<&str> = found
        .iter()
        .filter(|f| f.level == Level::Block)
        .map(|f| f.sentence.as_str())
        .collect();
    if blocking.is_empty() {
        return Ok(());
    }
    Err(refused(Code::PreflightBlocked, blocking.join("; "))
        .hint("`writefencectl preflight --to R` shows every condition"))
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
    found.push(match &seen.prepared {
        Some(list) if list.is_empty() => pass(
            "prepared_transactions",
            format!("no transaction is prepared on {region}"),
        ),
        Some(list) => {
            let names: Vec<&str> = list.iter().take(5).map(|p| p.gid.as_str()).collect();
            let text = format!(
                "{} prepared transactions on {region} move along and stay open: {}",
                list.len(),
                names.join(", ")
            );
            warn("prepared_transactions", text)
        }
        None => warn(
            "prepared_transactions",
            format!("{region} does not show them"),
        ),
    });
}

fn candidate(found: &mut Vec<Finding>, region: &Region, seen: &Observation) {
    found.push(match seen.role {
        Some(Role::Standby) => pass("candidate", format!("{region} is a standby")),
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
    found.push(match (old.timeline, new.received_timeline) {
        (Some(a), Some(b)) if a == b => pass(
            "streaming",
            format!("{to} receives timeline {a} from its primary"),
        ),
        (Some(a), Some(b)) => block(
            "streaming",
            format!("{to} receives timeline {b}, {from} is on {a}"),
        ),
        (_, None) => block(
            "streaming",
            format!("{to} is not streaming, or the observer lacks pg_monitor to see it"),
        ),
        (None, _) => block("streaming", format!("{from} does not tell its timeline")),
    });
    found.push(match (old.lsn, new.replay_lsn) {
        (Some(end), Some(replayed)) => {
            let bytes = end.bytes_since(replayed);
            let text = format!("{to} is {bytes} bytes behind {from}");
            if bytes > LAG_WARN_BYTES {
                warn("lag", text)
            } else {
                pass("lag", text)
            }
        }
        (None, _) | (_, None) => warn("lag", format!("how far {to} is behind is not known")),
    });
}

fn sessions(found: &mut Vec<Finding>, desk: &Desk) {
    let all = desk.group.sessions.snapshot();
    let pinned = all.iter().filter(|s| !s.pins.is_empty()).count();
    found.push(if pinned == 0 {
        pass("sessions", format!("all {} sessions can move", all.len()))
    } else {
        let text = format!(
            "{pinned} of {} sessions cannot move and will be ended; `sessions` names them",
            all.len()
        );
        warn("sessions", text)
    });
}

fn desk_itself(found: &mut Vec<Finding>, desk: &Desk) {
    if let Some(text) = desk.leftover.notice() {
        found.push(warn("predecessor", text));
    }
    let unknown = desk.group.gate.unknown();
    if unknown > 0 {
        let text = format!("{unknown} writes of unknown outcome keep every drain waiting");
        found.push(warn("unknown", text));
    }
}

fn other_cluster(region: &Region) -> String {
    format!("{region} has another system identifier: it is no copy of the primary")
}

fn pass(name: &str, sentence: String) -> Finding {
    Finding::new(Level::Pass, name, sentence)
}

fn warn(name: &str, sentence: String) -> Finding {
    Finding::new(Level::Warn, name, sentence)
}

fn block(name: &str, sentence: String) -> Finding {
    Finding::new(Level::Block, name, sentence)
}
