//! What to do next, as commands to type; the last lines of `status` and of every run.

use writefence_admin::api::{
    GroupStatus, Phase, RegionStatus, Run, RunKind, RunState, Step, StepRecord, StepState, Verb,
};

/// What the operator should do about a group.
pub(crate) fn of_group(group: &GroupStatus) -> Vec<String> {
    if alarms(group).next().is_some() {
        return vec!["first what SPLIT BRAIN says above: two sides take writes".to_owned()];
    }
    match &group.run {
        Some(run) if !run.state.is_final() => of_run(run),
        _ if group.phase == Phase::Open => match silent_primary(group) {
            Some(silent) => of_silence(group, silent),
            None => vec!["nothing: writes pass".to_owned()],
        },
        _ => vec![format!(
            "fenced, and no run is live: `{} --primary {}` opens writes, after checking the server",
            command(Verb::OpenWrites, &group.name),
            group.primary.as_deref().unwrap_or("REGION"),
        )],
    }
}

/// Notices that come before everything else.
pub(crate) fn alarms(group: &GroupStatus) -> impl Iterator<Item = &String> {
    let is_alarm = |notice: &&String| notice.starts_with("SPLIT BRAIN");
    group.notices.iter().filter(is_alarm)
}

/// The primary in force, if it did not answer when it was last asked.
pub(crate) fn silent_primary(group: &GroupStatus) -> Option<&RegionStatus> {
    let primary = group.primary.as_ref()?;
    let mut regions = group.regions.iter();
    let region = regions.find(|region| region.name == *primary)?;
    (region.reachable == Some(false)).then_some(region)
}

fn of_silence(group: &GroupStatus, silent: &RegionStatus) -> Vec<String> {
    let others = group.regions.iter().filter(|r| r.name != silent.name);
    let mut answering = others.filter(|region| region.reachable == Some(true));
    let to = answering.next().map_or("REGION", |region| &region.name);
    vec![
        format!(
            "when {} answers again writes pass by themselves",
            silent.name
        ),
        format!(
            "if it is gone: `{} --to {to} --reason ID --dry-run` says what moving would lose",
            command(Verb::Failover, &group.name)
        ),
    ]
}

/// What the operator should do about a run.
pub(crate) fn of_run(run: &Run) -> Vec<String> {
    let group = &run.group;
    if run.working {
        let mut next = vec![format!(
            "follow it: `writefencectl status --group {group} --follow`"
        )];
        next.extend(way_back(run));
        return next;
    }
    let due = run.next.filter(|_| !run.state.is_final());
    let mut next: Vec<_> = due.map(|verb| typed(run, verb)).into_iter().collect();
    match run.state {
        RunState::Running | RunState::Interrupted if run.next == Some(Verb::Abort) => {}
        RunState::Running | RunState::Interrupted => next.extend(way_back(run)),
        RunState::Aborting => next.extend(way_forward(run)),
        RunState::Done | RunState::Aborted => {}
        RunState::RolledBack if run.kind == RunKind::Drill && run.error.is_none() => {
            next.push(format!("nothing: writes pass in {}", from(run)));
        }
        RunState::RolledBack => next.push(format!(
            "writes pass in {} again; remove the cause and start again",
            from(run)
        )),
        RunState::Failed => next.push(
            "writes go where `writefencectl status` says; remove the cause and start again".into(),
        ),
    }
    next
}

fn from(run: &Run) -> &str {
    run.from.as_deref().unwrap_or("the old primary")
}

/// A verb with the options that the run already knows.
fn typed(run: &Run, verb: Verb) -> String {
    let command = command(verb, &run.group);
    let to = run.to.as_deref().unwrap_or("REGION");
    let line = match verb {
        Verb::WatchDrain => format!("{command} --max-wait 5m"),
        Verb::Promote => format!("{command} --new-primary {to} --confirm"),
        Verb::OpenWrites | Verb::Verify => format!("{command} --primary {to}"),
        Verb::Resume | Verb::Abort => format!("{command} --run {}", run.id),
        _ => command,
    };
    format!("`{line}`")
}

/// `abort`, as long as there is a way back.
fn way_back(run: &Run) -> Option<String> {
    let pnr = |step: &StepRecord| step.name == Step::Pnr && step.state == StepState::Done;
    let past = run.steps.iter().any(pnr);
    let aborting = run.state == RunState::Aborting;
    (!past && !aborting).then(|| {
        format!(
            "or back: `{} --run {}`",
            command(Verb::Abort, &run.group),
            run.id
        )
    })
}

/// The way back ends on the old primary; where that never answers again, only a failover goes on.
fn way_forward(run: &Run) -> Option<String> {
    Some(format!(
        "if {} is gone: `{} --to {} --reason ID --dry-run` says what moving would lose",
        from(run),
        command(Verb::Failover, &run.group),
        run.to.as_deref()?
    ))
}

fn command(verb: Verb, group: &str) -> String {
    format!("writefencectl {verb} --group {group}")
}
