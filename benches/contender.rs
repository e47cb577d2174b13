//! Ways to the same server: no proxy, PgBouncer, writefence.
//!
//! PgBouncer is the peer because it does the least: in session mode it logs in and passes bytes on
//! in one thread. Each runs as its users run it, without tuning, trusting whoever comes from
//! loopback, so that no password is part of the figures.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Pid;
use tempfile::TempDir;
use writefence_tests::pki::Pki;
use writefence_tests::ports::free_port;
use writefence_tests::postgres::{Programs, SUPERUSER, connect};
use writefence_tests::process::{Process, Signal};
use writefence_tests::{Cluster, Daemon, DaemonOptions, eventually};

use crate::cpu::started_with;

/// Where daemons lie that a user's PATH leaves out.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// From its start to its first answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// More than any load's clients, so that none waits for a server connection.
const POOL: u32 = 6_000;

/// One way to the server.
#[derive(Debug)]
pub struct Contender {
    /// Its name in tables.
    pub name: &'static str,
    /// Where clients connect.
    pub port: u16,
    /// Whose time is counted; none if there is no proxy.
    pub pid: Option<Pid>,
    _running: Running,
}

/// What ends with the contender.
#[derive(Debug)]
enum Running {
    Nothing,
    // The process ends before its folder goes.
    PgBouncer(#[expect(dead_code, reason = "held for its drop")] (Process, TempDir)),
    Writefence(#[expect(dead_code, reason = "held for its drop")] Box<Daemon>),
}

impl Contender {
    /// The server itself.
    #[must_use]
    pub const fn direct(cluster: &Cluster) -> Self {
        Self {
            name: "direct",
            port: cluster.port(),
            pid: None,
            _running: Running::Nothing,
        }
    }

    /// Our daemon with one region, its gate open, no TLS anywhere.
    ///
    /// # Errors
    /// It does not start, or does not open.
    pub async fn writefence(cluster: &Cluster) -> Result<Self> {
        let mut options = DaemonOptions::new(&[cluster]);
        "tls.mode = \"disable\"".clone_into(&mut options.region);
        Self::daemon("writefence", options).await
    }

    /// The same with TLS on both legs; the server speaks it with a certificate of `pki` too, which
    /// has issued `front` for the listener.
    ///
    /// # Errors
    /// It does not start, or does not open.
    pub async fn writefence_tls(cluster: &Cluster, pki: &Pki) -> Result<Self> {
        let mut options = DaemonOptions::new(&[cluster]);
        options.region = format!(
            "tls.mode = \"verify-full\"\ntls.ca = {:?}",
            pki.path("ca.pem")
        );
        let (cert, key) = (pki.path("front.pem"), pki.path("front.key"));
        options.listen = format!("auth = \"trust\"\ntls.cert = {cert:?}\ntls.key = {key:?}\n");
        Self::daemon("writefence, TLS", options).await
    }

    async fn daemon(name: &'static str, mut options: DaemonOptions) -> Result<Self> {
        options.extra = format!("[limits]\nsessions = {POOL}\n");
        let daemon = Daemon::start(options).await?;
        daemon.wait_open().await?;
        Ok(Self {
            name,
            port: daemon.port(),
            pid: Some(started_with(&daemon.write_config()?)?),
            _running: Running::Writefence(Box::new(daemon)),
        })
    }

    /// `PgBouncer` in session mode.
    ///
    /// # Errors
    /// It does not start.
    pub async fn pgbouncer(program: &Path, cluster: &Cluster) -> Result<Self> {
        // It refuses root as the server does, so it runs as the server's account.
        let programs = Programs::find()?;
        let folder = tempfile::Builder::new().prefix("writefence-").tempdir()?;
        programs.own(folder.path())?;
        let users = folder.path().join("users.txt");
        programs.write(&users, &format!("\"{SUPERUSER}\" \"\"\n"))?;
        let port = free_port()?;
        let config = folder.path().join("pgbouncer.ini");
        programs.write(&config, &ini(cluster.port(), port, &users))?;

        // An absolute path takes the place of the folder of PostgreSQL's own programs.
        let mut command = programs.command(&program.display().to_string(), folder.path());
        command.arg(&config);
        let log = folder.path().join("pgbouncer.log");
        // SIGINT would wait for its clients.
        let mut process = Process::spawn("pgbouncer", command, &log, Signal::TERM)?;
        let up = eventually("pgbouncer to answer", PATIENCE, async || {
            if process.ended().is_some() {
                return Ok(Some(false));
            }
            connect(port, SUPERUSER, "postgres").await?;
            Ok(Some(true))
        });
        if !up.await.with_context(|| process.log_tail())? {
            bail!("pgbouncer ended at once:\n{}", process.log_tail());
        }
        Ok(Self {
            name: "pgbouncer",
            port,
            pid: Some(process.pid()),
            _running: Running::PgBouncer((process, folder)),
        })
    }
}

fn ini(server: u16, port: u16, users: &Path) -> String {
    let users = users.display();
    format!(
        "[databases]
postgres = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = session
default_pool_size = {POOL}
max_client_conn = {POOL}
ignore_startup_parameters = extra_float_digits
"
    )
}

/// Where `PgBouncer` is: in PATH or among the system's daemons.
#[must_use]
pub fn find_pgbouncer() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(SYSTEM.map(PathBuf::from))
        .filter_map(|folder| fs::canonicalize(folder.join("pgbouncer")).ok())
        .find(|program| program.is_file())
}

/// What a program calls itself.
#[must_use]
pub fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map(|it| it.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().next().unwrap_or("version unknown").to_owned()
}
