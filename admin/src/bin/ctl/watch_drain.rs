//! `watch-drain`: waits until what was admitted has ended; names who has not.

use std::time::Duration;

use writefence_admin::api::{ApiError, Drain, DrainOutcome, Exit, Request, Straggler, WatchDrain};
use writefence_admin::client::ClientError;

use crate::args::{self, ExpectArgs};
use crate::context::Context;
use crate::follow::{self, Followed};
use crate::out::error_text;
use crate::{text, view};

/// Waits until every admitted write has ended; exit 4 when the time runs out
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only if this region is the primary
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// When to give up; the fence stays
    #[arg(long, value_name = "TIME", value_parser = args::duration)]
    max_wait: Duration,
    /// Cancel what is still in flight; its outcome is waited for all the same
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    let max_wait_ms = args::millis(args.max_wait);
    let request = WatchDrain {
        region: args.region,
        max_wait_ms,
        force: args.force,
    };
    request.check()?;
    let group = context.group().await?;
    let sent = context
        .client
        .send(&group, &args.expect.into(), &request)
        .await;
    let drain = sent.map_err(ClientError::into_document)?;
    match follow::drain(context, &group, drain).await? {
        Followed::Ended(drain) => {
            context.out.document(&*drain, human);
            Ok(drain
                .verdict()
                .map_or_else(|error| error.code.exit(), |()| Exit::Done))
        }
        Followed::Interrupted(drain) => {
            context.out.document(&*drain, |drain| {
                let id = &drain.id;
                format!(
                    "drain {id} goes on in the daemon, the fence stays\n  \
                     watch it: writefencectl watch-drain --group {group} --max-wait 5m\n  \
                     take it back: writefencectl abort --group {group}\n"
                )
            });
            Ok(Exit::Interrupted)
        }
    }
}

fn human(drain: &Drain) -> String {
    let mut lines = match drain.outcome {
        None => view::remaining(drain),
        Some(DrainOutcome::Drained) => {
            let told = format!(
                "drained: nothing admitted up to epoch {} is in flight",
                drain.epoch
            );
            match drain.stragglers.len() {
                0 => told,
                n => format!(
                    "{told}; {} will move along, to be ended on the new primary",
                    text::count(n as u64, "prepared transaction")
                ),
            }
        }
        Some(DrainOutcome::DrainedWithUnknown) => format!(
            "drained, with {} accepted: `writefencectl unknown list` names them",
            text::count(drain.unknown, "unknown outcome")
        ),
        Some(DrainOutcome::TimedOut | DrainOutcome::Superseded) => String::new(),
    };
    if let Err(error) = drain.verdict() {
        lines.push_str(&error_text(&error));
    }
    let rows: Vec<_> = drain.stragglers.iter().map(row).collect();
    format!("{}\n{}", lines.trim_end(), text::table(2, &rows))
}

fn row(straggler: &Straggler) -> Vec<String> {
    vec![
        text::word(straggler.kind),
        straggler.id.clone(),
        format!("user {}", text::known(straggler.user.as_ref())),
        format!("database {}", text::known(straggler.database.as_ref())),
        format!("client {}", text::known(straggler.client.as_ref())),
        format!("pid {}", text::known(straggler.pid)),
        format!("for {}", text::known(straggler.age_ms.map(text::ms))),
        text::known(straggler.state.as_ref()),
        straggler.digest.clone().unwrap_or_default(),
    ]
}
