//! The real daemon, run by its real binaries, talked to through its real socket.
//!
//! A [`Daemon`] has a folder of its own with configuration, state, socket and log; the state
//! survives `kill` and `start`. On a failing test its log is printed. Everything goes when it is
//! dropped.

mod binaries;
mod options;
mod run;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

pub use options::{DaemonOptions, HttpOptions};
pub use run::{promotion, steps};

use crate::eventually::{eventually, until};
use crate::ports::free_port;
use crate::process::{Process, Signal, tail};

/// From the start to the first answer, or from the signal to the end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest verb: a drain that waits, a promotion, a check; with room to spare.
const VERB: Duration = Duration::from_secs(120);

/// One daemon and its command line tool.
#[derive(Debug)]
pub struct Daemon {
    /// Its configuration; a change counts from the next [`Daemon::write_config`] or start.
    pub options: DaemonOptions,
    port: u16,
    admin_port: u16,
    binaries: PathBuf,
    // Dropped in this order: the process ends before its folder goes.
    process: Option<Process>,
    folder: TempDir,
}

/// What the command line tool answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// The document on standard output; null if there was none.
    pub json: Value,
    /// Both outputs as text, for messages.
    pub text: String,
    /// How long the tool ran.
    pub took: Duration,
}

impl Answer {
    /// Itself, if the tool exited 0.
    ///
    /// # Errors
    /// Another exit code; the text has what the tool said.
    pub fn ok(self) -> Result<Self> {
        if self.code != 0 {
            bail!("writefencectl exited {}: {}", self.code, self.text.trim());
        }
        Ok(self)
    }
}

impl Daemon {
    /// Starts a daemon and waits until it answers; its groups may still be fenced then.
    ///
    /// # Errors
    /// The binaries are missing, or it ended or doesn't answer (the text has its log).
    pub async fn start(options: DaemonOptions) -> Result<Self> {
        let mut daemon = Self::prepare(options)?;
        daemon.launch(&[]).await?;
        Ok(daemon)
    }

    /// Everything but the process: folder, ports, an empty state.
    ///
    /// # Errors
    /// The binaries are missing.
    pub fn prepare(options: DaemonOptions) -> Result<Self> {
        let daemon = Self {
            port: free_port()?,
            admin_port: free_port()?,
            binaries: binaries::folder()?,
            process: None,
            folder: tempfile::Builder::new().prefix("writefence-").tempdir()?,
            options,
        };
        fs::create_dir(daemon.state_dir())?;
        Ok(daemon)
    }

