//! `audit show|key|verify`: the record of who did what, and whether it is whole.
//!
//! `verify` asks no daemon: it reads files, wherever they were copied to.

use std::path::PathBuf;

use clap::Subcommand;
use serde::Serialize;
use serde_json::Value;
use writefence_admin::api::{ApiError, AuditPage, Code, Exit, Timestamp};
use writefence_admin::audit::{Line, VerifierKey, verify_dir};
use writefence_admin::client::ClientError;

use crate::context::Context;
use crate::{args, text};

/// Records asked for at a time: an answer of some hundred KiB.
const PAGE: usize = 500;

/// Shows and verifies the audit
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Shows records, the public key and the newest checkpoint
    Show {
        /// Only records of this age or younger (2h), or from this time on (2026-03-01T12:00:00Z)
        #[arg(long, value_name = "TIME", value_parser = since)]
        since: Option<Timestamp>,
        /// Only records of this run
        #[arg(long, value_name = "ID")]
        run: Option<String>,
    },
    /// Prints the public key, which `verify --key` takes
    Key,
    /// Prints the newest signed checkpoint; kept elsewhere, it shows a cut end
    Checkpoint,
    /// Checks the files of an audit, without a daemon; exit 7 if anything is wrong
    Verify {
        /// The folder `audit` of a state directory, or a copy of it
        #[arg(long, value_name = "PATH")]
        dir: PathBuf,
        /// The public key, as `audit key` prints it; without it signatures are not checked
        // Under the name of the option for --url, which a check of files has no use for.
        #[arg(long, value_name = "KEY")]
        key: Option<PathBuf>,
        /// A file with a checkpoint that was kept elsewhere
        #[arg(long, value_name = "FILE")]
        checkpoint: Vec<PathBuf>,
    },
}

impl Args {
    /// Only files are read, so that no option of the connection counts.
    pub(crate) const fn is_offline(&self) -> bool {
        matches!(self.what, What::Verify { .. })
    }
}

/// What `show --json` prints.
#[derive(Serialize)]
struct Shown {
    key: String,
    size: u64,
    checkpoint: String,
    records: Vec<Value>,
}

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    match args.what {
        What::Show { since, run } => show(context, since, run).await,
        What::Key => {
            let page = page(context, u64::MAX).await?;
            let body = serde_json::json!({ "key": page.key });
            context.out.document(&body, |_| page.key.clone());
            Ok(Exit::Done)
        }
        What::Checkpoint => {
            let page = page(context, u64::MAX).await?;
            let body = serde_json::json!({ "checkpoint": page.checkpoint });
            context.out.document(&body, |_| page.checkpoint.clone());
            Ok(Exit::Done)
        }
        What::Verify {
            dir,
            key,
            checkpoint,
        } => verify(context, &dir, key.as_deref(), &checkpoint),
    }
}

async fn page(context: &Context, after: u64) -> Result<AuditPage, ApiError> {
    context
        .client
        .audit(after, PAGE)
        .await
        .map_err(ClientError::into_document)
}

async fn show(
    context: &Context,
    since: Option<Timestamp>,
    run: Option<String>,
) -> Result<Exit, ApiError> {
    let mut found = Vec::new();
    let mut after = 0;
    let last = loop {
        let page = page(context, after).await?;
        for line in &page.lines {
            let record =
                Line::decode(line.as_bytes()).map_err(|error| damaged(&error.to_string()))?;
            let wanted = since.is_none_or(|since| record.entry.at >= since)
                && (run.is_none() || record.entry.run == run);
            if wanted {
                found.push((line.clone(), record));
            }
        }
        if page.end || page.lines.is_empty() {
            break page;
        }
        after = page.last;
    };
    if let Some(why) = &last.broken {
        context.out.line(&format!("! {why}"));
    }
    let value = |(line, _): &(String, Line)| serde_json::from_str(line).ok();
    let shown = Shown {
        records: found.iter().filter_map(value).collect(),
        key: last.key,
        size: last.size,
        checkpoint: last.checkpoint,
    };
    context.out.document(&shown, |shown| {
        let rows: Vec<_> = found.iter().map(|(_, line)| row(line)).collect();
        let mut page = text::table(0, &rows);
        page.push_str(&format!(
            "\n{} of {} records\nkey: {}\n\n{}",
            rows.len(),
            shown.size,
            shown.key,
            shown.checkpoint
        ));
        page
    });
    Ok(Exit::Done)
}

fn row(line: &Line) -> Vec<String> {
    let entry = &line.entry;
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let facts: Vec<String> = entry
        .facts
        .iter()
        .map(|(name, text)| format!("{name}={text}"))
        .collect();
    vec![
        line.seq.to_string(),
        entry.at.to_string(),
        or_none(&entry.group),
        entry.event.to_string(),
        entry
            .verb
            .map_or_else(|| "-".to_owned(), |verb| verb.to_string()),
        entry.outcome.clone(),
        entry.actor.clone(),
        or_none(&entry.reason),
        facts.join(" "),
    ]
}

fn verify(
    context: &Context,
    dir: &std::path::Path,
    key: Option<&std::path::Path>,
    checkpoints: &[PathBuf],
) -> Result<Exit, ApiError> {
    let usage = |text: String| ApiError::new(Code::BadRequest, text);
    let key = key
        .map(|text| {
            VerifierKey::parse(&text.to_string_lossy())
                .map_err(|error| usage(format!("--key: {error}")))
        })
        .transpose()?;
    let mut outside = Vec::new();
    for path in checkpoints {
        let read = std::fs::read_to_string(path);
        outside.push(read.map_err(|e| usage(format!("cannot read {}: {e}", path.display())))?);
    }
    let verdict = verify_dir(dir, key.as_ref(), &outside).map_err(|error| {
        let cause =
            std::error::Error::source(&error).map_or_else(String::new, |e| format!(": {e}"));
        usage(format!("{error}{cause}"))
            .hint("--dir takes the folder `audit` of a state directory, or a copy of it")
    })?;
    let whole = verdict.result();
    context.out.document(&verdict, |verdict| {
        let mut page = String::new();
        for damage in &verdict.damage {
            page.push_str(&format!("{damage}\n"));
        }
        let vouched = match (verdict.signed_size, verdict.signatures_checked) {
            (None, _) => "no checkpoint was found".to_owned(),
            (Some(size), true) => format!("signed up to record {size}"),
            (Some(size), false) => format!(
                "checkpoints up to record {size}, whose signatures were not checked: give --key"
            ),
        };
        page.push_str(&format!(
            "{} records in {} files: {vouched}: {}\n",
            verdict.records,
            verdict.segments,
            if whole.is_ok() { "whole" } else { "DAMAGED" }
        ));
        page
    });
    match whole {
        Ok(()) => Ok(Exit::Done),
        Err(_) => Ok(Exit::VerifyFailed),
    }
}

fn damaged(why: &str) -> ApiError {
    ApiError::new(
        Code::AuditDamaged,
        format!("a record of the audit cannot be read: {why}"),
    )
    .hint("`writefencectl audit verify --dir …` says which")
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = humantime::parse_rfc3339(text) {
        return Ok(Timestamp::new(at));
    }
    let age = args::duration(text)
        .map_err(|error| format!("{error}; or a time as 2026-03-01T12:00:00Z"))?;
    let now = Timestamp::now().as_system_time();
    Ok(Timestamp::new(now - age))
}
