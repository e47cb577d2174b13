//! One command for several groups: all are looked at before one is begun, all are told of together.
//!
//! Each group has a run of its own, and they advance at the same time in the daemon; a group that
//! stops does not stop the others, whose writes are already fenced. The exit code is the worst of
//! all, by `Exit::WORST_FIRST`.

use serde::Serialize;
use writefence_admin::Expect;
use writefence_admin::api::{
    ApiError, Code, Exit, Level, PreflightRequest, Request, Run, RunKind, Timestamp, Verb,
};
use writefence_admin::client::ClientError;

use crate::context::Context;
use crate::follow::{self, Followed};
use crate::out::error_text;
use crate::{preflight, start};

/// How one group's command ended.
#[derive(Serialize)]
pub(crate) struct Ended {
    group: String,
    exit: u8,
    run: Option<Run>,
    error: Option<ApiError>,
    #[serde(skip)]
    how: Exit,
}

/// The report of all.
#[derive(Serialize)]
pub(crate) struct Report {
    exit: u8,
    groups: Vec<Ended>,
}

/// Sends a verb to every group and follows all runs.
pub(crate) async fn start<R>(
    context: &Context,
    expect: &Expect,
    request: &R,
    groups: &[String],
) -> Result<Exit, ApiError>
where
    R: Request<Answer = Run>,
{
    one_each(expect)?;
    let whole = match R::VERB {
        Verb::Switchover => Some(RunKind::Switchover),
        Verb::Failover => Some(RunKind::Failover),
        _ => None,
    };
    if let Some(kind) = whole {
        all_clear(context, request, kind, groups).await?;
    }
    let since = Timestamp::now();
    let mut begun = Vec::new();
    for group in groups {
        let sent = context.client.send(group, expect, request).await;
        begun.push((group, sent.map_err(ClientError::into_document)));
    }
    let mut ended = Vec::new();
    for (group, run) in begun {
        context.out.line(&format!("group {group}:"));
        let one = match run {
            Ok(run) => followed(context, group, run, R::VERB, since).await,
            Err(error) => failed(group, error),
        };
        context.out.line(one.text().trim_end());
        ended.push(one);
    }
    Ok(report(context, ended))
}

/// A run and an epoch are of one group.
pub(crate) fn one_each(expect: &Expect) -> Result<(), ApiError> {
    if *expect == Expect::default() {
        return Ok(());
    }
    let what = "--run and --epoch are of one group, and several are named";
    Err(ApiError::new(Code::BadRequest, what).hint("repeat the command for each group"))
}

/// Nothing is begun anywhere while something stands in the way somewhere.
async fn all_clear<R: Request>(
    context: &Context,
    request: &R,
    kind: RunKind,
    groups: &[String],
) -> Result<(), ApiError> {
    let fields = serde_json::to_value(request).unwrap_or_default();
    let to = fields["to"].as_str().unwrap_or_default().to_owned();
    let ask = PreflightRequest {
        to,
        plan: Some(kind),
    };
    let mut blocked = Vec::new();
    for group in groups {
        let found = preflight::asked(context, group, &Expect::default(), &ask).await?;
        let blocks = found.findings.iter().filter(|f| f.level == Level::Block);
        blocked.extend(blocks.map(|f| format!("group {group}: {}", f.sentence)));
    }
    if blocked.is_empty() {
        return Ok(());
    }
    Err(ApiError::new(Code::PreflightBlocked, blocked.join("; "))
        .hint("nothing was begun in any group; remove the cause, or leave that group out"))
}

async fn followed(context: &Context, group: &str, run: Run, verb: Verb, since: Timestamp) -> Ended {
    let (run, how) = match follow::run(context, run, since).await {
        Err(error) => return failed(group, error),
        Ok(Followed::Ended(run)) => {
            let how = run.verdict(verb);
            (*run, how)
        }
        Ok(Followed::Interrupted(run)) => (*run, Exit::Interrupted),
    };
    Ended {
        group: group.to_owned(),
        exit: how.code(),
        error: None,
        run: Some(run),
        how,
    }
}

fn failed(group: &str, error: ApiError) -> Ended {
    let how = error.code.exit();
    Ended {
        group: group.to_owned(),
        exit: how.code(),
        run: None,
        error: Some(error),
        how,
    }
}

impl Ended {
    fn text(&self) -> String {
        match (&self.run, &self.error) {
            (Some(run), _) => start::ended(run, self.how),
            (None, Some(error)) => error_text(error),
            (None, None) => String::new(),
        }
    }
}

/// What became of each, once more and together: the eye ends up here.
fn report(context: &Context, groups: Vec<Ended>) -> Exit {
    let exit = Exit::fold(groups.iter().map(|one| one.how));
    let report = Report {
        exit: exit.code(),
        groups,
    };
    context.out.document(&report, |report| {
        let line = |one: &Ended| format!("  {}: exit {}\n", one.group, one.exit);
        let lines: String = report.groups.iter().map(line).collect();
        format!("{} groups:\n{lines}", report.groups.len())
    });
    exit
}
