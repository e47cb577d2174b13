//! Who moves how, and by name who is ended by the move.

use writefence_admin::api::{Finding, Moves};

use super::super::desk::Desk;
use super::super::views::moves;
use super::{pass, warn};
use crate::sessions::SessionView;

const SESSIONS: &str = "sessions";
const SESSION_ENDS: &str = "session_ends";

/// Sessions that will be ended are named up to this many; beyond, a list is easier to read.
const NAMED: usize = 20;

/// Puts what sessions said since in the place of what they had said.
pub(crate) fn again(found: &mut Vec<Finding>, desk: &Desk) {
    if !desk.servers.has_database() {
        return;
    }
    found.retain(|f| f.name != SESSIONS && f.name != SESSION_ENDS);
    found.extend(look(desk));
}

pub(super) fn look(desk: &Desk) -> Vec<Finding> {
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
