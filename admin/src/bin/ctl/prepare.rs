//! `prepare`: opens a run of single steps and fences.

use std::time::Duration;

use writefence_admin::api::{ApiError, Exit, FenceAnswer, Prepare};

use crate::args::{self, ExpectArgs};
use crate::context::Context;
use crate::start;

/// Opens a run and stops new writes; reads go on
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The region that is the primary now; anything else is refused
    #[arg(long, value_name = "REGION")]
    primary: String,
    /// Why, such as a ticket; kept in the audit
    #[arg(long, value_name = "ID")]
    reason: String,
    /// Let new writes wait, at most this long, instead of the configured answer
    #[arg(long, value_name = "TIME", value_parser = args::duration, conflicts_with = "reject")]
    hold: Option<Duration>,
    /// Reject new writes at once, instead of the configured answer
    #[arg(long)]
    reject: bool,
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    let answer = match (args.hold, args.reject) {
        (Some(_), _) => Some(FenceAnswer::Hold),
        (None, true) => Some(FenceAnswer::Reject),
        (None, false) => None,
    };
    let request = Prepare {
        primary: args.primary,
        reason: args.reason,
        answer,
        hold_ms: args.hold.map(args::millis),
    };
    start::start(context, args.expect.into(), request).await
}
