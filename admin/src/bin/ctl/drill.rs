//! `drill`: a rehearsal that goes back by itself.

use std::time::Duration;

use writefence_admin::api::{ApiError, DrillRequest, Exit};

use crate::args::{self, ExpectArgs};
use crate::context::Context;
use crate::start;

/// Rehearses a move up to its point of no return and goes back: nothing is promoted
///
/// Writes are stopped for as long as that takes, and the old primary is barred for the time, which
/// ends sessions on it that are not ours. With --fence-only it is not touched: fence, drain, measure,
/// reopen.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The region that would be the candidate
    #[arg(long, value_name = "REGION")]
    to: String,
    /// Why, such as the quarter's test; kept in the audit
    #[arg(long, value_name = "ID", default_value = "drill")]
    reason: String,
    /// Fence, drain, measure and reopen, and nothing else
    #[arg(long)]
    fence_only: bool,
    /// Go back if the rehearsal is not through in this time
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    budget: Option<Duration>,
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    let request = DrillRequest {
        to: args.to,
        reason: args.reason,
        fence_only: args.fence_only,
        budget_ms: args.budget.map(args::millis),
    };
    start::start(context, args.expect.into(), request).await
}
