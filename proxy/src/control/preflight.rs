//! Conditions of a move, each with a sentence for a tired person.
//!
//! What is not known is a warning or a block, never a pass.

use writefence_admin::api::{ApiError, Code, Finding, Level, Moves};

use super::desk::Desk;
use super::error::refused;
use super::views::moves;
use crate::scram::Verifier;
use crate::sessions::SessionView;
use crate::upstream::{Observation, Region, Role};

const SESSIONS: &str = "sessions";
const SESSION_ENDS: &str = "session_ends";
const KEYS: &str = "scram_keys";

/// Sessions that will be ended are named up to this many; beyond, a list is easier to read.
const NAMED: usize = 20;

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
    desk.group.sessions.take_stock().await;
    found.extend(sessions(desk));
    found.extend(keys(desk, to).await);
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

/// Puts what sessions said since in the place of what they had said.
pub(crate) fn sessions_again(found: &mut Vec<Finding>, desk: &Desk) {
    found.retain(|f| f.name != SESSIONS && f.name != SESSION_ENDS);
    found.extend(sessions(desk));
}

/// Sessions that log in with the key of their client's own login can do so only where the server has
/// the same verifier. Other clusters than physical copies, and changed passwords, have another.
async fn keys(desk: &Desk, to: &Region) -> Vec<Finding> {
    let all = desk.group.sessions.snapshot();
    let target = desk.group.targets.region(to).ok();
    let asks_key = |s: &SessionView| {
        let target = target.as_ref();
        target.is_some_and(|t| t.user.is_none() && t.password_for(&s.database, &s.user).is_none())
    };
    let used = all.iter().filter(|s| asks_key(s));
    let mut used: Vec<_> = used.filter_map(|s| Some((&*s.user, s.key?))).collect();
    if used.is_empty() {
        return Vec::new();
    }
    used.sort_unstable();
    let there = match desk.servers.verifiers(to).await {
        Ok(there) => there,
        Err(error) => {
            let text = format!("{to}: whether sessions can log in is not known: {error}");
            return vec![warn(KEYS, text)];
        }
    };
    let fits = |user: &str, key: u64| {
        let of_user = there.iter().find(|(name, _)| name == user);
        let verifier = of_user.and_then(|(_, text)| Verifier::parse(text).ok());
        verifier.is_some_and(|verifier| verifier.fingerprint() == key)
    };
    let mut lost: Vec<(&str, usize)> = Vec::new();
    for (user, _) in used.iter().filter(|(user, key)| !fits(user, *key)) {
        match lost.last_mut() {
            Some((known, n)) if known == user => *n += 1,
            _ => lost.push((user, 1)),
        }
    }
    if lost.is_empty() {
        let text = format!(
            "{to} knows the {} SCRAM keys that sessions log in with",
            used.len()
        );
        return vec![pass(KEYS, text)];
    }
    let one = |(user, n): &(&str, usize)| {
        let text = format!(
            "{to} keeps another SCRAM verifier for user \"{user}\" than {n} of its sessions logged in \
             with, so they will be ended; its password in users_file or the region's passfile helps"
        );
        warn(KEYS, text)
    };
    lost.iter().take(NAMED).map(one).collect()
}

/// Who moves how, and by name who is ended by the move.
fn sessions(desk: &Desk) -> Vec<Finding> {
    let mut found = Vec::new();
    let all = desk.group.sessions.snapshot();
    let n = |how| all.iter().filter(|s| moves(s) == how).count();
    let (ended, unknown) = (n(Moves::MustEnd), n(Moves::Unknown));
    let mut text = format!(
        "{} sessions: {} move as they are, {} with their state replayed, {ended} will be ended",
        all.len(),
        n(Moves::Movable),
        n(Moves::Replayable)
    );
    if unknown > 0 {
        text.push_str(&format!(
            ", {unknown} are in a transaction or busy and cannot be asked yet"
        ));
    }
    let level = if ended + unknown > 0 { warn } else { pass };
    found.push(level(SESSIONS, text));
    let mut pinned = all.iter().filter(|s| moves(s) == Moves::MustEnd);
    for session in pinned.by_ref().take(NAMED) {
        found.push(warn(SESSION_ENDS, will_end(session)));
    }
    let more = pinned.count();
    if more > 0 {
        let text = format!("{more} more sessions will be ended; `sessions` names them");
        found.push(warn(SESSION_ENDS, text));
    }
    found
}

fn will_end(session: &SessionView) -> String {
    let backend = match &session.backend {
        Some((region, pid)) => format!("pid {pid} on {region}"),
        None => "no backend".to_owned(),
    };
    let reasons: Vec<&str> = session
        .moves
        .pins
        .iter()
        .map(|p| p.reason.as_str())
        .collect();
    format!(
        "session {} ({backend}, user {}, database {}, client {}, application \"{}\"): {}",
        session.id,
        session.user,
        session.database,
        session.client,
        session.application_name,
        reasons.join("; ")
    )
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
