//! Lists and explanations: sessions, unknown writes, a statement's verdict.

use writefence_admin::api::{
    ApiError, Code, ExplainSql, ExplainSqlRequest, ExplainStatement, Moves, Pin, Replication,
    ReplicationKind, Session, SessionList, SessionState, StragglerKind, Timestamp, UnknownAck,
    UnknownList, UnknownState, UnknownWrite, Verdict,
};

use super::desk::Desk;
use super::error::refused;
use crate::pg::catalog::keeper::look_up;
use crate::pg::classify::{self, Eyes, Judgement, Reading, Statement, at_length, judge};
use crate::sessions::{self, SessionView};
use crate::unknown::outcome;

/// Who is connected. While writes pass, each session is asked how it would move; behind a fence
/// what it said last is shown, since its server has better things to do.
pub(crate) async fn sessions(desk: &Desk) -> SessionList {
    if !desk.actor.is_fenced() {
        desk.group.sessions.take_stock().await;
    }
    let sessions = desk
        .group
        .sessions
        .snapshot()
        .into_iter()
        .map(session)
        .collect();
    SessionList {
        group: desk.group.name.clone(),
        sessions,
        replication: replication(desk),
    }
}

fn replication(desk: &Desk) -> Vec<Replication> {
    let asides = desk.group.sessions.asides();
    let shown = asides.iter().filter_map(|aside| {
        let kind = match aside.kind() {
            sessions::AsideKind::Console => return None,
            sessions::AsideKind::Physical => ReplicationKind::Physical,
            sessions::AsideKind::Logical => ReplicationKind::Logical,
        };
        let who = aside.who();
        let (region, pid) = aside
            .backend()
            .map(|(region, pid)| (region.to_string(), pid))
            .unzip();
        let since = aside.started().elapsed().unwrap_or_default();
        Some(Replication {
            id: aside.id().to_string(),
            kind,
            user: who.user.clone(),
            client: who.client.to_string(),
            application_name: Some(who.application_name.clone()).filter(|name| !name.is_empty()),
            region,
            pid,
            since_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        })
    });
    shown.collect()
}

fn session(view: SessionView) -> Session {
    let moves = moves(&view);
    let (region, pid) = view
        .backend
        .map(|(region, pid)| (region.to_string(), pid))
        .unzip();
    Session {
        id: view.id.to_string(),
        user: view.user,
        database: view.database,
        client: Some(view.client.to_string()),
        application_name: Some(view.application_name).filter(|name| !name.is_empty()),
        region,
        state: match view.state {
            sessions::SessionState::LoggingIn => SessionState::LoggingIn,
            sessions::SessionState::Idle => SessionState::Idle,
            sessions::SessionState::Executing => SessionState::Executing,
            sessions::SessionState::InTransaction => SessionState::InTransaction,
            sessions::SessionState::Chained => SessionState::ChainedTransaction,
            sessions::SessionState::Held => SessionState::Held,
            sessions::SessionState::Orphaned => SessionState::Orphaned,
            sessions::SessionState::Moving => SessionState::Moving,
        },
        pid,
        movable: !view.unanswered && view.moves.pins.is_empty(),
        moves,
        replays: view.moves.replays,
        pins: view.moves.pins.into_iter().map(pin).collect(),
        since_ms: u64::try_from(view.since.as_millis()).unwrap_or(u64::MAX),
    }
}

/// What keeps a session from moving keeps it so until it is asked again.
pub(crate) fn moves(view: &SessionView) -> Moves {
    match (&view.moves, view.unanswered) {
        (moves, _) if !moves.pins.is_empty() => Moves::MustEnd,
        (_, true) => Moves::Unknown,
        (moves, false) if moves.replays.is_empty() => Moves::Movable,
        (_, false) => Moves::Replayable,
    }
}

fn pin(pin: sessions::Pin) -> Pin {
    Pin {
        kind: pin.kind.to_owned(),
        reason: pin.reason,
    }
}

/// Writes of unknown outcome.
pub(crate) fn unknown(desk: &Desk) -> UnknownList {
    let writes = desk.group.unknown.list().into_iter().map(write).collect();
    UnknownList {
        group: desk.group.name.clone(),
        writes,
    }
}

