//! `sessions`: who is connected, and what keeps a session from moving.

use writefence_admin::api::{ApiError, Exit, Moves, Replication, Session, SessionList};
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
    let n = |how| list.sessions.iter().filter(|s| s.moves == how).count();
    let replication: Vec<_> = list.replication.iter().map(replicates).collect();
    format!(
        "{}{}{} in group {}: {} move, {} with their state replayed, {} would be ended, {} busy\n",
        text::table(0, &rows),
        text::table(0, &replication),
        text::count(list.sessions.len() as u64, "session"),
        list.group,
        n(Moves::Movable),
        n(Moves::Replayable),
        n(Moves::MustEnd),
        n(Moves::Unknown),
    )
}

/// Under the same titles, as far as they fit.
fn replicates(one: &Replication) -> Vec<String> {
    let kind = text::word(one.kind);
    vec![
        one.id.clone(),
        one.user.clone(),
        format!("({kind} replication)"),
        one.client.clone(),
        text::known(one.application_name.as_ref()),
        text::known(one.region.as_ref()),
        text::known(one.pid),
        "streaming".to_owned(),
        text::ms(one.since_ms),
        "NO: it is ended when the primary moves".to_owned(),
    ]
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
        match session.moves {
            Moves::Movable => "yes".to_owned(),
            Moves::Replayable => format!("yes, with {}", session.replays.join(", ")),
            Moves::MustEnd => format!("NO: {}", pins.join("; ")),
            Moves::Unknown => "busy: cannot be asked yet".to_owned(),
        },
    ]
}
