//! `preflight`: the conditions of a move, without moving.

use writefence_admin::Expect;
use writefence_admin::api::{ApiError, Exit, Level, Preflight, PreflightRequest};
use writefence_admin::client::ClientError;

use crate::args::ExpectArgs;
use crate::context::Context;
use crate::text;

/// Checks the conditions of a move without moving; exit 3 if one blocks
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The candidate's region
    #[arg(long, value_name = "REGION")]
    to: String,
    #[command(flatten)]
    expect: ExpectArgs,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    let group = context.group().await?;
    let request = PreflightRequest { to: args.to };
    let found = context
        .client
        .send(&group, &Expect::from(args.expect), &request)
        .await
        .map_err(ClientError::into_document)?;
    context.out.document(&found, human);
    Ok(if found.level == Level::Block {
        Exit::Precondition
    } else {
        Exit::Done
    })
}

/// What blocks stands last, where the eye ends up.
fn human(found: &Preflight) -> String {
    let mut findings: Vec<_> = found.findings.iter().collect();
    findings.sort_by_key(|finding| finding.level);
    let rows: Vec<_> = findings
        .iter()
        .map(|finding| {
            vec![
                word(finding.level).into(),
                finding.name.clone(),
                finding.sentence.clone(),
            ]
        })
        .collect();
    let verdict = match found.level {
        Level::Pass => "nothing stands in the way",
        Level::Warn => "possible, with the warnings above",
        Level::Block => "blocked: see above",
    };
    let from = text::known(found.from.as_ref());
    format!(
        "{}group {}, {from} → {}: {verdict}\n",
        text::table(0, &rows),
        found.group,
        found.to
    )
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Pass => "pass",
        Level::Warn => "WARN",
        Level::Block => "BLOCK",
    }
}
