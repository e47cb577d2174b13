//! What to do next, as commands to type; the last lines of `status` and of every run.

use writefence_admin::api::{GroupStatus, Phase, Run, RunState, Step, StepRecord, StepState, Verb};

/// What the operator should do about a group.
pub(crate) fn of_group(group: &GroupStatus) -> Vec<String> {
    match &group.run {
        Some(run) if !run.state.is_final() => of_run(run),
        _ if group.phase == Phase::Open => vec!["nothing: writes pass".to_owned()],
        _ => vec![format!(
            "fenced, and no run is live: `{} --primary {}` opens writes, after checking the server",
            command(Verb::OpenWrites, &group.name),
            group.primary.as_deref().unwrap_or("REGION"),
        )],
    }
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
    let mut next: Vec<_> = run.next.map(|verb| typed(run, verb)).into_iter().collect();
    match run.state {
        RunState::Running | RunState::Interrupted if run.next == Some(Verb::Abort) => {}
        RunState::Running | RunState::Interrupted => next.extend(way_back(run)),
        RunState::Aborting | RunState::Done | RunState::Aborted => {}
        RunState::RolledBack | RunState::Failed => next.push(
            "writes go where `writefencectl status` says; remove the cause and start again".into(),
        ),
    }
    next
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

fn command(verb: Verb, group: &str) -> String {
    format!("writefencectl {verb} --group {group}")
}
