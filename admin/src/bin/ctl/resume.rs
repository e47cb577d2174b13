//! `resume`: goes on with a run that a restart of the daemon interrupted.

use writefence_admin::api::{ApiError, Exit, Resume};

use crate::args::ExpectArgs;
use crate::context::Context;
use crate::start;

/// Goes on with an interrupted run, from the step it was at
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    start::start(context, args.expect.into(), Resume {}).await
}
