//! `preflight`: the conditions of a move, without moving.

use serde::Serialize;
use writefence_admin::Expect;
use writefence_admin::api::{ApiError, Exit, Level, Preflight, PreflightRequest, RunKind};
use writefence_admin::client::ClientError;

use crate::args::ExpectArgs;
use crate::context::Context;
use crate::{plan_text, text};

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
    show(context, args.to, None, args.expect).await
}

/// The conditions of a move and what it would do, for `--dry-run`.
pub(crate) async fn dry_run(
    context: &Context,
    to: String,
    kind: RunKind,
    expect: ExpectArgs,
) -> Result<Exit, ApiError> {
    show(context, to, Some(kind), expect).await
}

async fn show(
    context: &Context,
    to: String,
    plan: Option<RunKind>,
    expect: ExpectArgs,
) -> Result<Exit, ApiError> {
    let groups = context.groups().await?;
    let expect = Expect::from(expect);
    let request = PreflightRequest { to, plan };
    if let [group] = groups.as_slice() {
        let found = asked(context, group, &expect, &request).await?;
        context.out.document(&found, human);
        return Ok(exit(&found));
    }
    let mut all = Vec::new();
    for group in &groups {
        all.push(asked(context, group, &expect, &request).await?);
    }
    let exit = Exit::fold(all.iter().map(exit));
    let document = Several { groups: all };
    let text = |all: &Several| all.groups.iter().map(human).collect();
    context.out.document(&document, text);
    Ok(exit)
}

/// One command for several groups.
#[derive(Serialize)]
struct Several {
    groups: Vec<Preflight>,
}

/// One group's answer.
pub(crate) async fn asked(
    context: &Context,
    group: &str,
    expect: &Expect,
    request: &PreflightRequest,
) -> Result<Preflight, ApiError> {
    let sent = context.client.send(group, expect, request).await;
    sent.map_err(ClientError::into_document)
}

const fn exit(found: &Preflight) -> Exit {
    match found.level {
        Level::Block => Exit::Precondition,
        Level::Pass | Level::Warn => Exit::Done,
    }
}

/// What blocks stands last, where the eye ends up.
pub(crate) fn human(found: &Preflight) -> String {
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
    let plan = found.plan.as_ref().map(plan_text::human);
    format!(
        "{}{}group {}, {from} → {}: {verdict}\n",
        text::table(0, &rows),
        plan.unwrap_or_default(),
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
