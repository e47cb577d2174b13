//! A server process that we started, with everything below it.
//!
//! It stays in our own process group, so that an interrupt from the terminal reaches it even when
//! we die without a destructor. It is ended by pid, never by name, and is gone when dropped.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::eventually::{self, eventually};

/// How long an orderly end may take in `Drop` before the process is killed.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long what was killed may be there: a busy machine takes its time to let go of memory.
const GONE: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// What asks for an end that cleans up behind itself.
    farewell: Signal,
}

impl Process {
    /// Starts `command` with its output appended to `log`; `farewell` is sent on drop.
    ///
    /// # Errors
    /// The log can't be written or the program can't be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path, farewell: Signal) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("log file {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            farewell,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// How it ended; none while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends `signal` and waits for the end.
    ///
    /// # Errors
    /// Still running after `within`; it is left running.
    pub async fn end(&mut self, signal: Signal, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.ended() {
            return Ok(status);
        }
        kill_process(self.pid(), signal).with_context(|| format!("signal {}", self.name))?;
        self.wait(within).await
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// Still running after `within`.
    pub async fn wait(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        eventually(&what, within, async || Ok(self.ended())).await
    }

    /// SIGKILL to it and to everything below it, as if the machine had lost power. It is stopped
    /// first: a process that still forks while we look would leave a child behind.
    ///
    /// # Errors
    /// Something survived.
    pub fn kill_all(&mut self) -> Result<()> {
        if self.ended().is_some() {
            return Ok(());
        }
        let top = self.pid();
        kill_process(top, Signal::STOP)?;
        let stopped = eventually::blocking(GONE, || matches!(state(top), None | Some('T')));
        let all = with_descendants(top);
        for pid in &all {
            // One that is already gone is what we want.
            let _ = kill_process(*pid, Signal::KILL);
        }
        self.child
            .wait()
            .with_context(|| format!("wait for {}", self.name))?;
        let gone = eventually::blocking(GONE, || all.iter().all(|pid| is_gone(*pid)));
        if !(stopped && gone) {
            bail!("{} or a process below it survived SIGKILL", self.name);
        }
        Ok(())
    }

    /// The last lines of its log, for error messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        let _ = kill_process(self.pid(), self.farewell);
        if !eventually::blocking(GOODBYE, || self.ended().is_some()) {
            let _ = self.kill_all();
        }
    }
}

/// The last 20 lines of a file; empty when it can't be read.
#[must_use]
pub fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// State letter and parent of a process, from `/proc/<pid>/stat`; the name before them may hold
/// any character, hence the search from the right.
fn stat(pid: &str) -> Option<(char, Pid)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, Pid::from_raw(fields.next()?.parse().ok()?)?))
}

fn state(pid: Pid) -> Option<char> {
    stat(&pid.as_raw_nonzero().to_string()).map(|(state, _)| state)
}

/// A zombie runs no more; whoever inherited it will collect it.
fn is_gone(pid: Pid) -> bool {
    matches!(state(pid), None | Some('Z'))
}

/// `top` and all processes below it.
fn with_descendants(top: Pid) -> Vec<Pid> {
    let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(Pid::from_raw)
        else {
            continue;
        };
        if let Some((_, parent)) = name.to_str().and_then(stat) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![top];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    found
}
