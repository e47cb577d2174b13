//! The way of every verb that starts or advances a run: check, send, follow, print, exit code.

use writefence_admin::Expect;
use writefence_admin::api::{
    ApiError, Exit, Request, Run, RunKind, RunState, Step, Timestamp, Verb,
};
use writefence_admin::client::ClientError;

use crate::context::Context;
use crate::follow::{self, Followed};
use crate::out::error_text;
use crate::{advice, several, text};

/// Sends a verb and follows its run until the daemon no longer works on it.
pub(crate) async fn start<R>(
    context: &Context,
    expect: Expect,
    request: R,
) -> Result<Exit, ApiError>
where
    R: Request<Answer = Run>,
{
    request.check()?;
    let groups = context.groups().await?;
    let [group] = groups.as_slice() else {
        return several::start(context, &expect, &request, &groups).await;
    };
    let since = Timestamp::now();
    let run = context
        .client
        .send(group, &expect, &request)
        .await
        .map_err(ClientError::into_document)?;
    finish(context, run, R::VERB, since).await
}

/// Follows a run that somebody started, shows what happened from `since` on, and ends as `verb`
/// would.
pub(crate) async fn finish(
    context: &Context,
    run: Run,
    verb: Verb,
    since: Timestamp,
) -> Result<Exit, ApiError> {
    match follow::run(context, run, since).await? {
        Followed::Ended(run) => {
            let exit = run.verdict(verb);
            context.out.document(&*run, |run| {
                let mut lines = String::new();
                if verb == Verb::Verify {
                    lines.push_str(&verified(run));
                }
                lines + &ended(run, exit)
            });
            Ok(exit)
        }
        Followed::Interrupted(run) => {
            context.out.document(&*run, goes_on);
            Ok(Exit::Interrupted)
        }
    }
}

/// The last lines: how it ended, what it took, what comes next.
pub(crate) fn ended(run: &Run, exit: Exit) -> String {
    let mut lines = format!("{}\n", headline(run));
    for exception in &run.exceptions {
        lines.push_str(&format!("  waived: {exception}\n"));
    }
    if let Some(error) = &run.error
        && exit != Exit::Done
    {
        // What it says to do was for a run that stands; a run that went back begins anew.
        let hint = error
            .hint
            .clone()
            .filter(|_| run.state != RunState::RolledBack);
        lines.push_str(&error_text(&ApiError {
            hint,
            ..error.clone()
        }));
    }
    for next in advice::of_run(run) {
        lines.push_str(&format!("  next: {next}\n"));
    }
    lines
}

/// What was looked at, and not only that nothing was found.
fn verified(run: &Run) -> String {
    let step = run.steps.iter().find(|step| step.name == Step::Verify);
    let findings = step.map_or(&[][..], |step| &step.findings);
    findings
        .iter()
        .map(|f| format!("  {} {}: {}\n", text::word(f.level), f.name, f.sentence))
        .collect()
}

fn headline(run: &Run) -> String {
    let (from, to) = (text::known(run.from.as_ref()), run.to.as_deref());
    let what = match to {
        Some(to) => format!("{} {from} → {to}", run.kind),
        None => format!("{} from {from}", run.kind),
    };
    let how = match (run.state, run.step) {
        (RunState::Running, Some(step)) if run.error.is_some() => format!("stopped at {step}"),
        (RunState::Running, Some(step)) => format!("waits after {step}"),
        (RunState::RolledBack, _) if run.kind == RunKind::Drill && run.error.is_none() => {
            "rehearsed, everything held".to_owned()
        }
        (state, _) => state.to_string(),
    };
    let gap = text::gap(run).map_or_else(String::new, |gap| format!(", {gap}"));
    format!("run {}: {what}: {how}{gap}", run.id)
}

/// After Ctrl-C: nothing was stopped, and that has to be said.
fn goes_on(run: &Run) -> String {
    let (id, group) = (&run.id, &run.group);
    format!(
        "run {id} goes on in the daemon; only following it has ended\n  \
         watch it: writefencectl status --group {group} --follow\n  \
         take it back: writefencectl abort --group {group} --run {id}\n"
    )
}
