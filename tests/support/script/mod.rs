//! Scripted conversations in PostgreSQL's protocol, to be had with a server and with a proxy.
//!
//! A script is a list of writes, each with what is to be read before the next:
//!
//! ```text
//! == bind before parse
//! B - nope | E - | S  => Z
//! ```
//!
//! Messages of one line go out in one write, or cut as [`Cut`] says. Behind `=>` stand the tags of
//! the messages to wait for, in order; `.` is the end of the connection. `! SQL` runs on another
//! connection. How messages are written is told in `encode`; answers are kept byte for byte but
//! for what differs between any two sessions.

mod client;
mod encode;

use anyhow::{Context, Result, bail};

pub use client::{Cut, Talk};
pub use encode::message;

/// One conversation.
#[derive(Debug)]
pub struct Script {
    /// What it shows.
    pub name: String,
    /// It changes nothing, so a fence must not be noticed.
    pub reads: bool,
    /// It ends the connection.
    pub ends: bool,
    pub(crate) steps: Vec<Step>,
}

/// What is done before the next answer is waited for.
#[derive(Debug)]
pub(crate) enum Step {
    Send { bytes: Vec<u8>, until: Vec<u8> },
    Elsewhere(String),
}

impl Script {
    /// All scripts of a text.
    ///
    /// # Errors
    /// A line cannot be read; the text says which.
    pub fn all(text: &str) -> Result<Vec<Self>> {
        let mut scripts: Vec<Self> = Vec::new();
        for line in text.lines() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(title) = line.strip_prefix("== ") {
                scripts.push(Self::titled(title)?);
                continue;
            }
            let script = scripts.last_mut().context("a line before the first ==")?;
            let step = Step::read(line).with_context(|| format!("{}: {line}", script.name))?;
            script.steps.push(step);
        }
        Ok(scripts)
    }

    fn titled(title: &str) -> Result<Self> {
        let (name, flags) = title.split_once(" : ").unwrap_or((title, ""));
        for flag in flags.split_whitespace() {
            if !["reads", "ends"].contains(&flag) {
                bail!("{title}: {flag} is neither reads nor ends");
            }
        }
        Ok(Self {
            name: name.to_owned(),
            reads: flags.contains("reads"),
            ends: flags.contains("ends"),
            steps: Vec::new(),
        })
    }

    /// Bytes of its longest write: how often it can be cut.
    #[must_use]
    pub fn longest(&self) -> usize {
        let lengths = self.steps.iter().map(|step| match step {
            Step::Send { bytes, .. } => bytes.len(),
            Step::Elsewhere(_) => 0,
        });
        lengths.max().unwrap_or(0)
    }
}

impl Step {
    fn read(line: &str) -> Result<Self> {
        if let Some(sql) = line.strip_prefix("! ") {
            return Ok(Self::Elsewhere(sql.to_owned()));
        }
        let (messages, until) = line.split_once("=>").unwrap_or((line, ""));
        let mut bytes = Vec::new();
        for text in messages.split(" | ").map(str::trim) {
            if !text.is_empty() {
                bytes.extend(message(text)?);
            }
        }
        let until = until.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        Ok(Self::Send { bytes, until })
    }
}
