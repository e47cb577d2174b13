//! What the log looks like. Metrics have no settings of their own: `admin.listen` serves them.

use crate::defaults;
use crate::raw::{Findings, Section};
use crate::value::Word;

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least serious lines that are written. Each level's meaning: `error` a person must act,
/// `warn` a promise is weaker than normal, `info` phase, target and run changes, `debug` sessions,
/// `trace` messages, the only level at which SQL text may appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// A person must act.
    Error,
    /// A promise is weaker than normal.
    Warn,
    /// Phase, target and run changes.
    Info,
    /// Sessions.
    Debug,
    /// Messages.
    Trace,
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Text or JSON.
    pub format: LogFormat,
    /// The least serious level written.
    pub level: LogLevel,
}

impl Log {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        Self {
            format: section.word("format", defaults::LOG_FORMAT, found),
            level: section.word("level", defaults::LOG_LEVEL, found),
        }
    }
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("text", Self::Text), ("json", Self::Json)];
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}