    /// Writes the configuration file, for the next start or a reload.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write_config(&self) -> Result<PathBuf> {
        let path = self.folder.path().join("writefence.toml");
        let text = self
            .options
            .config(self.folder.path(), self.port, self.admin_port);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Starts it, the first time or again on the same state after it was stopped or killed.
    /// `env` is for this start only, such as `WRITEFENCE_STOP_AFTER`.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub async fn launch(&mut self, env: &[(&str, &str)]) -> Result<()> {
        let path = self.write_config()?;
        let mut command = Command::new(self.binaries.join("writefence"));
        command
            .args(["serve", "--config"])
            .arg(&path)
            .envs(env.iter().copied());
        let mut process = Process::spawn("writefence", command, &self.log(), Signal::TERM)?;
        let up = eventually("the daemon to answer `status`", PATIENCE, async || {
            if process.ended().is_some() {
                return Ok(Some(false));
            }
            self.ctl(&["status"]).await?.ok().map(|_| Some(true))
        })
        .await
        .with_context(|| process.log_tail())?;
        if !up {
            bail!("the daemon ended at once:\n{}", process.log_tail());
        }
        self.process = Some(process);
        Ok(())
    }

    /// Where clients connect.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Where metrics and health are.
    #[must_use]
    pub const fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// Its log file.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("daemon.log")
    }

    /// Its admin socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    /// Its durable state.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The folder the binaries were found in.
    #[must_use]
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// Runs `writefencectl --json` with `args`.
    ///
    /// # Errors
    /// It can't be run, or doesn't end within two minutes. An exit code is an answer.
    pub async fn ctl(&self, args: &[&str]) -> Result<Answer> {
        let begin = Instant::now();
        let run = self.command(args).output();
        let output = tokio::time::timeout(VERB, run)
            .await
            .with_context(|| format!("writefencectl {} did not end", args.join(" ")))?
            .context("run writefencectl")?;
        let out = String::from_utf8_lossy(&output.stdout);
        Ok(Answer {
            code: output.status.code().unwrap_or(-1),
            json: document(&out),
            text: format!("{out}{}", String::from_utf8_lossy(&output.stderr)),
            took: begin.elapsed(),
        })
    }

    /// Runs `writefencectl` with `args`, by which the daemon is to end as `WRITEFENCE_STOP_AFTER`
    /// makes it; the tool is not waited for, which takes its time to be sure that nobody answers.
    ///
    /// # Errors
    /// The tool ended first, or neither has after two minutes.
    pub async fn ctl_to_its_end(&mut self, args: &[&str]) -> Result<ExitStatus> {
        let run = self.command(args).output();
        let mut process = self.process.take().context("the daemon does not run")?;
        tokio::select! {
            ended = process.wait(VERB) => ended,
            output = run => {
                let output = output.context("run writefencectl")?;
                let out = String::from_utf8_lossy(&output.stdout).into_owned();
                // It may be quicker than we are to see that the daemon is gone.
                if output.status.code() != Some(2) {
                    self.process = Some(process);
                    bail!("{} ended, and the daemon did not: {out}", args.join(" "));
                }
                process.wait(PATIENCE).await
            }
        }
    }

    fn command(&self, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(self.binaries.join("writefencectl"));
        command.arg("--socket").arg(self.socket()).arg("--json");
        command.args(args).kill_on_drop(true);
        command
    }

    /// The status document of the first group.
    ///
    /// # Errors
    /// As [`Daemon::ctl`], or the exit code wasn't 0.
    pub async fn status(&self) -> Result<Value> {
        Ok(self.ctl(&["status"]).await?.ok()?.json["groups"][0].clone())
    }

    /// Waits until the group is open.
    ///
    /// # Errors
    /// It is not within half a minute.
    pub async fn wait_open(&self) -> Result<()> {
        until("the group to open", PATIENCE, async || {
            Ok(self.status().await?["phase"] == "open")
        })
        .await
    }

    /// Orderly stop.
    ///
    /// # Errors
    /// It still runs after half a minute.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.end(Signal::TERM, PATIENCE).await?;
        }
        Ok(())
    }

    /// SIGKILL, to it and to the commands it runs.
    ///
    /// # Errors
    /// Something survived.
    pub fn kill(&mut self) -> Result<()> {
        self.process
            .take()
            .map_or(Ok(()), |mut process| process.kill_all())
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    /// It does not run.
    pub fn memory(&self) -> Result<u64> {
        let process = self.process.as_ref().context("it does not run")?;
        let path = format!("/proc/{}/status", process.pid().as_raw_nonzero());
        let status = fs::read_to_string(path)?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kib.context("VmRSS")?.parse::<u64>()? * 1024)
    }

    /// Sends a signal, such as HUP for a reload, and goes on.
    ///
    /// # Errors
    /// It doesn't run.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("the daemon does not run")?;
        rustix::process::kill_process(process.pid(), signal).context("signal the daemon")
    }

    /// Bounds how long its files may become from now on, bytes; `None` lifts the bound. With 0 no
    /// file can grow, as on a full disk, whoever the test runs as.
    ///
    /// # Errors
    /// It doesn't run, or the system refuses.
    pub fn limit_files(&self, bytes: Option<u64>) -> Result<()> {
        use rustix::process::{Resource, Rlimit, prlimit};
        let process = self.process.as_ref().context("the daemon does not run")?;
        // Only the lower bound is set: the upper one could not be raised again by everybody.
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        prlimit(Some(process.pid()), Resource::Fsize, limit).context("bound the daemon's files")?;
        Ok(())
    }

    /// Waits until it ends by itself, as `WRITEFENCE_STOP_AFTER` makes it.
    ///
    /// # Errors
    /// It still runs after half a minute.
    pub async fn wait_end(&mut self) -> Result<ExitStatus> {
        let mut process = self.process.take().context("the daemon does not run")?;
        process.wait(PATIENCE).await
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.process.take());
        if std::thread::panicking() {
            eprintln!("--- log of the daemon ---\n{}", tail(&self.log()));
        }
    }
}

/// The document in an output: all of it, or its last line if events came before.
fn document(out: &str) -> Value {
    let last = || {
        out.lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default()
    };
    serde_json::from_str(out)
        .or_else(|_| serde_json::from_str(last()))
        .unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_whole_output_or_its_last_line() {
        assert_eq!(document("{\n \"api\": 1\n}\n")["api"], 1);
        assert_eq!(document("{\"step\":1}\n{\"api\":1}\n\n")["api"], 1);
        assert_eq!(document("no daemon"), Value::Null);
    }
}
