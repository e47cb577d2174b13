//! Conditions of a move, each with a sentence for a tired person.
//!
//! One file per family: `servers` (who they are and how far), `replication` (what streams from
//! whom), `transactions` and `sessions` (who keeps a drain waiting, who cannot move), `keys` and `rights`
//! (SCRAM, missing GRANTs), `around` (other software, our own state, times). Everything is asked at once
//! and only looked at; nothing here changes a server. What is not known is a warning or a block,
//! never a pass. `watch` does the same every few minutes.

mod around;
mod keys;
mod origins;
mod replication;
mod rights;
mod servers;
mod sessions;
mod transactions;
pub(crate) mod watch;

use std::time::Duration;

use tokio::time::Instant;
use writefence_admin::api::{ApiError, Code, Finding, Level};

use super::desk::Desk;
use super::error::refused;
use super::loss;
use crate::clock;
use crate::upstream::{Need, Observation, Region, Survey};

pub(crate) use sessions::again as sessions_again;

/// Longer than a healthy server needs by far, and within the time that a caller waits for us.
const ASKED: Duration = Duration::from_secs(3);

/// One server as it answered.
pub(crate) struct Side {
    pub(crate) region: Region,
    pub(crate) seen: Result<Observation, ApiError>,
    pub(crate) survey: Result<Survey, ApiError>,
    /// What one question and its answer took, at most.
    pub(crate) took: Duration,
}

/// What the conditions are looked for in.
pub(crate) struct Sides {
    pub(crate) old: Side,
    pub(crate) new: Side,
    pub(crate) others: Vec<Side>,
}

impl Sides {
    /// Asks every region of the group, all at the same time.
    pub(crate) async fn ask(desk: &Desk, from: &Region, to: &Region) -> Self {
        let drives_by_sql = desk.settings.load().by_sql;
        let promote: &[Need] = if drives_by_sql { &[Need::Promote] } else { &[] };
        let regions = desk.group.targets.regions();
        let third: Vec<Region> = regions
            .iter()
            .map(|target| target.region.clone())
            .filter(|region| region != from && region != to)
            .collect();
        let others = third.into_iter().map(|region| side(desk, region, &[]));
        let (old, new, others) = tokio::join!(
            side(desk, from.clone(), &[Need::Observe, Need::Barrier]),
            side(desk, to.clone(), promote),
            futures_util::future::join_all(others),
        );
        Self { old, new, others }
    }
}

async fn side(desk: &Desk, region: Region, needs: &[Need]) -> Side {
    let began: Instant = clock::now();
    let late = |_| {
        let text = format!("{region} did not answer within {} s", ASKED.as_secs());
        refused(Code::TargetUnreachable, text)
    };
    let seen = tokio::time::timeout(ASKED, desk.servers.observe(&region)).await;
    let seen = seen.unwrap_or_else(|elapsed| Err(late(elapsed)));
    let took = began.elapsed();
    let survey = match &seen {
        Err(error) => Err(error.clone()),
        Ok(_) => {
            let asked = tokio::time::timeout(ASKED, desk.servers.survey(&region, needs)).await;
            asked.unwrap_or_else(|elapsed| Err(late(elapsed)))
        }
    };
    Side {
        region,
        seen,
        survey,
        took,
    }
}

/// The conditions of a planned move, with the sessions asked how they would move.
pub(crate) async fn findings(desk: &Desk, from: &Region, to: &Region) -> Vec<Finding> {
    let sides = Sides::ask(desk, from, to).await;
    findings_of(desk, &sides).await
}

/// The same, of answers that are there already.
pub(crate) async fn findings_of(desk: &Desk, sides: &Sides) -> Vec<Finding> {
    desk.group.sessions.take_stock().await;
    let mut found = of(desk, sides);
    found.extend(keys::look(desk, &sides.new.region).await);
    found
}

/// What these answers amount to. Pure but for what the desk knows itself.
pub(crate) fn of(desk: &Desk, sides: &Sides) -> Vec<Finding> {
    let mut found = Vec::new();
    if !desk.servers.has_database() {
        origins::look(&mut found, desk, sides);
        around::look(&mut found, desk, sides);
        return found;
    }
    servers::look(&mut found, sides);
    replication::look(&mut found, sides);
    transactions::look(&mut found, desk, sides);
    rights::look(&mut found, sides);
    found.extend(sessions::look(desk));
    around::look(&mut found, desk, sides);
    found
}

/// The conditions of an unplanned move: only the candidate is asked.
pub(crate) async fn for_failover(desk: &Desk, to: &Region) -> Vec<Finding> {
    let mut found = Vec::new();
    let promote: &[Need] = if desk.settings.load().by_sql {
        &[Need::Promote]
    } else {
        &[]
    };
    let new = side(desk, to.clone(), promote).await;
    if !desk.servers.has_database() {
        origins::candidate(&mut found, &new);
        return found;
    }
    match &new.seen {
        Ok(seen) => {
            let accepted = desk.group.targets.accepted().identity;
            let former = accepted.map(|ours| ours.timeline) > seen.timeline;
            servers::candidate(&mut found, to, seen, former);
            if let (Some(ours), Some(theirs)) = (accepted, seen.system_identifier)
                && ours.system_identifier != theirs
            {
                found.push(block("system_identifier", servers::other_cluster(to)));
            }
        }
        Err(error) => found.push(block("reachable", format!("{to}: {error}"))),
    }
    if let Ok(survey) = &new.survey {
        servers::replay(&mut found, to, survey, warn);
        replication::inherited(&mut found, &new, survey, warn);
        rights::of(&mut found, &new, survey);
    }
    let old = desk.accepted();
    if let Some(last) = desk.servers.seen(&old)
        && last.known().is_some_and(|seen| seen.writable == Some(true))
    {
        let text = format!(
            "{old} was asked {} ms ago, answered and took writes: if it still does, `switchover` \
             would lose nothing",
            clock::ms_since(last.at)
        );
        found.push(warn("primary", text));
    }
    let stated = loss::stated(desk, &desk.accepted(), to, new.seen.as_ref().ok());
    found.push(loss::finding(&stated));
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

/// One finding of a level; a condition may choose between two.
type Say = fn(&str, String) -> Finding;

fn pass(name: &str, sentence: String) -> Finding {
    Finding::new(Level::Pass, name, sentence)
}

fn warn(name: &str, sentence: String) -> Finding {
    Finding::new(Level::Warn, name, sentence)
}

fn block(name: &str, sentence: String) -> Finding {
    Finding::new(Level::Block, name, sentence)
}

/// The first of a list by name, and how many more there are.
fn named(all: &[String], at_most: usize) -> String {
    let shown: Vec<&str> = all.iter().take(at_most).map(String::as_str).collect();
    match all.len().saturating_sub(at_most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_long_list_is_cut_and_says_so() {
        let all: Vec<String> = (1..=4).map(|n| format!("x{n}")).collect();
        assert_eq!(super::named(&all, 2), "x1, x2 and 2 more");
        assert_eq!(super::named(&all, 4), "x1, x2, x3, x4");
    }
}
