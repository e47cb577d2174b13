//! `unknown list|ack`: writes whose outcome is not known.

use clap::Subcommand;
use writefence_admin::api::{ApiError, Exit, Request, UnknownAck, UnknownList, UnknownWrite};
use writefence_admin::client::ClientError;

use crate::args::ExpectArgs;
use crate::context::Context;
use crate::text;

/// Lists or acknowledges writes whose outcome is not known
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Lists them
    List,
    /// Takes note of them, so that they no longer block a drain
    Ack {
        /// The writes, as `unknown list` names them
        #[arg(required_unless_present = "all")]
        ids: Vec<String>,
        /// Every write that is not acknowledged yet
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Why it is right to let them go; kept in the audit
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        expect: ExpectArgs,
    },
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    let list = match args.what {
        What::List => {
            let group = context.group().await?;
            context.client.unknown_list(&group).await
        }
        What::Ack {
            ids,
            all,
            reason,
            expect,
        } => {
            let request = UnknownAck { ids, all, reason };
            request.check()?;
            let group = context.group().await?;
            context.client.send(&group, &expect.into(), &request).await
        }
    };
    let list = list.map_err(ClientError::into_document)?;
    context.out.document(&list, human);
    Ok(Exit::Done)
}

fn human(list: &UnknownList) -> String {
    if list.writes.is_empty() {
        return format!("no write of group {} has an unknown outcome\n", list.group);
    }
    let titles = [
        "ID", "AT", "STATE", "REGION", "USER", "DATABASE", "CLIENT", "XID", "DIGEST",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows.extend(list.writes.iter().map(row));
    text::table(0, &rows)
}

fn row(write: &UnknownWrite) -> Vec<String> {
    let state = text::word(write.state);
    vec![
        write.id.clone(),
        write.at.to_string(),
        match &write.acknowledged_by {
            Some(by) => format!("{state} by {by}"),
            None => state,
        },
        text::known(write.region.as_ref()),
        text::known(write.user.as_ref()),
        text::known(write.database.as_ref()),
        text::known(write.client.as_ref()),
        text::known(write.xid),
        text::known(write.digest.as_ref()),
    ]
}
