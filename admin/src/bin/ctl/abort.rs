//! `abort`: takes the live run back, before its point of no return.

use writefence_admin::api::{Abort, ApiError, Exit};

use crate::args::ExpectArgs;
use crate::context::Context;
use crate::start;

/// Takes the live run back and opens writes where they were; exit 3 past the point of no return
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    start::start(context, args.expect.into(), Abort {}).await
}
