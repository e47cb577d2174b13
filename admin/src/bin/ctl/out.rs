//! Where output goes: one JSON document, or lines for people.
//!
//! Nothing here fails: a reader that closed its pipe (`| head`) is not an error worth a panic.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use writefence_admin::api::{ApiError, Doc, ErrorDoc};

/// How to print.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Out {
    json: bool,
    events: bool,
    terminal: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            events: false,
            terminal: io::stdout().is_terminal(),
        }
    }

    /// Prints events too, a line each.
    pub(crate) const fn with_events(mut self, events: bool) -> Self {
        self.events = events;
        self
    }

    /// An event of a run, for programs that follow.
    pub(crate) fn event<T: Serialize>(self, body: &T) {
        if self.json && self.events {
            json(body);
        }
    }

    /// Whether a person watches.
    pub(crate) const fn terminal(self) -> bool {
        self.terminal && !self.json
    }

    /// The command's result: as a document, or as the lines that `human` writes.
    pub(crate) fn document<T: Serialize>(self, body: &T, human: impl FnOnce(&T) -> String) {
        if self.json {
            json(body);
        } else {
            self.line(human(body).trim_end());
        }
    }

    /// A line for people; nothing with `--json`.
    pub(crate) fn line(self, text: &str) {
        if !self.json {
            let _ = writeln!(io::stdout(), "{text}");
        }
    }

    /// The error that a command ends with.
    pub(crate) fn error(self, error: &ApiError) {
        if self.json {
            json(&ErrorDoc {
                error: error.clone(),
            });
        } else {
            let _ = write!(io::stderr(), "{}", error_text(error));
        }
    }
}

/// An error for people: what, what next, and what it concerns.
pub(crate) fn error_text(error: &ApiError) -> String {
    let mut text = format!("error: {} ({})\n", error.message, error.code);
    if let Some(hint) = &error.hint {
        text.push_str(&format!("  next: {hint}\n"));
    }
    if let Some(run) = &error.run {
        text.push_str(&format!("  run: {run}\n"));
    }
    if let Some(epoch) = error.epoch {
        text.push_str(&format!("  epoch: {epoch}\n"));
    }
    text
}

fn json<T: Serialize>(body: &T) {
    let line = serde_json::to_string(&Doc::new(body))
        .expect("documents have only string keys and plain values, which JSON can always hold");
    let _ = writeln!(io::stdout(), "{line}");
}
