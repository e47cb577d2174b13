//! `reload`: applies the configuration file again; concerns the whole daemon.

use writefence_admin::api::{ApiError, Exit, ReloadReport};
use writefence_admin::client::ClientError;

use crate::context::Context;

/// Applies the configuration file again; never touches the phase
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(context: &Context, _args: Args) -> Result<Exit, ApiError> {
    let report = context
        .client
        .reload()
        .await
        .map_err(ClientError::into_document)?;
    context.out.document(&report, human);
    Ok(Exit::Done)
}

fn human(report: &ReloadReport) -> String {
    if report.applied.is_empty() && report.needs_restart.is_empty() {
        return "nothing has changed\n".to_owned();
    }
    let mut lines = String::new();
    for key in &report.applied {
        lines.push_str(&format!("applied: {key}\n"));
    }
    for key in &report.needs_restart {
        lines.push_str(&format!("needs a restart, old value stays: {key}\n"));
    }
    lines
}
