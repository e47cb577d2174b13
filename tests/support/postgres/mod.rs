//! Throw-away PostgreSQL clusters on loopback.
//!
//! A [`Cluster`] is a data folder with a server on a free port; it has page checksums, so that
//! pg_rewind can bring a former primary back. `PGBIN` chooses the version. Everybody on this machine may log in (`trust`).
//! Dropping it ends the server and removes the folder. Server versions differ between machines:
//! nothing here uses what only one of them has.

mod backup;
mod programs;
mod query;
mod replication;
mod settings;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

pub use programs::{Programs, skipped};
pub use query::{Rows, connect, rows};
pub use settings::{Options, SUPERUSER};

use crate::eventually::eventually;
use crate::ports::free_port;
use crate::process::{Process, Signal, tail};

/// Start with recovery, or a stop with its checkpoint, on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One cluster; a server runs between `start` and `stop` or `kill`.
#[derive(Debug)]
pub struct Cluster {
    name: String,
    programs: Programs,
    options: Options,
    port: u16,
    data: PathBuf,
    log: PathBuf,
    // Dropped in this order: the server ends before its folder goes.
    server: Option<Process>,
    folder: TempDir,
}

impl Cluster {
    /// A fresh cluster, running.
    ///
    /// # Errors
    /// The server programs are missing, or initdb or the start failed.
    pub async fn create(name: &str, options: &Options) -> Result<Self> {
        let mut cluster = Self::blank(name, &Programs::find()?, options)?;
        let mut command = cluster.command("initdb");
        command.args([
            "--username",
            SUPERUSER,
            "--auth=trust",
            "--data-checksums",
            "--no-sync",
        ]);
        command
            .args(["--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(&cluster.data);
        run(command).await?;
        let config = cluster.data.join("postgresql.conf");
        let base = fs::read_to_string(&config).context("read postgresql.conf")?;
        cluster
            .programs
            .write(&config, &(base + &settings::text(options)))?;
        cluster.programs.write(
            &cluster.data.join("pg_hba.conf"),
            &(options.hba.clone() + settings::HBA),
        )?;
        cluster.start().await?;
        Ok(cluster)
    }

    /// A name, a port and an empty folder.
    fn blank(name: &str, programs: &Programs, options: &Options) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("writefence-pg-")
            .tempdir()?;
        programs.own(folder.path())?;
        Ok(Self {
            name: name.to_owned(),
            programs: programs.clone(),
            options: options.clone(),
            port: free_port()?,
            data: folder.path().join("data"),
            log: folder.path().join("server.log"),
            server: None,
            folder,
        })
    }

    /// Its name, which is also its `application_name` as a standby.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port it listens on, the same after every start.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A program of the same installation, or of the machine's, as the server's account; libpq's
    /// own are not part of every installation.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        if self.programs.has(name) {
            return self.command(name);
        }
        let own = self.command(name);
        let mut command = Command::new(name);
        command.current_dir("/").env("LC_ALL", "C");
        for (key, value) in own.get_envs() {
            match value {
                Some(value) => command.env(key, value),
                None => command.env_remove(key),
            };
        }
        command
    }

    /// The server's log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// It ended (its last words are in the text) or does not answer.
    pub async fn start(&mut self) -> Result<()> {
        let mut command = self.command("postgres");
        command
            .arg("-D")
            .arg(&self.data)
            .arg("-p")
            .arg(self.port.to_string());
        for (key, value) in &self.options.settings {
            command.arg("-c").arg(format!("{key}={value}"));
        }
        // SIGQUIT is PostgreSQL's immediate shutdown: quick, and it frees its shared memory.
        let mut server = Process::spawn(&self.name, command, &self.log, Signal::QUIT)?;
        let up = eventually(
            &format!("cluster {} to answer", self.name),
            PATIENCE,
            async || {
                if server.ended().is_some() {
                    return Ok(Some(false));
                }
                self.query("SELECT 1").await.map(|_| Some(true))
            },
        )
        .await?;
        if !up {
            bail!(
                "cluster {} did not start:\n{}",
                self.name,
                server.log_tail()
            );
        }
        self.server = Some(server);
        Ok(())
    }

    /// Fast shutdown: sessions are ended, everything is written, standbys get the rest.
    ///
    /// # Errors
    /// It still runs after a minute.
    pub async fn stop(&mut self) -> Result<()> {
        self.end(Signal::INT).await
    }

    /// Immediate shutdown: as a crash, but the server itself ends its processes.
    ///
    /// # Errors
    /// It still runs after a minute.
    pub async fn stop_immediately(&mut self) -> Result<()> {
        self.end(Signal::QUIT).await
    }

    async fn end(&mut self, signal: Signal) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            server.end(signal, PATIENCE).await?;
        }
        Ok(())
    }

    /// SIGKILL to every process of the server at once.
    ///
    /// # Errors
    /// One survived.
    pub fn kill(&mut self) -> Result<()> {
        self.server
            .take()
            .map_or(Ok(()), |mut server| server.kill_all())
    }

    /// Stops every process of the server where it stands; its connections stay open.
    ///
    /// # Errors
    /// It does not run.
    pub fn freeze(&self) -> Result<()> {
        self.server.as_ref().context("no server runs")?.freeze()
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        if let Some(server) = &self.server {
            server.thaw();
        }
    }

    fn command(&self, program: &str) -> Command {
        self.programs.command(program, self.folder.path())
    }

    /// A killed server leaves a few bytes of System V shared memory, which only its next start
    /// frees; the last line of its pid file names them.
    fn free_shared_memory(&self) -> Option<()> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let id = text.lines().nth(6)?.split_whitespace().nth(1)?.to_owned();
        Command::new("ipcrm")
            .args(["-m", &id])
            .output()
            .ok()
            .map(|_| ())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of cluster {} ---\n{}", self.name, tail(&self.log));
        }
        drop(self.server.take());
        // Left only by a server that had no time to remove it.
        self.free_shared_memory();
    }
}

/// Runs a program to its end.
async fn run(command: Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("run {name}"))?;
    if !output.status.success() {
        let (out, err) = (&output.stdout, &output.stderr);
        bail!(
            "{name}: {}{}",
            String::from_utf8_lossy(out),
            String::from_utf8_lossy(err)
        );
    }
    Ok(())
}
