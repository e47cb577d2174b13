//! Replication connections, physical (`replication=true`) and logical (`replication=database`).
//!
//! They are passed on as they are and counted apart: none holds a permit, so none may write. A
//! logical one can run SQL; it is logged in read-only, and each of its statements is judged before
//! it goes on. While fenced, commands that change the server (slots, base backups) are refused, and
//! streaming goes on: the candidate may be fed through here. When the primary has moved, they are
//! ended with 57P01 and the reason: what they stream from there is not the primary's log any more.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::watch;

use super::auth::Admitted;
use super::begin::unreached;
use super::classify::{Eyes, Kind, Verdict, judge};
use super::frame::{PARSE_KEPT, cstr, head, is_client_tag, put};
use super::leg::{Leg, with_scratch};
use super::listener::say;
use super::message::{Report, body, parameter, parameter_of, ready};
use super::refuse;
use super::replay::{self, VIRTUAL};
use super::server::Server;
use super::startup::Startup;
use super::wall::NAME;
use crate::gate::{Lane, Phase};
use crate::group::Group;
use crate::sessions::{AsideGuard, AsideKind, Asked, Full, Key, Who};
use crate::tls::Stream;
use crate::upstream::wire::{LoginError, cancel, login, login_through};

/// Commands of the replication protocol that only look or stream.
const PASS: [&str; 5] = [
    "IDENTIFY_SYSTEM",
    "READ_REPLICATION_SLOT",
    "START_REPLICATION",
    "TIMELINE_HISTORY",
    "UPLOAD_MANIFEST",
];

/// Commands of it that change the server, or write to its log.
const CHANGE: [&str; 4] = [
    "ALTER_REPLICATION_SLOT",
    "BASE_BACKUP",
    "CREATE_REPLICATION_SLOT",
    "DROP_REPLICATION_SLOT",
];

/// How long the last words to a client may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Which replication a client asks for; `None`: it does not.
pub(crate) fn kind(startup: &Startup) -> Option<AsideKind> {
    match startup.param("replication")? {
        "database" => Some(AsideKind::Logical),
        value if is_false(value) => None,
        // What is neither, the server refuses in its own words.
        _ => Some(AsideKind::Physical),
    }
}

/// As PostgreSQL reads it, in any case and cut short (`parse_bool`): what it takes for an ordinary
/// session has to be one here.
fn is_false(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    let cut = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    cut("false", 1) || cut("no", 1) || cut("off", 2) || value == "0"
}

/// Serves one from its login to its end.
pub(super) async fn serve(
    group: Arc<Group>,
    mut stream: Stream,
    who: Who,
    kind: AsideKind,
    startup: Startup,
    admitted: Admitted,
) {
    let most = group.settings.load().sessions.all;
    let key = Key::new(startup.spoken());
    let there = group.sessions.len() + group.sessions.replicating();
    let aside = match group.sessions.enter_aside(kind, who.clone(), key) {
        Some(aside) if there < most => aside,
        Some(_) | None => {
            let totals = &group.sessions.totals;
            totals.refused.fetch_add(1, Ordering::Relaxed);
            return say(&mut stream, &refuse::full(Full::All(most), &who)).await;
        }
    };
    let client = replay::Who {
        params: Arc::new(params(kind, &startup.params)),
        minor: startup.spoken(),
        proof: admitted.proof,
    };
    let mut asked = aside.asked();
    let through = admitted.passed_through.then_some(&mut stream);
    // Ended while it logs in, it logs in no further.
    let made = tokio::select! {
        biased;
        why = end_asked(&mut asked) => Err(told(&refuse::ended(&why))),
        made = log_in(&group, &client, through) => made,
    };
    let server = match made {
        Ok(server) => server,
        Err(refusal) => {
            let mut client = Leg::new(stream);
            client.queue().extend_from_slice(&refusal);
            let _ = tokio::time::timeout(LAST_WORDS, client.flush()).await;
            return;
        }
    };
    let region = server.target.region.clone();
    aside.set_backend(region.clone(), server.pid);
    tracing::info!(
        id = aside.id(), user = who.user, client = %who.client, %region, ?kind,
        "a replication connection"
    );
    let pid = server.pid;
    let may_run_sql = kind == AsideKind::Logical;
    let mut passing = Passing::new(&group, aside, asked, server, stream, may_run_sql);
    let why = passing.run().await;
    passing.end(why).await;
    group.logins.closed(region.as_str(), pid);
}

