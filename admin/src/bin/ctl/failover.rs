//! `failover`: the unplanned move, whole.

use writefence_admin::api::{ApiError, Exit, FailoverRequest, RunKind};

use crate::args::ExpectArgs;
use crate::context::Context;
use crate::{preflight, start};

/// Moves the primary when the old one is gone: what it did not ship is lost
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The candidate's region
    #[arg(long, value_name = "REGION")]
    to: String,
    /// Why, such as an incident; kept in the audit
    #[arg(long, value_name = "ID")]
    reason: String,
    /// Yes, writes that the old primary did not ship may be lost
    #[arg(long)]
    accept_loss: bool,
    /// Yes, promote
    #[arg(long)]
    confirm: bool,
    /// Show every step, its commands and the predicted gap, and touch nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    let Args {
        to,
        reason,
        accept_loss,
        confirm,
        dry_run,
        expect,
    } = args;
    if dry_run {
        return preflight::dry_run(context, to, RunKind::Failover, expect).await;
    }
    let request = FailoverRequest {
        to,
        reason,
        accept_loss,
        confirm,
    };
    start::start(context, expect.into(), request).await
}
