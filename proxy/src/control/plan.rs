//! A dry run: what a move would do, where, and for how long writes would stop. Touches nothing.
//!
//! Predictions are sums of what was just measured (the servers' round trips, the candidate's lag)
//! and of what is known of promotions; a part that cannot be told makes the sum untold. They are
//! there to choose between `--hold` and `--reject`, not to be held against anybody.

use std::time::Duration;

use writefence_admin::api::{Plan, PlannedStep, RunKind, Step};
use writefence_config::{Hook, Means};

use super::desk::Desk;
use super::loss;
use super::preflight::{Side, Sides};
use super::settings::Settings;
use super::steps::moments;
use crate::clock;

/// From the request until a standby has left recovery; 10 to 65 ms where nothing sleeps.
const PROMOTION: Duration = Duration::from_millis(60);

/// A record on disk.
const FSYNC: Duration = Duration::from_millis(5);

/// A reload of a server's configuration until every backend has it.
const RELOAD: Duration = Duration::from_millis(20);

/// The plan of a switchover or a failover.
pub(crate) fn plan(desk: &Desk, kind: RunKind, sides: &Sides) -> Plan {
    let settings = desk.settings.load();
    let sketch = Sketch {
        desk,
        kind,
        settings: &settings,
        sides,
    };
    let steps: Vec<PlannedStep> = Step::ALL
        .into_iter()
        .map(|step| sketch.step(step))
        .collect();
    let in_gap = steps.iter().filter(|step| step.in_gap);
    let predicted = in_gap.map(|step| step.predicted_ms).sum::<Option<u64>>();
    let bound = match kind {
        RunKind::Failover => None,
        RunKind::Switchover | RunKind::Steps | RunKind::Drill => Some(millis(settings.budget)),
    };
    let (old, new) = (&sides.old.region, &sides.new);
    let loss = (kind == RunKind::Failover)
        .then(|| loss::stated(desk, old, &new.region, new.seen.as_ref().ok()));
    Plan {
        kind,
        steps,
        predicted_gap_ms: predicted,
        bound_ms: bound,
        basis: sketch.basis(),
        loss,
    }
}

struct Sketch<'a> {
    desk: &'a Desk,
    kind: RunKind,
    settings: &'a Settings,
    sides: &'a Sides,
}

