//! PgBouncer's console, for runbooks that exist: PAUSE, RESUME, RELOAD, SHOW and the like.
//!
//! A database named `pgbouncer` or `writefence` is it, on any listener of a group, for the users that
//! the configuration names. The words, columns and meanings are those of PgBouncer 1.25, and what
//! is not done here is said in words. It changes no phase itself: `Commands` asks control, as an
//! operator's socket does. PAUSE ends with what became of it: drained, cancelled, or overtaken.

mod command;
mod show;
mod table;
mod verbs;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use writefence_config as config;

use super::frame::{cstr, put};
use super::leg::Leg;
use super::listener::say;
use super::message::{Report, body, complete, parameter, ready};
use super::refuse;
use crate::group::Group;
use crate::sessions::{AsideGuard, AsideKind, Asked, Key, Who};
use crate::tls::Stream;

/// Names of the database that is no database.
const NAMES: [&str; 2] = ["pgbouncer", "writefence"];

/// What is emulated; in the place of a server's version.
const VERSION: &str = "1.25.0/writefence";

/// Bytes of one command; PgBouncer's are a few words.
const COMMAND: usize = 16 * 1024;

/// How long the last words to a client may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rank {
    Admin,
    Stats,
}

/// Whether a login is for the console. Without users that may use it there is none, and a database
/// of such a name is an ordinary one.
pub(super) fn is_meant(console: &config::Console, database: &str) -> bool {
    let somebody = !console.admin_users.is_empty() || !console.stats_users.is_empty();
    somebody && NAMES.contains(&database)
}

fn rank(console: &config::Console, user: &str) -> Option<Rank> {
    let among = |users: &[String]| users.iter().any(|name| name == user);
    if among(&console.admin_users) {
        Some(Rank::Admin)
    } else {
        among(&console.stats_users).then_some(Rank::Stats)
    }
}

/// Serves one console from its greeting to its end. `known`: the user has proven who it is, or the
/// listener believes everybody; where the server was to ask for the password, nobody is known.
pub(super) async fn serve(
    group: Arc<Group>,
    mut stream: Stream,
    who: Who,
    minor: u16,
    known: bool,
) {
    let rank = rank(&group.settings.load().console, &who.user);
    let Some(rank) = rank.filter(|_| known) else {
        let message = format!("user \"{}\" may not use the console", who.user);
        let hint = "console.admin_users and console.stats_users name those who may.";
        let report = refuse::refused("42501", message, Some(hint.to_owned()));
        return say(&mut stream, &report).await;
    };
    let key = Key::new(minor);
    let user = who.user.clone();
    let entered = group.sessions.enter_aside(AsideKind::Console, who, key);
    let Some(aside) = entered else {
        group
            .sessions
            .totals
            .refused
            .fetch_add(1, Ordering::Relaxed);
        let message = "too many consoles are open".to_owned();
        return say(&mut stream, &refuse::refused("53300", message, None)).await;
    };
    tracing::info!(user, client = %aside.who().client, ?rank, "console opened");
    let mut console = Console {
        asked: aside.asked(),
        group,
        aside,
        rank,
        client: Leg::new(stream),
        cancels: 0,
    };
    console.greet();
    if let Err(Some(last)) = console.run().await {
        last.error(console.client.queue());
    }
    let _ = tokio::time::timeout(LAST_WORDS, console.client.flush()).await;
}

/// One console.
struct Console {
    group: Arc<Group>,
    aside: AsideGuard,
    rank: Rank,
    client: Leg,
    asked: watch::Receiver<Asked>,
    /// Cancels that were taken note of.
    cancels: u64,
}

/// It is over: the client left, or is told why.
type Over = Option<Report>;

/// What came of a command.
type Done = Result<(), Report>;