fn write(write: crate::unknown::UnknownWrite) -> UnknownWrite {
    let at = serde_json::from_value(serde_json::Value::String(write.at));
    let (state, by) = match write.outcome.split_once(": ") {
        Some((outcome::ACKNOWLEDGED, by)) => (UnknownState::Acknowledged, Some(by.to_owned())),
        Some(_) | None => (state(&write.outcome), None),
    };
    let sql = write.request.is_none() && write.pid != 0;
    UnknownWrite {
        id: write.id.to_string(),
        at: at.unwrap_or_else(|_| Timestamp::now()),
        kind: match write.request {
            Some(_) => StragglerKind::Http,
            None if sql => StragglerKind::Sql,
            None => StragglerKind::Tcp,
        },
        state,
        region: Some(write.region),
        user: sql.then_some(write.user),
        database: sql.then_some(write.database),
        client: Some(write.client),
        pid: sql.then_some(write.pid),
        digest: write.digest,
        idempotency_key: write.idempotency_key,
        request: write.request,
        xid: write.xid,
        acknowledged_by: by,
    }
}

fn state(word: &str) -> UnknownState {
    match word {
        outcome::COMMITTED => UnknownState::Committed,
        outcome::LOST => UnknownState::Lost,
        outcome::PREPARED => UnknownState::Prepared,
        outcome::UNRESOLVABLE => UnknownState::Unresolvable,
        outcome::ACKNOWLEDGED => UnknownState::Acknowledged,
        // Its backend is gone, its outcome still to be found out.
        _ => UnknownState::Unresolved,
    }
}

/// Takes note of writes of unknown outcome.
pub(crate) fn acknowledge(desk: &Desk, by: &str, ask: &UnknownAck) -> Result<(), ApiError> {
    let known = desk.group.unknown.list();
    let mut ids = Vec::new();
    for id in &ask.ids {
        let found = id
            .parse::<u64>()
            .ok()
            .filter(|id| known.iter().any(|w| w.id == *id));
        ids.push(found.ok_or_else(|| {
            refused(
                Code::NoSuchWrite,
                format!("no write of unknown outcome has the id {id}"),
            )
            .hint("`writefencectl unknown list` shows them")
        })?);
    }
    if ask.all {
        let open = known
            .iter()
            .filter(|w| !w.outcome.starts_with(outcome::ACKNOWLEDGED));
        ids = open.map(|w| w.id).collect();
    }
    let noted = format!("{}: {by}: {}", outcome::ACKNOWLEDGED, ask.reason);
    let trail = desk.book.trail();
    for write in known.iter().filter(|write| ids.contains(&write.id)) {
        desk.group.unknown.resolve(write.id, &noted);
        let mut entry = super::unknown::entry(desk, write, outcome::ACKNOWLEDGED);
        by.clone_into(&mut entry.actor);
        entry.reason = Some(ask.reason.clone());
        trail.append(entry);
    }
    trail.sync_soon();
    Ok(())
}

/// What the gate would say to a text.
pub(crate) async fn explain(desk: &Desk, ask: &ExplainSqlRequest) -> ExplainSql {
    let (group, sql) = (&desk.group, ask.sql.as_str());
    let database = ask.database.clone();
    let database = database.unwrap_or_else(|| group.catalogs.usual());
    let eyes = Eyes {
        policy: group.settings.load().policy,
        shelf: look_up(&group.catalogs, &group.targets.accepted(), &database).await,
    };
    let judged = at_length(sql.len(), || {
        judge(sql.as_bytes(), Reading::default(), &eyes)
    });
    let Judgement { statements } = judged.await;
    let worst = statements.iter().max_by_key(|s| s.verdict);
    ExplainSql {
        verdict: worst.map_or(Verdict::Read, |s| verdict(s.verdict)),
        rule: worst.map(|s| s.rule.to_owned()),
        decided_by: worst.and_then(|s| s.decided_by.clone()),
        database: Some(database),
        no_catalog: eyes.shelf.catalog().why_missing().map(str::to_owned),
        statements: statements.iter().map(|s| statement(sql, s)).collect(),
    }
}

fn statement(sql: &str, found: &Statement) -> ExplainStatement {
    let text = sql.get(found.text.clone()).unwrap_or_default();
    ExplainStatement {
        text: text.trim().to_owned(),
        kind: kind(found),
        verdict: verdict(found.verdict),
        rule: found.rule.to_owned(),
        decided_by: found.decided_by.clone(),
    }
}

/// The kind's own name, from `SetTransaction { .. }` to `set_transaction`.
fn kind(found: &Statement) -> String {
    let name = format!("{:?}", found.kind);
    let name = name.split([' ', '{', '(']).next().unwrap_or_default();
    let mut words = String::new();
    for (n, c) in name.chars().enumerate() {
        if n > 0 && c.is_ascii_uppercase() {
            words.push('_');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

fn verdict(verdict: classify::Verdict) -> Verdict {
    match verdict {
        classify::Verdict::Read => Verdict::Read,
        classify::Verdict::Write => Verdict::Write,
        classify::Verdict::Boundary => Verdict::Boundary,
        classify::Verdict::Uncertain => Verdict::Uncertain,
    }
}
