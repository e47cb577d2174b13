//! `open-writes`: lets writes pass, on a server shown to be the primary.

use writefence_admin::api::{ApiError, Exit, OpenWrites};

use crate::args::ExpectArgs;
use crate::context::Context;
use crate::start;

/// Lets writes pass on a region whose server is shown to be the primary
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The region whose server is to take writes
    #[arg(long, value_name = "REGION")]
    primary: String,
    /// Go on although its log does not show that nothing is lost
    #[arg(long)]
    accept_loss: bool,
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    let Args {
        primary,
        accept_loss,
        expect,
    } = args;
    start::start(
        context,
        expect.into(),
        OpenWrites {
            primary,
            accept_loss,
        },
    )
    .await
}