impl Console {
    fn greet(&mut self) {
        let out = self.client.queue();
        put(out, b'R', &[&0i32.to_be_bytes()]);
        for (name, value) in [
            ("server_version", VERSION),
            ("client_encoding", "UTF8"),
            ("server_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "GMT"),
            ("standard_conforming_strings", "on"),
            ("is_superuser", "on"),
        ] {
            parameter(out, name, value);
        }
        let id = self.aside.id().to_be_bytes();
        put(out, b'K', &[&id, self.aside.key().bytes()]);
        ready(out, b'I');
    }

    async fn run(&mut self) -> Result<(), Over> {
        loop {
            self.client.flush().await.map_err(|_| None)?;
            let frame = self.next().await?;
            match frame.first() {
                Some(b'Q') => {
                    let text = cstr(body(&frame)).map(|(text, _)| text).unwrap_or_default();
                    let text = String::from_utf8_lossy(text).into_owned();
                    let done = self.on_command(&text).await?;
                    if let Err(report) = done {
                        report.error(self.client.queue());
                    }
                    ready(self.client.queue(), b'I');
                }
                Some(b'X') | None => return Err(None),
                Some(_) => {
                    let what = "the console speaks simple queries only";
                    return Err(Some(refuse::refused("0A000", what.to_owned(), None)));
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Vec<u8>, Over> {
        loop {
            // Cancel safe: what was read stays in the inbox, a word that was said stays said.
            tokio::select! {
                frame = self.client.next_frame(COMMAND) => return frame.map_err(|_| None),
                _ = self.asked.changed() => {
                    // A cancel between two commands is for the one before, which is over.
                    self.cancels = self.still_wanted()?;
                }
            }
        }
    }

    /// How many cancels were asked for; over if the console is to end.
    fn still_wanted(&mut self) -> Result<u64, Over> {
        let asked = self.asked.borrow_and_update().clone();
        match asked.end {
            Some(why) => Err(Some(refuse::ended(&why))),
            None => Ok(asked.cancels),
        }
    }

    /// Waits for `work` unless a cancel, an end of the console or of its client comes first. The
    /// client is read from meanwhile, up to a bound, or nobody would notice that it is gone.
    async fn unless_cancelled<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, Over> {
        tokio::pin!(work);
        loop {
            let gone = poll_fn(|cx| {
                while self.client.inbox.len() < COMMAND {
                    match self.client.poll_fill(cx) {
                        Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                        Poll::Ready(Ok(_)) => {}
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Poll::Pending
            });
            // All arms may be dropped and asked again: `work` is kept, the others only look.
            tokio::select! {
                done = &mut work => return Ok(Some(done)),
                () = gone => return Err(None),
                _ = self.asked.changed() => {}
            }
            let cancels = self.still_wanted()?;
            if cancels > self.cancels {
                self.cancels = cancels;
                return Ok(None);
            }
        }
    }

    /// Who asked, for the record.
    fn by(&self) -> String {
        let who = self.aside.who();
        format!("console user={} client={}", who.user, who.client)
    }

    fn done(&mut self, tag: &str) -> Done {
        complete(self.client.queue(), tag);
        Ok(())
    }

    fn notice(&mut self, message: &str, detail: Option<String>) {
        let notice = Report {
            severity: "NOTICE",
            sqlstate: "00000".into(),
            message: message.to_owned(),
            detail,
            hint: None,
        };
        notice.notice(self.client.queue());
    }
}

fn refusal(sqlstate: &str, message: impl Into<String>, hint: Option<String>) -> Report {
    Report {
        severity: "ERROR",
        ..refuse::refused(sqlstate, message.into(), hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn console() -> config::Console {
        config::Console {
            admin_users: vec!["ops".into()],
            stats_users: vec!["monitor".into()],
        }
    }

    #[test]
    fn only_who_is_named_has_a_console_and_without_names_there_is_none() {
        assert!(is_meant(&console(), "pgbouncer") && is_meant(&console(), "writefence"));
        assert!(!is_meant(&console(), "shop"));
        assert!(!is_meant(&config::Console::default(), "pgbouncer"));
        assert_eq!(rank(&console(), "ops"), Some(Rank::Admin));
        assert_eq!(rank(&console(), "monitor"), Some(Rank::Stats));
        assert_eq!(rank(&console(), "postgres"), None);
    }
}
