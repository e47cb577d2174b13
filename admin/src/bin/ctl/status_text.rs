//! `status` for people: what a tired engineer needs first stands first.

use writefence_admin::api::{
    FenceAnswer, GroupStatus, Phase, RegionStatus, Role, Run, RunState, Status, StepState,
};

use crate::{advice, text, view};

/// The whole status.
pub(crate) fn status(status: &Status) -> String {
    if status.groups.is_empty() {
        return "no group is configured\n".to_owned();
    }
    status
        .groups
        .iter()
        .map(group)
        .collect::<Vec<_>>()
        .join("\n")
}

fn group(group: &GroupStatus) -> String {
    // Before anything else, also before which group it is of: two sides take writes.
    let mut text: String = advice::alarms(group)
        .map(|alarm| format!("!! {alarm}\n"))
        .collect();
    if let Some(silent) = advice::silent_primary(group) {
        text.push_str(&format!(
            "!! the primary {} does not answer: writes that pass here fail\n",
            silent.name
        ));
    }
    text.push_str(&format!(
        "group {}: {}  primary {}  epoch {}\n",
        group.name,
        phase(group),
        text::known(group.primary.as_ref()),
        group.epoch
    ));
    let alarms: Vec<_> = advice::alarms(group).collect();
    for notice in group.notices.iter().filter(|n| !alarms.contains(n)) {
        text.push_str(&format!("  ! {notice}\n"));
    }
    text.push_str(&format!(
        "  in flight: {}\n",
        view::in_flight(&group.in_flight)
    ));
    if let Some(drain) = group.drain.as_ref().filter(|drain| drain.outcome.is_none()) {
        text.push_str(&format!("  draining: {}\n", view::remaining(drain)));
    }
    if group.replication > 0 {
        text.push_str(&format!(
            "  replication connections: {}\n",
            group.replication
        ));
    }
    let rows: Vec<_> = group.regions.iter().map(region).collect();
    text.push_str(&text::table(2, &rows));
    if let Some(last) = &group.run {
        text.push_str(&run(last));
    }
    for next in advice::of_group(group) {
        text.push_str(&format!("  next: {next}\n"));
    }
    text
}

fn phase(group: &GroupStatus) -> String {
    let lane = |phase: Phase| {
        if phase == Phase::Fenced {
            "fenced"
        } else {
            "open"
        }
    };
    let (http, sql) = (group.lanes.http.phase, group.lanes.sql.phase);
    match (group.phase, group.answer) {
        (Phase::Fenced, Some(FenceAnswer::Hold)) => "FENCED (writes wait)".to_owned(),
        (Phase::Fenced, Some(FenceAnswer::Reject)) => "FENCED (writes rejected)".to_owned(),
        (Phase::Fenced, None) => "FENCED".to_owned(),
        (Phase::Open, _) if http != sql => {
            format!("OPEN in part (http {}, sql {})", lane(http), lane(sql))
        }
        (Phase::Open, _) => "OPEN".to_owned(),
    }
}

fn region(region: &RegionStatus) -> Vec<String> {
    let role = match region.role {
        Some(Role::Primary) => "primary",
        Some(Role::Standby) => "standby",
        None => "role ?",
    };
    let writable = match region.writable {
        Some(true) => "writable",
        Some(false) => "read-only",
        None => "writable ?",
    };
    let reachable = match region.reachable {
        Some(true) => "reachable",
        Some(false) => "UNREACHABLE",
        None => "not probed",
    };
    let probed = region
        .last_probe_ms
        .map_or_else(String::new, |ms| format!("probed {} ago", text::ms(ms)));
    vec![
        format!("region {}:", region.name),
        region.address.clone().unwrap_or_default(),
        role.to_owned(),
        writable.to_owned(),
        reachable.to_owned(),
        format!("timeline {}", text::known(region.timeline)),
        format!("lsn {}", text::known(region.lsn.as_ref())),
        lag(region),
        probed,
        region.problem.clone().unwrap_or_default(),
    ]
}

fn lag(region: &RegionStatus) -> String {
    if region.role == Some(Role::Primary) {
        return "-".to_owned();
    }
    let bytes = text::known(region.lag_bytes.map(text::bytes));
    let seconds = text::known(region.lag_seconds.map(|seconds| format!("{seconds:.1} s")));
    format!("lag {bytes}, {seconds}")
}

fn run(run: &Run) -> String {
    let behind = |state| matches!(state, StepState::Done | StepState::Skipped);
    let done = run.steps.iter().filter(|step| behind(step.state)).count();
    let at = run.step.map_or_else(String::new, |step| {
        format!(" at {step} ({done} of {} steps behind)", run.steps.len())
    });
    let waits = if run.working || run.state != RunState::Running {
        ""
    } else {
        ", waits for you"
    };
    let mut text = format!(
        "  run {}: {} {} → {} ({}): {}{at}{waits}\n",
        run.id,
        run.kind,
        text::known(run.from.as_ref()),
        text::known(run.to.as_ref()),
        run.reason,
        run.state,
    );
    if let Some(gap) = text::gap(run) {
        text.push_str(&format!("    {gap}\n"));
    }
    if let Some(error) = &run.error {
        text.push_str(&format!("    {} ({})\n", error.message, error.code));
        if let Some(hint) = &error.hint {
            text.push_str(&format!("    {hint}\n"));
        }
    }
    text
}
