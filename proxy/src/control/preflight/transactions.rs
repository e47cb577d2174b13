//! Who would keep a drain waiting or be ended by the barrier: prepared and long transactions,
//! sessions that are not ours.

use std::collections::HashSet;
use std::time::Duration;

use writefence_admin::api::Finding;

use super::super::desk::Desk;
use super::super::line::OBSERVER;
use super::{Side, Sides, named, pass, warn};
use crate::upstream::{Region, ServerSession};

/// Names in one sentence.
const NAMED: usize = 5;

pub(super) fn look(found: &mut Vec<Finding>, desk: &Desk, sides: &Sides) {
    prepared(found, &sides.old);
    let Ok(survey) = &sides.old.survey else {
        return;
    };
    let region = &sides.old.region;
    let Some(all) = &survey.sessions else {
        let text = format!("the sessions of {region} are not shown");
        found.push(warn("transactions", text));
        return;
    };
    let masked = all.iter().filter(|session| session.masked).count();
    if masked > 0 {
        let text = format!(
            "{masked} sessions on {region} may not be looked at: their transactions are unknown; \
             GRANT pg_monitor to the observer"
        );
        found.push(warn("masked_sessions", text));
    }
    let own: HashSet<i32> = desk.own(region)().iter().map(|b| b.pid).collect();
    long(found, region, all, &own, desk.settings.load().deadline);
    foreign(found, region, all, &own);
}

fn prepared(found: &mut Vec<Finding>, old: &Side) {
    let region = &old.region;
    let Ok(seen) = &old.seen else { return };
    found.push(match &seen.prepared {
        Some(list) if list.is_empty() => pass(
            "prepared_transactions",
            format!("no transaction is prepared on {region}"),
        ),
        Some(list) => {
            let names: Vec<String> = list.iter().map(|p| p.gid.clone()).collect();
            let text = format!(
                "{} prepared transactions on {region} move along and stay open: {}",
                list.len(),
                named(&names, NAMED)
            );
            warn("prepared_transactions", text)
        }
        None => warn(
            "prepared_transactions",
            format!("{region} does not show them"),
        ),
    });
}

/// Open for longer than a drain waits.
fn long(
    found: &mut Vec<Finding>,
    region: &Region,
    all: &[ServerSession],
    own: &HashSet<i32>,
    deadline: Duration,
) {
    let is_long = |s: &&ServerSession| s.in_transaction.is_some_and(|age| age > deadline);
    let long: Vec<String> = all
        .iter()
        .filter(is_long)
        .map(|session| {
            let whose = if own.contains(&session.pid) {
                ""
            } else {
                ", not through writefence"
            };
            let wrote = if session.has_written {
                ", has written"
            } else {
                ""
            };
            let age = session.in_transaction.unwrap_or_default().as_secs();
            format!("{} for {age} s{wrote}{whose}", who(session))
        })
        .collect();
    if long.is_empty() {
        let text = format!("no transaction on {region} is older than drain.deadline");
        found.push(pass("transactions", text));
        return;
    }
    let text = format!(
        "{} transactions on {region} are older than drain.deadline and may have to be ended: {}",
        long.len(),
        named(&long, NAMED)
    );
    found.push(warn("transactions", text));
}

/// The barrier ends whoever is not behind the gate.
fn foreign(found: &mut Vec<Finding>, region: &Region, all: &[ServerSession], own: &HashSet<i32>) {
    let is_observer = |s: &ServerSession| {
        let name = s.application.as_deref();
        name.is_some_and(|name| name.starts_with(OBSERVER))
    };
    let foreign: Vec<String> = all
        .iter()
        .filter(|s| !own.contains(&s.pid) && !is_observer(s))
        .map(who)
        .collect();
    if foreign.is_empty() {
        let text = format!("every session on {region} comes through here");
        found.push(pass("foreign_sessions", text));
        return;
    }
    let text = format!(
        "{} sessions on {region} do not come through here and will be ended: {}",
        foreign.len(),
        named(&foreign, NAMED)
    );
    found.push(warn("foreign_sessions", text));
}

/// A session as somebody would look for it.
fn who(session: &ServerSession) -> String {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
    format!(
        "pid {} (user {}, database {}, application {}, client {})",
        session.pid,
        or(&session.user),
        or(&session.database),
        or(&session.application),
        or(&session.client)
    )
}
