//! The commands that do something.

use std::time::Duration;

use super::command::{Command, parse};
use super::{Console, Done, NAMES, Over, Rank, refusal};
use crate::group::{Commands, Said};
use crate::sessions::{AsideKind, Quit};

/// Between two looks at who is still there, for WAIT_CLOSE.
const LOOK: Duration = Duration::from_millis(20);

/// Variables that drivers set without being asked; as with PgBouncer they change nothing.
const FAKE: [(&str, &str); 6] = [
    ("client_encoding", "UTF-8"),
    ("default_transaction_isolation", "read committed"),
    ("standard_conforming_strings", "on"),
    ("datestyle", "ISO"),
    ("timezone", "GMT"),
    ("extra_float_digits", "2"),
];

/// The value of a variable that is only pretended.
pub(super) fn pretended(name: &str) -> Option<(&'static str, &'static str)> {
    FAKE.into_iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
}

impl Console {
    pub(super) async fn on_command(&mut self, text: &str) -> Result<Done, Over> {
        let Some(command) = parse(text) else {
            return Ok(Err(invalid(text)));
        };
        let (verb, argument) = match command {
            Command::Verb(verb, argument) => (verb, argument),
            Command::Set(name) => return Ok(self.set(&name)),
        };
        if matches!(verb.as_str(), "show" | "select") {
            return Ok(self.show(text, argument.as_deref()));
        }
        if let Some(why) = undone(&verb) {
            return Ok(Err(refusal("0A000", why, None)));
        }
        let known = [
            "pause",
            "resume",
            "reload",
            "reconnect",
            "wait_close",
            "kill",
            "kill_client",
        ];
        if !known.contains(&verb.as_str()) {
            return Ok(Err(invalid(text)));
        }
        if self.rank != Rank::Admin {
            return Ok(Err(refusal("42501", "admin access needed", None)));
        }
        tracing::info!(by = self.by(), command = verb, argument, "console");
        let database = argument.as_deref();
        if let Some(name) = database.filter(|name| NAMES.contains(name)) {
            let message = format!("cannot {verb} admin db: {name}");
            return Ok(Err(refusal("0A000", message, None)));
        }
        Ok(match verb.as_str() {
            "pause" => return self.pause(database).await,
            "resume" => return self.resume(database).await,
            "reload" if argument.is_some() => Err(invalid(text)),
            "reload" => return self.reload().await,
            "reconnect" => return self.reconnect(database).await,
            "wait_close" => return self.wait_close(database).await,
            "kill" => return self.kill(database).await,
            _ => self.kill_client(database.unwrap_or_default()),
        })
    }

    fn set(&mut self, name: &str) -> Done {
        if pretended(name).is_none() {
            let hint = "Change the file and say RELOAD; SHOW CONFIG tells what that applies.";
            let message = format!("{name} cannot be set from the console");
            return Err(refusal("0A000", message, Some(hint.to_owned())));
        }
        self.notice("SET ignored", None);
        self.done("SET")
    }

    /// Control; there is none only while the daemon starts.
    fn control(&self) -> Result<std::sync::Arc<dyn Commands>, super::Report> {
        let commands = self.group.commands.get().cloned();
        commands.ok_or_else(|| refusal("57P03", "the daemon is starting up", None))
    }

    /// What fails over as one is fenced as one, whatever databases are in it.
    fn tell_scope(&mut self, verb: &str, database: Option<&str>) {
        if let Some(database) = database {
            let message = format!("{verb} is for the whole group \"{}\"", self.group.name);
            let detail =
                format!("Database \"{database}\" fails over with it, and is fenced with it.");
            self.notice(&message, Some(detail));
        }
    }

    async fn pause(&mut self, database: Option<&str>) -> Result<Done, Over> {
        let control = match self.control() {
            Ok(control) => control,
            Err(report) => return Ok(Err(report)),
        };
        // Not given up half way: a fence that has begun to fall falls.
        let pause = match control.pause(&self.by()).await {
            Ok(pause) => pause,
            Err(said) => return Ok(Err(told(said))),
        };
        self.tell_scope("PAUSE", database);
        match self.unless_cancelled(control.paused(&pause)).await? {
            Some(Ok(())) => Ok(self.done("PAUSE")),
            Some(Err(said)) => Ok(Err(told(said))),
            None => {
                let opened = control.resume(&self.by()).await;
                let (message, hint) = match opened {
                    Ok(()) => ("PAUSE was cancelled: statements pass again", None),
                    Err(said) => (
                        "PAUSE was cancelled, and statements do not pass again yet",
                        Some(said.message),
                    ),
                };
                Ok(Err(refusal("57014", message, hint)))
            }
        }
    }

