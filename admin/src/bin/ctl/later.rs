//! Verbs of later versions: their command lines are known, so that they are refused by name
//! instead of as typing errors.

use writefence_admin::api::{ApiError, Verb};

/// What the gate would say to a request; not in this version
#[derive(Debug, clap::Args)]
pub(crate) struct ExplainHttp {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    request: Vec<String>,
}

impl ExplainHttp {
    pub(crate) fn refuse(self) -> ApiError {
        let Self { request: _ } = self;
        Verb::ExplainHttp.not_in_this_version()
    }
}