/// Logs in on the accepted target. The error is what the client is told, framed.
async fn log_in(
    group: &Arc<Group>,
    who: &replay::Who,
    through: Option<&mut Stream>,
) -> Result<Server, Vec<u8>> {
    let target = group.targets.accepted();
    let timeout = group.settings.load().login_timeout;
    let as_whom = replay::login_as(&target, who, timeout);
    let made = match through {
        Some(client) => login_through(&target.endpoint, &as_whom, &|_| {}, client).await,
        None => login(&target.endpoint, &as_whom).await,
    };
    let refusal = match made {
        Ok(connected) => {
            group.logins.opened(target.region.as_str(), connected.pid);
            return Ok(Server::new(connected, target, &group.params));
        }
        Err(LoginError::Server { source: said, .. }) => {
            let mut refusal = Vec::new();
            put(&mut refusal, b'E', &[&said.raw]);
            refusal
        }
        Err(e) => unreached(&target, Duration::ZERO, &e),
    };
    let failures = &group.sessions.totals.login_failures;
    failures.fetch_add(1, Ordering::Relaxed);
    Err(refusal)
}

/// Waits until it is asked to end, and says so in the client's words.
async fn end_asked(asked: &mut watch::Receiver<Asked>) -> String {
    let end = asked.wait_for(|asked| asked.end.is_some()).await;
    let why = end.ok().and_then(|asked| asked.end.clone());
    match why {
        Some(why) => ends(&why),
        // Nobody is left who could ask.
        None => std::future::pending().await,
    }
}

fn ends(why: &str) -> String {
    format!("the replication connection ends: {why}")
}

fn told(report: &Report) -> Vec<u8> {
    let mut framed = Vec::new();
    report.error(&mut framed);
    framed
}

/// The client's parameters; SQL on a logical connection is read-only from the first statement.
fn params(kind: AsideKind, own: &[(String, String)]) -> Vec<(String, String)> {
    let mut params = own.to_vec();
    if kind == AsideKind::Logical {
        // A parameter of the startup packet goes before all that `options` says.
        params.retain(|(name, _)| !name.eq_ignore_ascii_case(NAME));
        params.push((NAME.to_owned(), "on".to_owned()));
    }
    params
}

/// Why it is over.
enum End {
    /// One of the two has closed; the other is closed too.
    Closed,
    /// The client is told.
    Told(Report),
}

/// Something that is not bytes.
enum Turn {
    Query(String),
    Asked,
    Over(End),
}

/// One connection on its way through.
struct Passing {
    group: Arc<Group>,
    aside: AsideGuard,
    asked: watch::Receiver<Asked>,
    watch: crate::gate::Watch,
    eyes: Eyes,
    client: Leg,
    server: Server,
    /// Rest of a message that is being passed on, per direction.
    client_rest: usize,
    server_rest: usize,
    /// Queries without their ReadyForQuery.
    unanswered: usize,
    cancels: u64,
    /// SQL is taken, and stays harmless only while its read-only default stands.
    may_run_sql: bool,
}

impl Passing {
    fn new(
        group: &Arc<Group>,
        aside: AsideGuard,
        asked: watch::Receiver<Asked>,
        server: Server,
        stream: Stream,
        may_run_sql: bool,
    ) -> Self {
        let eyes = Eyes {
            policy: group.settings.load().policy,
            shelf: group.catalogs.shelf(&aside.who().database),
        };
        let mut passing = Self {
            group: Arc::clone(group),
            asked,
            watch: group.gate.watch(),
            eyes,
            client: Leg::new(stream),
            server,
            client_rest: 0,
            server_rest: 0,
            unanswered: 0,
            cancels: 0,
            may_run_sql,
            aside,
        };
        passing.greet();
        passing
    }

