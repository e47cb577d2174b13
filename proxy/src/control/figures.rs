//! Figures and health for those who watch from outside.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use writefence_admin::api::{DrainOutcome, Level as Finding, RunState};

use super::desk::Desk;
use super::{Daemon, status};
use crate::gate::{Counts, Lane, Outcome, Phase};
use crate::http::Total;
use crate::requests::RequestCounts;
use crate::sessions::SessionCounts;
use crate::telemetry::{Component, Level};
use crate::upstream::{Role, Target};

/// What control itself counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    drains: [AtomicU64; 4],
    runs: [AtomicU64; 4],
    repoints: AtomicU64,
}

impl Tally {
    pub(crate) fn drain(&self, outcome: DrainOutcome) {
        let at = match outcome {
            DrainOutcome::Drained => 0,
            DrainOutcome::DrainedWithUnknown => 1,
            DrainOutcome::TimedOut => 2,
            DrainOutcome::Superseded => 3,
        };
        self.drains[at].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn run(&self, state: RunState) {
        let at = match state {
            RunState::Done => 0,
            RunState::Aborted => 1,
            RunState::RolledBack => 2,
            RunState::Failed => 3,
            RunState::Running | RunState::Interrupted | RunState::Aborting => return,
        };
        self.runs[at].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn repoint(&self) {
        self.repoints.fetch_add(1, Ordering::Relaxed);
    }
}

/// One group's figures at the moment of asking.
#[derive(Debug)]
pub struct Figures {
    /// The group.
    pub group: String,
    /// The gate's counts.
    pub counts: Counts,
    /// Whether the http and the sql lane are fenced.
    pub fenced: [bool; 2],
    /// Sessions by state.
    pub sessions: SessionCounts,
    /// Session totals: name, help, value.
    pub totals: Vec<(&'static str, &'static str, u64)>,
    /// Drains by outcome.
    pub drains: Vec<(Outcome, u64)>,
    /// Ended runs by state.
    pub runs: Vec<(&'static str, u64)>,
    /// Changes of the target in force.
    pub repoints: u64,
    /// A run is live.
    pub run_live: bool,
    /// Regions that take writes or were written to though they are not the primary in force.
    pub split_brain: usize,
    /// How often such a thing was noticed since the start.
    pub split_brain_total: u64,
    /// The last run's write gap, once it opened again.
    pub write_gap_ms: Option<u64>,
    /// HTTP requests that write, by state.
    pub requests: RequestCounts,
    /// HTTP totals.
    pub http: Vec<Total>,
    /// HTTP clients that are connected.
    pub http_connections: u64,
    /// Connections of the TCP front that hold a permit or wait for one.
    pub connections: RequestCounts,
    /// What the TCP front counts.
    pub tcp: Vec<crate::tcp::Total>,
    /// By region.
    pub regions: Vec<RegionFigures>,
}

/// One region's figures.
#[derive(Debug)]
pub struct RegionFigures {
    /// Its name.
    pub name: String,
    /// `healthy`, `degraded` or `unhealthy`.
    pub status: &'static str,
    /// Seconds behind, where known.
    pub lag_seconds: Option<f64>,
    /// Bytes behind, where known.
    pub lag_bytes: Option<u64>,
    /// It is the primary in force.
    pub accepted: bool,
    /// Findings by level (pass, warn, block) of the last look at whether it could take over, and
    /// the age of that look in seconds; `None` before the first and for the primary.
    pub readiness: Option<([u64; 3], f64)>,
}

impl Daemon {
    /// The figures of every group.
    #[must_use]
    pub fn figures(&self) -> Vec<Figures> {
        self.desks().iter().map(|desk| of(desk)).collect()
    }

    /// The health of every component.
    pub(crate) fn components(&self) -> BTreeMap<String, Component> {
        let mut all = BTreeMap::new();
        for desk in self.desks() {
            let name = &desk.group.name;
            all.insert(format!("gate/{name}"), gate(desk));
            all.insert(format!("split_brain/{name}"), split_brain(desk));
            for target in desk.group.targets.regions() {
                all.insert(
                    format!("region/{name}/{}", target.region),
                    region(desk, target),
                );
            }
            for target in desk.group.targets.regions() {
                if let Some(component) = readiness(desk, target) {
                    all.insert(format!("preflight/{name}/{}", target.region), component);
                }
            }
            all.insert(format!("state/{name}"), state(desk));
        }
        let (status, detail) = match self.trail().broken() {
            None => (Level::Operational, "the audit is written".to_owned()),
            Some(why) => (Level::Failed, why),
        };
        all.insert("audit".to_owned(), Component { status, detail });
        all
    }
}

/// Whether the state directory would take the next record.
fn state(desk: &Desk) -> Component {
    let path = desk.group.unknown.path();
    let room = path.and_then(|path| rustix::fs::statvfs(path).ok());
    let full = room.is_some_and(|room| room.f_bavail == 0);
    let (status, detail) = match desk.group.unknown.broken() {
        Some(why) => (Level::Failed, why),
        None if full => (
            Level::Failed,
            "the disk of the state directory is full: no phase can be changed until it has room"
                .to_owned(),
        ),
        None => (
            Level::Operational,
            "the state directory can be written".to_owned(),
        ),
    };
    Component { status, detail }
}

fn of(desk: &Desk) -> Figures {
    let look = |lane| desk.group.gate.look(lane).phase != Phase::Open;
    let totals = &desk.group.sessions.totals;
    let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let run = desk.book.run();
    let tally = &desk.tally;
    Figures {
        group: desk.group.name.clone(),
        counts: desk.group.gate.counts(),
        fenced: [look(Lane::Http), look(Lane::Sql)],
        sessions: desk.group.sessions.counts(),
        requests: desk.group.requests.counts(),
        http: desk.group.http.totals(),
        http_connections: desk.group.http.connections(),
        connections: desk.group.connections.counts(),
        tcp: desk.group.tcp.totals(),
        totals: vec![
            (
                "writefence_sessions_started_total",
                "Sessions begun.",
                n(&totals.started),
            ),
            (
                "writefence_sessions_moved_total",
                "Sessions moved to another target.",
                n(&totals.moved),
            ),
            (
                "writefence_sessions_ended_unmovable_total",
                "Sessions ended because they could not move.",
                n(&totals.ended_unmovable),
            ),
            (
                "writefence_sessions_refused_total",
                "Connections refused by a limit.",
                n(&totals.refused),
            ),
            (
                "writefence_protocol_offences_total",
                "Connections ended for a protocol offence.",
                n(&totals.offences),
            ),
            (
                "writefence_fenced_statements_total",
                "Statements refused by the fence.",
                n(&totals.fenced),
            ),
            (
                "writefence_login_failures_total",
                "Logins upstream that failed.",
                n(&totals.login_failures),
            ),
            (
                "writefence_logins_denied_total",
                "Clients that could not show who they are, or may not log in.",
                n(&totals.logins_denied),
            ),
            (
                "writefence_logins_throttled_total",
                "Clients that were not looked at after too many failed logins.",
                n(&totals.logins_throttled),
            ),
            (
                "writefence_unexpected_read_only_total",
                "Read-only answers of a server that was taken to be writable.",
                n(&totals.unexpected_read_only),
            ),
        ],
        drains: vec![
            (Outcome::Drained, n(&tally.drains[0])),
            (Outcome::DrainedWithUnknown, n(&tally.drains[1])),
            (Outcome::TimedOut, n(&tally.drains[2])),
            (Outcome::Superseded, n(&tally.drains[3])),
        ],
        runs: vec![
            ("done", n(&tally.runs[0])),
            ("aborted", n(&tally.runs[1])),
            ("rolled_back", n(&tally.runs[2])),
            ("failed", n(&tally.runs[3])),
        ],
        repoints: n(&tally.repoints),
        run_live: desk.book.live().is_some(),
        split_brain: desk.tripwire.alarms().len(),
        split_brain_total: desk.tripwire.raised(),
        write_gap_ms: run
            .filter(|_| !desk.actor.is_fenced())
            .and_then(|run| run.write_gap_ms),
        regions: desk
            .group
            .targets
            .regions()
            .iter()
            .map(|t| of_region(desk, t))
            .collect(),
    }
}

fn of_region(desk: &Desk, target: &Target) -> RegionFigures {
    let status = match region(desk, target).status {
        Level::Operational => "healthy",
        Level::Degraded => "degraded",
        Level::Failed => "unhealthy",
    };
    RegionFigures {
        name: target.region.to_string(),
        status,
        lag_seconds: status::lag_seconds(desk, target),
        lag_bytes: status::lag_bytes(desk, target),
        accepted: target.region == desk.accepted(),
        readiness: desk.board.of(&target.region).map(|board| {
            let n = |level| board.findings.iter().filter(|f| f.level == level).count() as u64;
            let levels = [Finding::Pass, Finding::Warn, Finding::Block].map(n);
            (levels, board.at.elapsed().as_secs_f64())
        }),
    }
}

fn split_brain(desk: &Desk) -> Component {
    let primary = desk.accepted();
    let alarms = desk.tripwire.alarms();
    let texts: Vec<String> = alarms
        .iter()
        .map(|(region, alarm)| alarm.sentence(region, &primary))
        .collect();
    let (status, detail) = match texts.is_empty() {
        true => (Level::Operational, "no other side takes writes".to_owned()),
        false => (Level::Failed, texts.join("; ")),
    };
    Component { status, detail }
}

/// A candidate that could not take over is no failure of today.
fn readiness(desk: &Desk, target: &Target) -> Option<Component> {
    let board = desk.board.of(&target.region)?;
    let status = match board.level() {
        Finding::Pass | Finding::Warn => Level::Operational,
        Finding::Block => Level::Degraded,
    };
    let detail = board.worst();
    Some(Component { status, detail })
}

fn gate(desk: &Desk) -> Component {
    if !desk.actor.is_fenced() {
        let detail = format!("open in {}", desk.accepted());
        return Component {
            status: Level::Operational,
            detail,
        };
    }
    let detail = match (desk.notice.load().as_ref(), desk.book.live()) {
        (Some(notice), _) => notice.clone(),
        (None, Some(run)) => format!("fenced by run {}", run.run),
        (None, None) => "fenced".to_owned(),
    };
    Component {
        status: Level::Degraded,
        detail,
    }
}

fn region(desk: &Desk, target: &Target) -> Component {
    let is_accepted = target.region == desk.accepted();
    let Some(seen) = desk.servers.seen(&target.region) else {
        return Component {
            status: Level::Degraded,
            detail: "not probed yet".to_owned(),
        };
    };
    let known = match &seen.answer {
        Ok(known) => known,
        Err(why) => {
            return Component {
                status: Level::Failed,
                detail: why.clone(),
            };
        }
    };
    let (status, detail) = match (known.role, is_accepted) {
        (Some(Role::Primary), true) if known.writable == Some(true) => {
            (Level::Operational, "the primary in force".to_owned())
        }
        (Some(Role::Primary), true) => (Level::Degraded, "the primary is read-only".to_owned()),
        (Some(Role::Primary), false) if known.writable == Some(true) => (
            Level::Failed,
            "takes writes and is not the primary in force".to_owned(),
        ),
        (Some(Role::Primary), false) => (Level::Degraded, "a former primary, barred".to_owned()),
        (Some(Role::Standby), true) => (
            Level::Failed,
            "the primary in force is in recovery".to_owned(),
        ),
        (Some(Role::Standby), false) => standby(desk, target),
        (None, true) if !desk.servers.has_database() => (
            Level::Operational,
            "the primary in force, answers".to_owned(),
        ),
        (None, false) if !desk.servers.has_database() => (Level::Operational, "answers".to_owned()),
        (None, _) => (Level::Degraded, "does not tell its role".to_owned()),
    };
    Component { status, detail }
}

fn standby(desk: &Desk, target: &Target) -> (Level, String) {
    let max = desk.settings.load().max_lag.as_secs_f64();
    match status::lag_seconds(desk, target) {
        Some(lag) if lag > max => (Level::Degraded, format!("a standby, {lag:.1} s behind")),
        Some(lag) => (Level::Operational, format!("a standby, {lag:.1} s behind")),
        None => (
            Level::Degraded,
            "a standby, how far behind is not known".to_owned(),
        ),
    }
}
