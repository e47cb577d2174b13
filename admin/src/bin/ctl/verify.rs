//! `verify`: checks the state after the move.

use writefence_admin::api::{ApiError, Exit, Verify};

use crate::args::ExpectArgs;
use crate::context::Context;
use crate::start;

/// Checks that the state after the move is as it should be; exit 7 if not
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The region that should take writes now
    #[arg(long, value_name = "REGION")]
    primary: String,
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    start::start(
        context,
        args.expect.into(),
        Verify {
            primary: args.primary,
        },
    )
    .await
}
