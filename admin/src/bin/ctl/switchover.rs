//! `switchover`: the planned move, whole.

use std::time::Duration;

use writefence_admin::api::{ApiError, Exit, RunKind, SwitchoverRequest};

use crate::args::{self, ExpectArgs};
use crate::context::Context;
use crate::{preflight, start};

/// Moves the primary, both regions alive: nothing acknowledged is lost, or it rolls back
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The candidate's region
    #[arg(long, value_name = "REGION")]
    to: String,
    /// Why, such as a ticket; kept in the audit
    #[arg(long, value_name = "ID")]
    reason: String,
    /// Roll back if the point of no return is not reached in this time
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    budget: Option<Duration>,
    /// Cancel what is still in flight at the drain's deadline
    #[arg(long)]
    force_stragglers: bool,
    /// Show every step, its commands and the predicted gap, and touch nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    if args.dry_run {
        return preflight::dry_run(context, args.to, RunKind::Switchover, args.expect).await;
    }
    let request = SwitchoverRequest {
        to: args.to,
        reason: args.reason,
        budget_ms: args.budget.map(args::millis),
        force_stragglers: args.force_stragglers,
    };
    start::start(context, args.expect.into(), request).await
}
