//! The conditions of a move where there is no database.
//!
//! Less is known, so fewer things can stand in the way: what cannot be told is a warning. A candidate
//! that does not answer only warns, since a hook may start it; the point of no return requires it.

use writefence_admin::api::Finding;

use super::super::desk::Desk;
use super::{Side, Sides, block, pass, warn};

pub(super) fn look(found: &mut Vec<Finding>, desk: &Desk, sides: &Sides) {
    for side in [&sides.old, &sides.new] {
        answers(found, side);
    }
    if let Ok(seen) = &sides.old.seen
        && seen.writable == Some(false)
    {
        let text = format!(
            "the driver's program says that {} takes no writes",
            sides.old.region
        );
        found.push(block("primary", text));
    }
    candidate(found, &sides.new);
    evidence(found, desk, sides);
}

fn answers(found: &mut Vec<Finding>, side: &Side) {
    found.push(match &side.seen {
        Ok(_) => pass("reachable", format!("{} answers", side.region)),
        Err(error) => warn("reachable", format!("{}: {error}", side.region)),
    });
}

pub(super) fn candidate(found: &mut Vec<Finding>, side: &Side) {
    if let Ok(seen) = &side.seen
        && seen.writable == Some(true)
    {
        let text = format!(
            "the driver's program says that {} takes writes already: it was promoted",
            side.region
        );
        found.push(block("candidate", text));
    }
}

/// What a promotion will rest on.
fn evidence(found: &mut Vec<Finding>, desk: &Desk, sides: &Sides) {
    let old = &sides.old.region;
    let stopped = desk.settings.load().evidence.stopped.is_some();
    found.push(match (stopped, desk.servers.driver()) {
        (true, _) => pass(
            "evidence",
            format!("[evidence] stopped will be asked whether {old} takes no more writes"),
        ),
        (false, Some(program)) => pass(
            "evidence",
            format!("{program} moves what is behind {old}; the drain shows the rest"),
        ),
        (false, None) => warn(
            "evidence",
            format!(
                "nothing will show that nobody writes in {old} past this gate: a driver of kind \
                 command or [evidence] stopped would; the move rests on the drain and on your word"
            ),
        ),
    });
}