    async fn resume(&mut self, database: Option<&str>) -> Result<Done, Over> {
        let control = match self.control() {
            Ok(control) => control,
            Err(report) => return Ok(Err(report)),
        };
        match control.resume(&self.by()).await {
            Ok(()) => {
                self.tell_scope("RESUME", database);
                Ok(self.done("RESUME"))
            }
            Err(said) => Ok(Err(told(said))),
        }
    }

    async fn reload(&mut self) -> Result<Done, Over> {
        let control = match self.control() {
            Ok(control) => control,
            Err(report) => return Ok(Err(report)),
        };
        match control.reload(&self.by()).await {
            Ok(restart) => {
                if !restart.is_empty() {
                    let message = "some changes need a restart of the daemon";
                    self.notice(message, Some(restart.join(", ")));
                }
                Ok(self.done("RELOAD"))
            }
            Err(said) => Ok(Err(refusal("F0000", said.message, said.hint))),
        }
    }

    /// As in session pooling: a server connection is closed when its client leaves. The name of the
    /// primary is asked for again, so that new ones go where it leads now.
    async fn reconnect(&mut self, database: Option<&str>) -> Result<Done, Over> {
        let control = match self.control() {
            Ok(control) => control,
            Err(report) => return Ok(Err(report)),
        };
        if let Err(said) = control.renew().await {
            return Ok(Err(told(said)));
        }
        for session in self.group.sessions.all() {
            if database.is_none_or(|name| name == session.database()) {
                session.set_close_needed(true);
            }
        }
        Ok(self.done("RECONNECT"))
    }

    async fn wait_close(&mut self, database: Option<&str>) -> Result<Done, Over> {
        let group = std::sync::Arc::clone(&self.group);
        let name = database.map(str::to_owned);
        let closed = async move {
            let marked = |view: &crate::sessions::SessionView| {
                view.close_needed && name.as_ref().is_none_or(|name| *name == view.database)
            };
            while group.sessions.snapshot().iter().any(marked) {
                tokio::time::sleep(LOOK).await;
            }
        };
        match self.unless_cancelled(closed).await? {
            Some(()) => Ok(self.done("WAIT_CLOSE")),
            None => {
                let message = "WAIT_CLOSE was cancelled";
                Ok(Err(refusal("57014", message, None)))
            }
        }
    }

    /// Pauses without waiting, and ends every session, whatever it does.
    async fn kill(&mut self, database: Option<&str>) -> Result<Done, Over> {
        let control = match self.control() {
            Ok(control) => control,
            Err(report) => return Ok(Err(report)),
        };
        if let Err(said) = control.pause(&self.by()).await {
            return Ok(Err(told(said)));
        }
        self.tell_scope("the pause of KILL", database);
        for session in self.group.sessions.all() {
            if database.is_none_or(|name| name == session.database()) {
                session.ask_quit(Quit::Killed);
            }
        }
        for aside in self.group.sessions.asides() {
            let meant = database.is_none_or(|name| name == aside.who().database);
            if meant && aside.kind() != AsideKind::Console {
                aside.ask_end("KILL on the console");
            }
        }
        Ok(self.done("KILL"))
    }

    fn kill_client(&mut self, id: &str) -> Done {
        let Ok(number) = id.parse::<u32>() else {
            let hint = "The column \"id\" of SHOW CLIENTS has it.".to_owned();
            let message = "invalid client pointer supplied";
            return Err(refusal("22023", message, Some(hint)));
        };
        if self.group.sessions.quit(number, Quit::Killed) {
            return self.done("KILL_CLIENT");
        }
        let asides = self.group.sessions.asides();
        match asides.iter().find(|aside| aside.id() == number) {
            Some(aside) => {
                aside.ask_end("KILL_CLIENT on the console");
                self.done("KILL_CLIENT")
            }
            None => Err(refusal("22023", "client not found", None)),
        }
    }
}

/// What PgBouncer has and this has not, with the way to the same end.
fn undone(verb: &str) -> Option<&'static str> {
    Some(match verb {
        "suspend" => {
            "SUSPEND is not done here: it is for handing sockets to another process; PAUSE stops traffic"
        }
        "shutdown" => {
            "SHUTDOWN is not done here: stop the service, which lets sessions come to rest first"
        }
        "disable" | "enable" => {
            "DISABLE and ENABLE are not done here: PAUSE holds new statements, \
             `writefencectl prepare --reject` refuses writes at once"
        }
        _ => return None,
    })
}

fn told(said: Said) -> super::Report {
    refusal("55000", said.message, said.hint)
}

pub(super) fn invalid(text: &str) -> super::Report {
    let shown: String = text.trim().chars().take(200).collect();
    refusal(
        "42601",
        format!("invalid command '{shown}', use SHOW HELP;"),
        None,
    )
}
