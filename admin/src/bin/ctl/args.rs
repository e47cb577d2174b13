//! The command line: options that every verb takes, and the list of verbs.
//!
//! Options of a verb stand in the verb's own file. Whether a combination makes sense is decided by
//! the request's own check, so that the socket and the command line refuse the same things.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use writefence_admin::api::{ApiError, Exit};
use writefence_admin::{Expect, client};

use crate::context::Context;
use crate::{
    abort, audit, drill, explain_http, explain_sql, failover, open_writes, preflight, prepare,
    promote, reload, report, resume, sessions, status, switchover, unknown, verify, watch_drain,
};

/// Moves the writable primary of PostgreSQL between regions, and says what is going on.
///
/// A run is executed by the daemon; this program asks and follows. Ctrl-C while following ends the
/// following only: the run goes on.
#[derive(Debug, Parser)]
#[command(name = "writefencectl", version, after_help = exit_codes())]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The daemon's admin socket [default: $WRITEFENCE_SOCKET, else /run/writefence/admin.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// The group, several with commas, or `all`; may be left out if there is only one
    #[arg(long, global = true, value_name = "G|G,H|all")]
    pub(crate) group: Option<String>,
    /// Print one JSON document on standard output and nothing else, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// With --json: print each event of a run as a line of its own before the document
    #[arg(long, global = true, requires = "json")]
    pub(crate) events: bool,
    /// How long an answer of the daemon may take
    #[arg(long, global = true, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// The daemon's TCP address; not in this version
    #[arg(long, global = true, hide = true)]
    pub(crate) url: Option<String>,
    /// Client certificate for --url; not in this version
    #[arg(long, global = true, hide = true)]
    pub(crate) cert: Option<PathBuf>,
    /// Key of --cert; not in this version
    #[arg(long, global = true, hide = true)]
    pub(crate) key: Option<PathBuf>,
    /// Authority for --url; not in this version
    #[arg(long, global = true, hide = true)]
    pub(crate) ca: Option<PathBuf>,
}

/// What must be so, or nothing is done (exit 6).
#[derive(Debug, clap::Args)]
pub(crate) struct ExpectArgs {
    /// Only if this run is the live one
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Only if the group is at this epoch
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
}

impl From<ExpectArgs> for Expect {
    fn from(args: ExpectArgs) -> Self {
        Self {
            run: args.run,
            epoch: args.epoch,
        }
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Status(status::Args),
    Preflight(preflight::Args),
    Prepare(prepare::Args),
    WatchDrain(watch_drain::Args),
    Promote(promote::Args),
    OpenWrites(open_writes::Args),
    Verify(verify::Args),
    Switchover(switchover::Args),
    Failover(failover::Args),
    Abort(abort::Args),
    Resume(resume::Args),
    Sessions(sessions::Args),
    ExplainSql(explain_sql::Args),
    ExplainHttp(explain_http::Args),
    Unknown(unknown::Args),
    Reload(reload::Args),
    Drill(drill::Args),
    Report(report::Args),
    Audit(audit::Args),
}

impl Command {
    /// Runs the verb to its exit code.
    pub(crate) async fn run(self, context: &Context) -> Result<Exit, ApiError> {
        match self {
            Self::Status(args) => status::run(context, args).await,
            Self::Preflight(args) => preflight::run(context, args).await,
            Self::Prepare(args) => prepare::run(context, args).await,
            Self::WatchDrain(args) => watch_drain::run(context, args).await,
            Self::Promote(args) => promote::run(context, args).await,
            Self::OpenWrites(args) => open_writes::run(context, args).await,
            Self::Verify(args) => verify::run(context, args).await,
            Self::Switchover(args) => switchover::run(context, args).await,
            Self::Failover(args) => failover::run(context, args).await,
            Self::Abort(args) => abort::run(context, args).await,
            Self::Resume(args) => resume::run(context, args).await,
            Self::Sessions(args) => sessions::run(context, args).await,
            Self::ExplainSql(args) => explain_sql::run(context, args).await,
            Self::Unknown(args) => unknown::run(context, args).await,
            Self::Reload(args) => reload::run(context, args).await,
            Self::Drill(args) => drill::run(context, args).await,
            Self::Report(args) => report::run(context, args).await,
            Self::Audit(args) => audit::run(context, args).await,
            Self::ExplainHttp(args) => explain_http::run(context, args).await,
        }
    }
}

/// A duration with its unit; a bare number is refused.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; a number with its unit is accepted, as 500ms, 20s, 5m"))
}

/// Whole milliseconds, as requests carry durations.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Where the daemon is, by the rule that `--socket`'s help states.
pub(crate) fn socket(global: &Global) -> PathBuf {
    let from_environment = || std::env::var_os("WRITEFENCE_SOCKET").map(PathBuf::from);
    global
        .socket
        .clone()
        .or_else(from_environment)
        .unwrap_or_else(|| client::DEFAULT_SOCKET.into())
}

fn exit_codes() -> String {
    let mut text = "Exit codes:".to_owned();
    for (exit, meaning) in Exit::TABLE {
        text.push_str(&format!("\n  {:>3}  {meaning}", exit.code()));
    }
    text
}
