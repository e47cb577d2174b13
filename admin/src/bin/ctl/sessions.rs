//! `sessions`: who is connected, and what keeps a session from moving.

use writefence_admin::api::{ApiError, Exit, Session, SessionList};
use writefence_admin::client::ClientError;

use crate::context::Context;
use crate::text;

/// Lists the sessions, what each does, and what keeps it from moving
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(context: &Context, _args: Args) -> Result<Exit, ApiError> {
    let group = context.group().await?;
    let list = context
        .client
        .sessions(&group)
        .await
        .map_err(ClientError::into_document)?;
    context.out.document(&list, human);
    Ok(Exit::Done)
}

fn human(list: &SessionList) -> String {
    let titles = [
        "ID",
        "USER",
        "DATABASE",
        "CLIENT",
        "APPLICATION",
        "REGION",
        "PID",
        "STATE",
        "FOR",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    rows[0].push("MOVES".to_owned());
    rows.extend(list.sessions.iter().map(row));
    let pinned = list
        .sessions
        .iter()
        .filter(|session| !session.movable)
        .count();
    format!(
        "{}{} in group {}, {pinned} cannot move now\n",
        text::table(0, &rows),
        text::count(list.sessions.len() as u64, "session"),
        list.group
    )
}

fn row(session: &Session) -> Vec<String> {
    let pins: Vec<_> = session.pins.iter().map(|pin| pin.reason.as_str()).collect();
    vec![
        session.id.clone(),
        session.user.clone(),
        session.database.clone(),
        text::known(session.client.as_ref()),
        text::known(session.application_name.as_ref()),
        text::known(session.region.as_ref()),
        text::known(session.pid),
        text::word(session.state),
        text::ms(session.since_ms),
        if session.movable {
            "yes".to_owned()
        } else {
            format!("no: {}", pins.join("; "))
        },
    ]
}