    fn greet(&mut self) {
        let out = self.client.queue();
        put(out, b'R', &[&0i32.to_be_bytes()]);
        for (name, value) in self.server.params.iter() {
            let ours = VIRTUAL.contains(&name.as_str());
            parameter(out, name, if ours { "off" } else { value });
        }
        let id = self.aside.named().to_be_bytes();
        put(out, b'K', &[&id, self.aside.key().bytes()]);
        ready(out, b'I');
    }

    async fn run(&mut self) -> End {
        loop {
            // Cancel safe: a turn is taken only when it is returned.
            let turn = {
                let mut asked = self.asked.clone();
                tokio::select! {
                    turn = poll_fn(|cx| self.poll(cx)) => turn,
                    _ = asked.changed() => Turn::Asked,
                }
            };
            match turn {
                Turn::Over(end) => return end,
                Turn::Asked => {
                    let asked = self.asked.borrow_and_update().clone();
                    if let Some(why) = asked.end {
                        return End::Told(refuse::ended(&ends(&why)));
                    }
                    if asked.cancels > self.cancels {
                        self.cancels = asked.cancels;
                        self.cancel().await;
                    }
                }
                Turn::Query(text) => self.on_query(&text),
            }
        }
    }

    /// The server is asked before the next query can be sent, so it hits no later one.
    async fn cancel(&self) {
        let (endpoint, pid) = (self.server.endpoint(), self.server.pid);
        let timeout = self.group.settings.load().login_timeout;
        if let Err(error) = cancel(endpoint, pid, &self.server.secret, timeout).await {
            tracing::debug!(%error, %endpoint, "cancel could not be passed on");
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        // Registered first: a change after the look wakes us.
        while self.watch.poll_changed(cx).is_ready() {}
        let accepted = self.group.targets.accepted();
        if self.server.target.serial != accepted.serial {
            return Poll::Ready(Turn::Over(End::Told(moved(accepted.region.as_str()))));
        }
        loop {
            let (down, up) = match (self.poll_down(cx), self.poll_up(cx)) {
                (Err(turn), _) | (_, Err(turn)) => return Poll::Ready(turn),
                (Ok(down), Ok(up)) => (down, up),
            };
            if !down && !up {
                return Poll::Pending;
            }
        }
    }

    /// From the server to the client; whether anything moved.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<bool, Turn> {
        let closed = |_| Turn::Over(End::Closed);
        if self.client.backed_up() && !flushed(&mut self.client, cx)? {
            return Ok(false);
        }
        with_scratch(|scratch| {
            let n = match self.server.leg.poll_read(cx, scratch) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0) | Err(_)) => return Err(Turn::Over(End::Closed)),
                Poll::Ready(Ok(n)) => n,
            };
            let mut data = std::mem::take(&mut self.server.leg.inbox);
            data.extend_from_slice(scratch.get(..n).unwrap_or_default());
            let used = self.down_messages(&data)?;
            let sent = self.client.send(cx, data.get(..used).unwrap_or_default());
            sent.map_err(closed)?;
            data.drain(..used);
            self.server.leg.inbox = data;
            Ok(true)
        })
    }

    /// Whole messages, and the beginnings of long ones: how many bytes may go on. Only where one ends
    /// can something of our own be said.
    fn down_messages(&mut self, data: &[u8]) -> Result<usize, Turn> {
        let mut at = self.server_rest.min(data.len());
        self.server_rest -= at;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            let h = match head(rest) {
                Ok(Some(h)) => h,
                Ok(None) => break,
                Err(_) => return Err(Turn::Over(End::Closed)),
            };
            if h.tag == b'Z' {
                self.unanswered = self.unanswered.saturating_sub(1);
            }
            if h.tag == b'S' && h.total <= PARSE_KEPT {
                let Some(frame) = rest.get(..h.total) else {
                    break;
                };
                if parameter_of(body(frame)) == Some((NAME, "off")) && self.may_run_sql {
                    return Err(Turn::Over(End::Told(lowered())));
                }
            }
            let here = h.total.min(rest.len());
            self.server_rest = h.total - here;
            at += here;
        }
        Ok(at)
    }

    /// From the client to the server; whether anything moved.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<bool, Turn> {
        if self.server.leg.backed_up() && !flushed(&mut self.server.leg, cx)? {
            return Ok(false);
        }
        let mut moved = false;
        // A query waits for the answers to those before it, and is kept whole so long.
        if self.client.inbox.len() < PARSE_KEPT {
            match self.client.poll_fill(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(0) | Err(_)) => return Err(Turn::Over(End::Closed)),
                Poll::Ready(Ok(_)) => moved = true,
            }
        }
        let data = std::mem::take(&mut self.client.inbox);
        let (used, turn) = self.up_messages(&data);
        let sent = self
            .server
            .leg
            .send(cx, data.get(..used).unwrap_or_default());
        self.client.inbox = data;
        self.client.consume(used);
        sent.map_err(|_| Turn::Over(End::Closed))?;
        turn.map_or(Ok(moved || used > 0), Err)
    }

    fn up_messages(&mut self, data: &[u8]) -> (usize, Option<Turn>) {
        let offence = |what: String| Some(Turn::Over(End::Told(refuse::offence(&what))));
        let mut at = self.client_rest.min(data.len());
        self.client_rest -= at;
        while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
            let h = match head(rest) {
                Ok(Some(h)) if is_client_tag(h.tag) => h,
                Ok(Some(h)) => return (at, offence(format!("message type 0x{:02x}", h.tag))),
                Ok(None) => break,
                Err(e) => return (at, offence(e.to_string())),
            };
            if matches!(h.tag, b'P' | b'B' | b'E' | b'D' | b'C' | b'F') {
                // Nothing of these is judged here. PostgreSQL takes none of them either.
                let what = "only simple queries are taken on a replication connection";
                return (at, offence(what.to_owned()));
            }
            if h.tag == b'Q' {
                if h.total > PARSE_KEPT {
                    let what = "a query of a replication connection is too long to be judged";
                    return (at, offence(what.to_owned()));
                }
                let (Some(frame), 0) = (rest.get(..h.total), self.unanswered) else {
                    break;
                };
                let text = cstr(body(frame)).map(|(text, _)| text).unwrap_or_default();
                return (
                    at,
                    Some(Turn::Query(String::from_utf8_lossy(text).into_owned())),
                );
            }
            let here = h.total.min(rest.len());
            self.client_rest = h.total - here;
            at += here;
        }
        (at, None)
    }

    /// The query at the front of the inbox: passed on, or refused here.
    fn on_query(&mut self, text: &str) {
        let fenced = self.group.gate.look(Lane::Sql).phase != Phase::Open;
        let verdict = verdict(text, fenced, |text| {
            judge(text.as_bytes(), self.server.reading(), &self.eyes)
        });
        let Ok(Some(h)) = head(&self.client.inbox) else {
            return;
        };
        match verdict {
            Ok(()) => {
                let frame: Vec<u8> = self
                    .client
                    .inbox
                    .get(..h.total)
                    .unwrap_or_default()
                    .to_vec();
                self.server.leg.queue().extend_from_slice(&frame);
                self.unanswered += 1;
            }
            Err(why) => {
                let out = self.client.queue();
                refusal(why).error(out);
                ready(out, b'I');
            }
        }
        self.client.consume(h.total);
    }

    async fn end(mut self, why: End) {
        let id = self.aside.id();
        if let End::Told(report) = why {
            tracing::info!(id, why = report.message, "a replication connection ends");
            if self.server_rest == 0 {
                report.error(self.client.queue());
            }
        }
        let _ = tokio::time::timeout(LAST_WORDS, self.client.flush()).await;
        let _ = tokio::time::timeout(LAST_WORDS, self.server.leg.flush()).await;
        self.server.leg.farewell();
    }
}

