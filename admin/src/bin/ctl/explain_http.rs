//! `explain-http`: what the gate would say to a request, and why.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use writefence_admin::Expect;
use writefence_admin::api::{
    ApiError, Code, Exit, ExplainHttp, ExplainHttpListener, ExplainHttpRequest,
};
use writefence_admin::client::ClientError;

use crate::context::Context;
use crate::text;

/// Says whether a request would pass a fence, and by which rule
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The method, as a client would send it: upper case matters
    method: String,
    /// A URL such as `https://api.example.com/orders?x=1`, or only its path
    #[arg(id = "request_url", value_name = "URL")]
    url: String,
    /// A header of it; repeat for more
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// Its body; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    body_file: Option<PathBuf>,
}

/// More is refused by the daemon anyway, bytes.
const READ_AT_MOST: u64 = 64 * 1024;

pub(crate) async fn run(context: &Context, args: Args) -> Result<Exit, ApiError> {
    let request = ExplainHttpRequest {
        method: args.method,
        url: args.url,
        headers: args.header,
        body: args.body_file.as_deref().map(read).transpose()?,
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

fn read(path: &Path) -> Result<String, ApiError> {
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin()
            .take(READ_AT_MOST)
            .read_to_string(&mut text),
        false => {
            File::open(path).and_then(|file| file.take(READ_AT_MOST).read_to_string(&mut text))
        }
    };
    match read {
        Ok(_) => Ok(text),
        Err(error) => {
            let what = format!("{} cannot be read: {error}", path.display());
            Err(ApiError::new(Code::BadRequest, what)
                .hint("UTF-8 text of up to 64 KiB is accepted"))
        }
    }
}

fn human(explained: &ExplainHttp) -> String {
    let rows: Vec<_> = explained.listeners.iter().map(row).collect();
    format!(
        "verdict: {}\n{}",
        text::word(explained.verdict),
        text::table(2, &rows)
    )
}

fn row(one: &ExplainHttpListener) -> Vec<String> {
    let route = match one.route {
        Some(n) => format!("route {n}"),
        None => "no route".to_owned(),
    };
    vec![
        one.address.clone(),
        text::word(one.verdict),
        one.rule.clone(),
        route,
    ]
}
