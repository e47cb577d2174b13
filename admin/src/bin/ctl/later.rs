//! Verbs of later versions: their command lines are known, so that they are refused by name
//! instead of as typing errors.

use writefence_admin::api::{ApiError, Verb};

/// A rehearsal; not in this version
#[derive(Debug, clap::Args)]
pub(crate) struct Drill {
    #[arg(long)]
    to: Option<String>,
    #[arg(long)]
    fence_only: bool,
}

/// The report of a run; not in this version
#[derive(Debug, clap::Args)]
pub(crate) struct Report {
    #[arg(long)]
    run: Option<String>,
    #[arg(long)]
    format: Option<String>,
}

/// Shows and verifies the audit chain; not in this version
#[derive(Debug, clap::Args)]
pub(crate) struct Audit {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    what: Vec<String>,
}

impl Drill {
    pub(crate) fn refuse(self) -> ApiError {
        let Self {
            to: _,
            fence_only: _,
        } = self;
        Verb::Drill.not_in_this_version()
    }
}

impl Report {
    pub(crate) fn refuse(self) -> ApiError {
        let Self { run: _, format: _ } = self;
        Verb::Report.not_in_this_version()
    }
}

impl Audit {
    pub(crate) fn refuse(self) -> ApiError {
        let Self { what: _ } = self;
        Verb::Audit.not_in_this_version()
    }
}