fn flushed(leg: &mut Leg, cx: &mut Context<'_>) -> Result<bool, Turn> {
    match leg.poll_flush(cx) {
        Poll::Ready(Ok(())) => Ok(true),
        Poll::Ready(Err(_)) => Err(Turn::Over(End::Closed)),
        Poll::Pending => Ok(false),
    }
}

/// Whether a query may pass on a replication connection. PostgreSQL tells its own commands from SQL
/// by the first word too, and takes one command at a time.
fn verdict(
    text: &str,
    fenced: bool,
    judge: impl Fn(&str) -> super::classify::Judgement,
) -> Result<(), &'static str> {
    let word: String = text
        .trim_start()
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .map(|c| c.to_ascii_uppercase())
        .collect();
    if PASS.contains(&word.as_str()) {
        return Ok(());
    }
    if CHANGE.contains(&word.as_str()) {
        return match fenced {
            false => Ok(()),
            true => Err("while fenced, slots and base backups have to wait"),
        };
    }
    for statement in &judge(text).statements {
        if statement.verdict == Verdict::Write {
            return Err("it writes, or cannot be told not to");
        }
        let named = text.to_ascii_lowercase().contains("_read_only");
        let shown = matches!(statement.kind, Kind::Show { .. });
        if statement.is_way_out() || statement.kind == Kind::Procedure || (named && !shown) {
            return Err("it could lead around the read-only mode of this connection");
        }
    }
    Ok(())
}

