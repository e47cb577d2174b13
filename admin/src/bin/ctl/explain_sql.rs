//! `explain-sql`: what the gate would say to a text, and why.

use std::io::Read;

use writefence_admin::Expect;
use writefence_admin::api::{ApiError, Code, Exit, ExplainSql, ExplainSqlRequest};
use writefence_admin::client::ClientError;

use crate::context::Context;
use crate::text;

/// Says whether a text would pass a fence, and by which rule
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The text as a client would send it; `-` reads standard input
    sql: String,
    /// The database it is meant for [default: the only one in use, else the observer's]
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
}

/// More is refused by the daemon anyway, bytes.
const READ_AT_MOST: u64 = 1024 * 1024;

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    let request = ExplainSqlRequest {
        sql: read(args.sql)?,
        database: args.database,
    };
    let group = context.group().await?;
    let explained = context
        .client
        .send(&group, &Expect::default(), &request)
        .await
        .map_err(ClientError::into_document)?;
    context.out.document(&explained, human);
    Ok(Exit::Done)
}

fn read(sql: String) -> Result<String, ApiError> {
    if sql != "-" {
        return Ok(sql);
    }
    let mut text = String::new();
    match std::io::stdin()
        .take(READ_AT_MOST)
        .read_to_string(&mut text)
    {
        Ok(_) => Ok(text),
        Err(error) => {
            let what = format!("standard input cannot be read: {error}");
            Err(ApiError::new(Code::BadRequest, what).hint("UTF-8 text is accepted"))
        }
    }
}

fn human(explained: &ExplainSql) -> String {
    let by = |decided: &Option<String>| {
        decided
            .as_ref()
            .map_or_else(String::new, |name| format!("by {name}"))
    };
    let rows: Vec<_> = explained
        .statements
        .iter()
        .map(|one| {
            let statement = one.text.split_whitespace().collect::<Vec<_>>().join(" ");
            vec![
                text::word(one.verdict),
                one.kind.clone(),
                one.rule.clone(),
                by(&one.decided_by),
                statement,
            ]
        })
        .collect();
    let database = explained.database.as_deref().unwrap_or("unknown");
    let without = explained
        .no_catalog
        .as_ref()
        .map_or_else(String::new, |why| {
            format!(
                "without the catalog of database {database}: {why}\n\
             names that could stand for a user's objects are left to PostgreSQL\n"
            )
        });
    format!(
        "verdict: {} (database {database})\n{without}{}",
        text::word(explained.verdict),
        text::table(2, &rows)
    )
}
