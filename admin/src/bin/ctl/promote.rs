//! `promote`: evidence, certificate, point of no return, promotion.

use writefence_admin::api::{ApiError, Exit, Promote};

use crate::args::ExpectArgs;
use crate::context::Context;
use crate::start;

/// Bars the old primary and promotes the candidate; there is no way back behind it
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The candidate's region
    #[arg(long, value_name = "REGION")]
    new_primary: String,
    /// Yes, promote
    #[arg(long)]
    confirm: bool,
    /// Go on although writes may be lost or their outcome unknown
    #[arg(long)]
    accept_loss: bool,
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    let Args {
        new_primary,
        confirm,
        accept_loss,
        expect,
    } = args;
    let request = Promote {
        new_primary,
        confirm,
        accept_loss,
    };
    start::start(context, expect.into(), request).await
}