fn refusal(why: &str) -> Report {
    Report {
        severity: "ERROR",
        sqlstate: "25006".into(),
        message: "a replication connection through writefence is read-only".into(),
        detail: Some(format!("Not executed: {why}.")),
        hint: Some("Use an ordinary connection for what changes something.".into()),
    }
}

/// Code inside a statement can lower what stands around it, for the statements behind it.
fn lowered() -> Report {
    refuse::ended(&format!(
        "{NAME} was lowered on a replication connection, which is read-only through writefence"
    ))
}

fn moved(region: &str) -> Report {
    Report {
        hint: Some("Connect again, and start from what the new primary has.".into()),
        ..refuse::ended(&format!(
            "the primary has moved to region \"{region}\": replication from the old one ends"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::classify::{Judgement, Policy, Reading};
    use super::*;

    fn check(text: &str, fenced: bool) -> bool {
        let eyes = Eyes::without_catalog(Policy::default(), "a test");
        let judge = |text: &str| -> Judgement { judge(text.as_bytes(), Reading::default(), &eyes) };
        verdict(text, fenced, judge).is_ok()
    }

    #[test]
    fn what_only_reads_or_streams_passes_in_every_phase() {
        for text in [
            "IDENTIFY_SYSTEM",
            " start_replication SLOT \"a\" PHYSICAL 0/3000000 TIMELINE 1",
            "TIMELINE_HISTORY 2",
            "SHOW data_directory_mode",
            "SELECT pg_catalog.set_config('search_path', '', false);",
            "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ",
            "COPY public.t TO STDOUT",
            "COMMIT",
        ] {
            assert!(check(text, false) && check(text, true), "{text}");
        }
    }

    #[test]
    fn slots_and_backups_wait_for_the_fence_to_open() {
        for text in [
            "CREATE_REPLICATION_SLOT a LOGICAL pgoutput",
            "DROP_REPLICATION_SLOT a",
            "BASE_BACKUP ( LABEL 'x' )",
        ] {
            assert!(check(text, false) && !check(text, true), "{text}");
        }
    }

    #[test]
    fn nothing_writes_and_nothing_opens_the_wall_in_any_phase() {
        for text in [
            "INSERT INTO t VALUES (1)",
            "SELECT 1; DELETE FROM t",
            "SHOW x; DELETE FROM t",
            "SET default_transaction_read_only = off",
            "SELECT set_config('default_transaction_read_only', 'off', false)",
            "BEGIN READ WRITE",
            "DO $$ BEGIN END $$",
            "START_REPLICATIONS; not SQL",
            "COPY t FROM STDIN",
        ] {
            assert!(!check(text, false) && !check(text, true), "{text}");
        }
    }
}
