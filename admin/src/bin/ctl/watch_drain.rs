//! `watch-drain`: waits until what was admitted has ended; names who has not.

use std::time::Duration;

use serde::Serialize;
use writefence_admin::Expect;
use writefence_admin::api::{ApiError, Drain, DrainOutcome, Exit, Request, Straggler, WatchDrain};
use writefence_admin::client::ClientError;

use crate::args::{self, ExpectArgs};
use crate::context::Context;
use crate::follow::{self, Followed};
use crate::out::error_text;
use crate::{several, text, view};

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
    let groups = context.groups().await?;
    let expect = Expect::from(args.expect);
    let [group] = groups.as_slice() else {
        return all(context, &expect, &request, &groups).await;
    };
    let sent = context.client.send(group, &expect, &request).await;
    let drain = sent.map_err(ClientError::into_document)?;
    match follow::drain(context, group, drain).await? {
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

/// One command for several groups.
#[derive(Serialize)]
struct Several {
    exit: u8,
    groups: Vec<Drain>,
}

/// Drains of all groups begin at the same time; one that fails to begin ends the command, and the
/// others go on in the daemon.
async fn all(
    context: &Context,
    expect: &Expect,
    request: &WatchDrain,
    groups: &[String],
) -> Result<Exit, ApiError> {
    several::one_each(expect)?;
    let mut begun = Vec::new();
    for group in groups {
        let sent = context.client.send(group, expect, request).await;
        begun.push((group, sent.map_err(ClientError::into_document)?));
    }
    let (mut ended, mut exits) = (Vec::new(), Vec::new());
    for (group, drain) in begun {
        let drain = match follow::drain(context, group, drain).await? {
            Followed::Ended(drain) => {
                let exit = drain
                    .verdict()
                    .map_or_else(|e| e.code.exit(), |()| Exit::Done);
                exits.push(exit);
                *drain
            }
            Followed::Interrupted(drain) => {
                exits.push(Exit::Interrupted);
                *drain
            }
        };
        context
            .out
            .line(&format!("group {group}: {}", human(&drain).trim_end()));
        ended.push(drain);
    }
    let exit = Exit::fold(exits);
    let report = Several {
        exit: exit.code(),
        groups: ended,
    };
    context.out.document(&report, |report| {
        format!("{} groups\n", report.groups.len())
    });
    Ok(exit)
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
