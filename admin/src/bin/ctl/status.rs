//! `status`: what is, and what to do next.

use writefence_admin::api::{ApiError, Code, Exit, Run, RunKind, Status, Verb};

use crate::context::Context;
use crate::{start, status_text};

/// Shows phase, primary, lag, what is in flight, the run, and what to do next
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Follow the group's live run until the daemon no longer works on it; exits as the run does
    #[arg(long)]
    follow: bool,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    let status = context.status().await?;
    if args.follow {
        let run = live(status)?;
        let (verb, since) = (verb(&run), run.started);
        return start::finish(context, run, verb, since).await;
    }
    context.out.document(&status, status_text::status);
    Ok(Exit::Done)
}

/// The one run to follow.
fn live(status: Status) -> Result<Run, ApiError> {
    let runs = status.groups.into_iter().filter_map(|group| group.run);
    let mut live: Vec<_> = runs.filter(|run| !run.state.is_final()).collect();
    match (live.pop(), live.is_empty()) {
        (Some(run), true) => Ok(run),
        (Some(_), false) => Err(ApiError::new(
            Code::GroupNotNamed,
            "several groups have a live run",
        )
        .hint("name one with --group")),
        (None, _) => Err(
            ApiError::new(Code::NoLiveRun, "no run is live, nothing to follow")
                .hint("`writefencectl status` shows the last run"),
        ),
    }
}

/// The verb as which following ends.
const fn verb(run: &Run) -> Verb {
    match run.kind {
        RunKind::Steps => Verb::Prepare,
        RunKind::Switchover => Verb::Switchover,
        RunKind::Failover => Verb::Failover,
        RunKind::Drill => Verb::Drill,
    }
}