impl Sketch<'_> {
    fn step(&self, name: Step) -> PlannedStep {
        let (old, new) = (&self.sides.old.region, &self.sides.new.region);
        let does = match name {
            Step::Preflight => "looks at every condition and logs sessions in ahead".to_owned(),
            Step::Fence => format!("stops new writes: {}", self.answer()),
            Step::Drain => format!(
                "waits until nothing admitted runs, {} at most",
                shown(self.settings.deadline)
            ),
            Step::Evidence => self.evidence(),
            Step::Certificate => "writes down what the promotion rests on".to_owned(),
            Step::CaughtUp | Step::Identity if !self.desk.servers.has_database() => {
                "nothing: there is no database".to_owned()
            }
            Step::Promote if self.settings.promotes.is_empty() => {
                format!("nothing: {new} is as it is")
            }
            Step::Verify if !self.desk.servers.has_database() => {
                "who answers, and your checks".to_owned()
            }
            Step::CaughtUp => format!("waits until {new} has replayed the fence LSN"),
            Step::Pnr => "looks once more, then there is only forward".to_owned(),
            Step::Promote => format!("promotes {new}"),
            Step::Identity => format!("proves that {new} is the successor with all of the log"),
            Step::Hooks => "runs your hooks".to_owned(),
            Step::Open => format!("writes pass on {new}, held ones first"),
            Step::Converge => format!("waits until nobody is logged in to {old}"),
            Step::Verify => "identity, a commit, the other side, your checks".to_owned(),
            Step::Report => "writes the report".to_owned(),
        };
        let mut commands = self.commands(name);
        let hooks = self.hooks(name);
        let hook_time: Duration = hooks.iter().map(|hook| hook.timeout).sum();
        commands.extend(hooks.iter().map(|hook| shown_hook(hook)));
        let own = self.predicted(name);
        PlannedStep {
            name,
            does,
            commands,
            in_gap: (Step::Fence..=Step::Open).contains(&name),
            // How long a user's program takes is not known to anybody here.
            predicted_ms: own.filter(|_| hooks.is_empty()).map(millis),
            at_most_ms: self.bound(name).map(|bound| millis(bound + hook_time)),
        }
    }

    fn answer(&self) -> String {
        match self.settings.answer {
            crate::gate::Answer::Hold => {
                format!("they wait up to {}", shown(self.settings.hold))
            }
            crate::gate::Answer::Reject => "they are refused at once".to_owned(),
        }
    }

    fn evidence(&self) -> String {
        let old = &self.sides.old.region;
        if !self.desk.servers.has_database() {
            return match &self.settings.evidence.stopped {
                Some(_) => format!("has {old} shown to be stopped"),
                None => format!("{old} has no database to bar: the drain, and your word"),
            };
        }
        match (self.kind, &self.sides.old.seen) {
            (RunKind::Failover, Err(_)) => {
                let evidence = &self.settings.evidence;
                let programs = [&evidence.stopped, &evidence.stonith];
                let words = ["stopped", "stonith"].into_iter().zip(programs);
                let named = words.filter(|(_, program)| program.is_some());
                let mut kinds: Vec<&str> = named.map(|(word, _)| word).collect();
                kinds.extend(["sync", "override"]);
                format!(
                    "{old} does not answer: the first that holds of {}",
                    kinds.join(", ")
                )
            }
            _ => format!("bars {old}: read-only, foreign sessions ended; takes the fence LSN"),
        }
    }

    fn commands(&self, step: Step) -> Vec<String> {
        let (old, new) = (&self.sides.old.region, &self.sides.new.region);
        let evidence = &self.settings.evidence;
        if !self.desk.servers.has_database() {
            return self.programs(step);
        }
        match step {
            Step::Evidence if self.sides.old.seen.is_ok() => vec![
                format!("{old}: ALTER SYSTEM SET default_transaction_read_only = on"),
                format!("{old}: SELECT pg_reload_conf()"),
                format!("{old}: SELECT pg_terminate_backend(pid) for each foreign session"),
                format!("{old}: SELECT pg_logical_emit_message(true, 'writefence', RUN)"),
                format!("{old}: SELECT pg_current_wal_insert_lsn(), until it is flushed"),
            ],
            Step::Evidence => {
                let programs = [&evidence.stopped, &evidence.stonith];
                programs
                    .into_iter()
                    .flatten()
                    .map(|words| words.join(" "))
                    .collect()
            }
            Step::CaughtUp => vec![format!("{new}: SELECT pg_last_wal_replay_lsn()")],
            Step::Promote => vec![format!("{new}: {}", self.settings.promotes)],
            Step::Identity => vec![format!("{new}: TIMELINE_HISTORY")],
            Step::Verify => vec![format!(
                "{new}: SELECT pg_logical_emit_message(true, 'writefence', 'canary RUN')"
            )],
            Step::Preflight
            | Step::Fence
            | Step::Drain
            | Step::Certificate
            | Step::Pnr
            | Step::Hooks
            | Step::Open
            | Step::Converge
            | Step::Report => Vec::new(),
        }
    }

    /// What is run where there is no database.
    fn programs(&self, step: Step) -> Vec<String> {
        let words = match step {
            Step::Evidence => self.settings.evidence.stopped.as_ref().map(|w| w.join(" ")),
            Step::Promote => Some(self.settings.promotes.clone()),
            Step::Preflight
            | Step::Fence
            | Step::Drain
            | Step::Certificate
            | Step::CaughtUp
            | Step::Pnr
            | Step::Identity
            | Step::Hooks
            | Step::Open
            | Step::Converge
            | Step::Verify
            | Step::Report => None,
        };
        words
            .into_iter()
            .filter(|words| !words.is_empty())
            .collect()
    }

    fn hooks(&self, step: Step) -> Vec<&Hook> {
        let here = moments(step);
        let hooks = self.desk.hooks.iter();
        hooks.filter(|hook| here.contains(&hook.at)).collect()
    }

    fn predicted(&self, step: Step) -> Option<Duration> {
        let trip = |side: &Side| side.seen.as_ref().ok().map(|_| side.took);
        let (old, new) = (trip(&self.sides.old), trip(&self.sides.new));
        match step {
            Step::Fence | Step::Open => Some(FSYNC),
            Step::Drain => Some(self.drain()),
            Step::Evidence => old.map(|trip| trip * 4 + RELOAD),
            Step::Certificate => Some(Duration::ZERO),
            Step::CaughtUp => Some(new? + self.lag()?),
            Step::Pnr => Some(old.unwrap_or_default().max(new?) + FSYNC),
            Step::Promote if self.settings.promotes.is_empty() => Some(Duration::ZERO),
            Step::Promote if self.settings.by_sql => Some(new? * 2 + PROMOTION),
            Step::Promote => None,
            Step::Identity => new.map(|trip| trip * 2),
            Step::Hooks => Some(Duration::ZERO),
            Step::Preflight | Step::Converge | Step::Verify | Step::Report => None,
        }
    }

    /// Open transactions may go on until the grace; without one a drain takes no time.
    fn drain(&self) -> Duration {
        let counts = self.desk.group.sessions.counts();
        match counts.open_transactions {
            0 => Duration::from_millis(u64::from(counts.executing > 0)),
            _ => self.settings.grace,
        }
    }

    /// What the candidate still has to replay, in time.
    fn lag(&self) -> Option<Duration> {
        let new = self.sides.new.seen.as_ref().ok()?;
        let Ok(old) = &self.sides.old.seen else {
            return Some(Duration::ZERO);
        };
        match old.lsn?.bytes_since(new.replay_lsn?) {
            0 => Some(Duration::ZERO),
            _ => new.replay_age.map(|age| age.min(self.settings.budget)),
        }
    }

    fn bound(&self, step: Step) -> Option<Duration> {
        match step {
            Step::Drain => Some(self.settings.deadline),
            Step::Promote => Some(self.settings.promotion),
            Step::Fence | Step::Evidence | Step::Certificate | Step::CaughtUp | Step::Pnr => {
                (self.kind == RunKind::Switchover).then_some(self.settings.budget)
            }
            Step::Preflight
            | Step::Identity
            | Step::Hooks
            | Step::Open
            | Step::Converge
            | Step::Verify
            | Step::Report => None,
        }
    }

    fn basis(&self) -> String {
        let trip = |side: &Side| match &side.seen {
            Ok(_) => format!("{} answered in {} ms", side.region, side.took.as_millis()),
            Err(_) => format!("{} does not answer", side.region),
        };
        let counts = self.desk.group.sessions.counts();
        let last = self.desk.book.run().filter(|run| run.ended.is_some());
        let last = last
            .and_then(|run| run.write_gap_ms)
            .map_or_else(String::new, |gap| {
                format!("; in the last run writes stopped for {gap} ms")
            });
        format!(
            "{}, {}, {} transactions are open here{last}; at {}",
            trip(&self.sides.old),
            trip(&self.sides.new),
            counts.open_transactions,
            clock::wall()
        )
    }
}

fn shown_hook(hook: &Hook) -> String {
    let what = match &hook.means {
        Means::Command(words) => words.join(" "),
        Means::Http(url) => format!("POST {url}"),
        Means::Sql(sql) => sql.clone(),
    };
    format!("hook {} ({}): {what}", hook.name, hook.at.name())
}

fn shown(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
