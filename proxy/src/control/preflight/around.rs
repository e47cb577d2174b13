//! What else has a hand in these servers, and what we ourselves bring along.

use writefence_admin::api::Finding;

use super::super::desk::Desk;
use super::super::line::OBSERVER;
use super::super::settings::Settings;
use super::{Side, Sides, block, named, pass, warn};
use crate::gate::Answer;

/// How Patroni's own connections call themselves.
const PATRONI: &str = "patroni";

pub(super) fn look(found: &mut Vec<Finding>, desk: &Desk, sides: &Sides) {
    let own = desk.servers.observers();
    let settings = desk.settings.load();
    for side in [&sides.old, &sides.new] {
        another(found, side, own.as_deref());
        patroni(found, side, settings.by_sql);
    }
    times(found, &settings);
    if let Some(text) = desk.leftover.notice() {
        found.push(warn("predecessor", text));
    }
    let unknown = desk.group.gate.unknown();
    if unknown > 0 {
        let text = format!("{unknown} writes of unknown outcome keep every drain waiting");
        found.push(warn("unknown", text));
    }
}

/// A second gate in front of the same servers does not fall with this one.
fn another(found: &mut Vec<Finding>, side: &Side, own: Option<&str>) {
    let Ok(survey) = &side.survey else { return };
    let names = survey.sessions.iter().flatten().filter_map(|session| {
        let name = session.application.as_deref()?;
        let theirs = name.starts_with(OBSERVER) && Some(name) != own;
        let from = session.client.clone().unwrap_or_else(|| "?".to_owned());
        theirs.then(|| format!("\"{name}\" from {from}"))
    });
    let mut others: Vec<String> = names.collect();
    others.sort();
    others.dedup();
    if others.is_empty() {
        return;
    }
    let text = format!(
        "another writefence watches {}: {}; without a fleet its gate does not fall with this one, \
         the barrier ends its sessions",
        side.region,
        named(&others, 5)
    );
    found.push(warn("another_writefence", text));
}

/// Patroni promotes, demotes and rewrites settings by its own mind.
fn patroni(found: &mut Vec<Finding>, side: &Side, by_sql: bool) {
    let Ok(survey) = &side.survey else { return };
    let connected = survey.sessions.iter().flatten().any(|session| {
        let name = session.application.as_deref().unwrap_or_default();
        name.to_ascii_lowercase().starts_with(PATRONI)
    });
    if !connected && survey.patroni_file != Some(true) {
        return;
    }
    let region = &side.region;
    found.push(match by_sql {
        true => block(
            "patroni",
            format!(
                "{region} is managed by Patroni, which would undo the move; set [group.NAME.driver] \
                 kind = \"patroni\""
            ),
        ),
        false => pass("patroni", format!("{region} is managed by Patroni")),
    });
}

/// As `check` warns: what is legal and seldom meant.
fn times(found: &mut Vec<Finding>, settings: &Settings) {
    let mut wrong = Vec::new();
    if settings.grace > settings.deadline {
        wrong.push("drain.grace is above drain.deadline");
    }
    if settings.deadline > settings.budget {
        wrong.push("drain.deadline is above run.budget, so a switchover rolls back first");
    }
    if settings.answer == Answer::Hold && settings.budget >= settings.hold {
        wrong.push("run.budget is not below fence.hold, so held writes are refused first");
    }
    found.push(match wrong.is_empty() {
        true => pass(
            "times",
            "grace, deadline, budget and hold fit together".to_owned(),
        ),
        false => warn("times", wrong.join("; ")),
    });
}
