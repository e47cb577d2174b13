//! `report`: what a run did and what it cost.

use clap::ValueEnum;
use writefence_admin::api::{ApiError, Code, Exit};
use writefence_admin::client::ClientError;
use writefence_admin::report::markdown;

use crate::context::Context;
use crate::out::Out;

/// The report of a run: steps, gaps, objectives, evidence, audit
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run; by default the group's live or last one
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// As what to print it; --json is the same as json
    #[arg(long, value_name = "FORMAT", default_value = "md")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Markdown
    Md,
    /// One document; its schema is admin/report.schema.json in the sources
    Json,
    /// Not in this version
    Html,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    if args.format == Format::Html {
        let what = "`report --format html` is not in this version";
        return Err(ApiError::new(Code::NotInThisVersion, what)
            .hint("`--format md` can be turned into HTML by any Markdown program"));
    }
    let id = match args.run {
        Some(id) => id,
        None => last_run(context).await?,
    };
    let report = context
        .client
        .report(&id)
        .await
        .map_err(ClientError::into_document)?;
    let out = match args.format {
        Format::Json => Out::new(true),
        Format::Md | Format::Html => context.out,
    };
    out.document(&report, markdown);
    Ok(Exit::Done)
}

async fn last_run(context: &Context) -> Result<String, ApiError> {
    let group = context.group().await?;
    let status = context
        .client
        .status()
        .await
        .map_err(ClientError::into_document)?;
    let found = status.groups.into_iter().find(|g| g.name == group);
    let run = found.and_then(|group| group.run);
    run.map(|run| run.id).ok_or_else(|| {
        ApiError::new(Code::NoSuchRun, format!("group {group} has had no run"))
            .hint("`report --run ID` takes the id that a run printed at its end")
    })
}
