//! The driver for Patroni against a real Patroni over a real etcd: there and back.
//!
//! Both are installed by `.ci/setup test` on Debian. Elsewhere the test says that they are lacking
//! and is left out, except where `CI=true` promises that they are there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use writefence_tests::eventually::until;
use writefence_tests::ports::free_port;
use writefence_tests::postgres::{Programs, connect, rows, skipped};
use writefence_tests::process::{Process, Signal};
use writefence_tests::{Daemon, DaemonOptions, process};

/// Bootstrap of two members on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Patroni with its PostgreSQL.
struct Member {
    name: &'static str,
    postgres: u16,
    rest: u16,
    // Dropped in this order: the process ends before its folder goes.
    _process: Process,
    _folder: TempDir,
}

struct Cluster {
    a: Member,
    b: Member,
    _etcd: Process,
    _folder: TempDir,
}

fn folder(programs: &Programs) -> Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("patroni-").tempdir()?;
    programs.own(folder.path())?;
    Ok(folder)
}

/// Where the installation really is: what is on the path may be links to a part of it.
fn bin(programs: &Programs) -> Result<PathBuf> {
    let server = std::fs::canonicalize(programs.folder().join("postgres"))?;
    Ok(server.parent().context("a folder")?.to_owned())
}

/// Whether the programs are there; an error where they are promised.
fn lacking(programs: &Programs) -> Result<bool> {
    let (here, bin) = (Path::new("/"), bin(programs)?);
    let services = ["etcd", "patroni"]
        .into_iter()
        .filter(|name| programs.client(name, here).is_err());
    let own = ["pg_basebackup", "pg_controldata", "pg_rewind"]
        .into_iter()
        .filter(|name| !bin.join(name).is_file());
    let gone: Vec<&str> = services.chain(own).collect();
    if gone.is_empty() {
        return Ok(false);
    }
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        bail!("{} not installed: run .ci/setup test", gone.join(" and "));
    }
    eprintln!("left out: {} not installed", gone.join(" and "));
    Ok(true)
}

fn spawn(name: &str, mut command: Command, folder: &Path) -> Result<Process> {
    // Neither looks for its configuration in the caller's environment.
    for (key, _) in std::env::vars_os() {
        let is_theirs = |key: &str| key.starts_with("ETCD") || key.starts_with("PATRONI");
        if key.to_str().is_some_and(is_theirs) {
            command.env_remove(key);
        }
    }
    Process::spawn(
        name,
        command,
        &folder.join(format!("{name}.log")),
        Signal::TERM,
    )
}

impl Cluster {
    async fn start(programs: &Programs) -> Result<Self> {
        let (client, peer) = (free_port()?, free_port()?);
        let place = folder(programs)?;
        let mut command = programs.client("etcd", place.path())?;
        let (client_url, peer_url) = (
            format!("http://127.0.0.1:{client}"),
            format!("http://127.0.0.1:{peer}"),
        );
        command.arg("--data-dir").arg(place.path().join("data"));
        command.args(["--listen-client-urls", &client_url]);
        command.args(["--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url]);
        command.args(["--initial-advertise-peer-urls", &peer_url]);
        command
            .arg("--initial-cluster")
            .arg(format!("default={peer_url}"));
        let etcd = spawn("etcd", command, place.path())?;
        let a = Member::start("a", programs, client)?;
        a.until("to lead", "primary").await?;
        let b = Member::start("b", programs, client)?;
        b.until("to follow", "replica").await?;
        Ok(Self {
            a,
            b,
            _etcd: etcd,
            _folder: place,
        })
    }
}

impl Member {
    fn start(name: &'static str, programs: &Programs, etcd: u16) -> Result<Self> {
        let (postgres, rest) = (free_port()?, free_port()?);
        let place = folder(programs)?;
        let at = place.path().display();
        let bin = bin(programs)?;
        let bin = bin.display();
        let text = format!(
            r#"
scope: writefence
name: {name}
restapi:
  listen: 127.0.0.1:{rest}
  connect_address: 127.0.0.1:{rest}
etcd3:
  hosts: 127.0.0.1:{etcd}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    postgresql:
      use_pg_rewind: true
      parameters:
        wal_keep_size: 64MB
  initdb:
    - encoding: UTF8
    - locale: C
    - data-checksums
postgresql:
  listen: 127.0.0.1:{postgres}
  connect_address: 127.0.0.1:{postgres}
  data_dir: {at}/data
  bin_dir: {bin}
  pgpass: {at}/pgpass
  authentication:
    superuser: {{username: postgres, password: postgres}}
    replication: {{username: postgres, password: postgres}}
    rewind: {{username: postgres, password: postgres}}
  parameters:
    unix_socket_directories: {at}
    fsync: "off"
    log_min_messages: warning
  pg_hba:
    - local all all trust
    - host all all 127.0.0.1/32 trust
    - host replication all 127.0.0.1/32 trust
"#
        );
        let config = place.path().join("patroni.yml");
        programs.write(&config, &text)?;
        let mut command = programs.client("patroni", place.path())?;
        command.arg(&config);
        Ok(Self {
            name,
            postgres,
            rest,
            _process: spawn("patroni", command, place.path())?,
            _folder: place,
        })
    }

    /// Waits until Patroni says that the member is what it is to be: by the status of this page.
    async fn until(&self, what: &str, page: &str) -> Result<()> {
        let what = format!("{} {what}", self.name);
        let log = self._folder.path().join("patroni.log");
        let asked = until(&what, PATIENCE, async || {
            Ok(self.status(page).await.is_ok_and(|status| status == 200))
        });
        asked.await.with_context(|| process::tail(&log))
    }

    /// Waits until all of Patroni knows that the member runs: what its own page says is told to the
    /// others a turn later.
    async fn until_published(&self) -> Result<()> {
        let what = format!("{} to be known to run", self.name);
        until(&what, PATIENCE, async || {
            let answer = self.get("cluster").await?;
            let body = answer.split_once("\r\n\r\n").context("a body")?.1;
            let cluster: Value = serde_json::from_str(body)?;
            let members = cluster["members"].as_array().context("members")?;
            let mut own = members.iter().filter(|member| member["name"] == self.name);
            Ok(own.any(|member| {
                ["running", "streaming"]
                    .iter()
                    .any(|s| member["state"] == *s)
            }))
        })
        .await
    }

    async fn status(&self, page: &str) -> Result<u16> {
        let answer = self.get(page).await?;
        let status = answer.split(' ').nth(1).context("a status")?;
        Ok(status.parse()?)
    }

    async fn get(&self, page: &str) -> Result<String> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.rest)).await?;
        let request = format!("GET /{page} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn count(&self) -> Result<String> {
        let client = connect(self.postgres, "postgres", "postgres").await?;
        let found = rows(&client, "SELECT count(*) FROM t").await?;
        let first = found.into_iter().flatten().next().flatten();
        first.context("a count")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patroni_promotes_there_and_back_and_rejoins_the_old_primary_by_itself() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let programs = Programs::find()?;
    if lacking(&programs)? {
        return Ok(());
    }
    let cluster = Cluster::start(&programs).await?;
    let (a, b) = (&cluster.a, &cluster.b);
    let admin = connect(a.postgres, "postgres", "postgres").await?;
    admin.batch_execute("CREATE TABLE t (a int)").await?;
    let mut options = DaemonOptions::new(&[]);
    options.regions = vec![("a".to_owned(), a.postgres), ("b".to_owned(), b.postgres)];
    options.primary = "a".to_owned();
    // A switchover by Patroni stops the old primary first, and its turns are a second long.
    options.budget = "60s".to_owned();
    options.driver = format!(
        "kind = \"patroni\"\nurl = [\"http://127.0.0.1:{}\", \"http://127.0.0.1:{}\"]",
        a.rest, b.rest
    );
    let daemon = Daemon::start(options).await?;
    daemon.wait_open().await?;
    let client = connect(daemon.port(), "postgres", "postgres").await?;
    for (n, (to, member, other)) in [("b", b, a), ("a", a, b)].into_iter().enumerate() {
        member.until_published().await?;
        until("the candidate to be ready", PATIENCE, async || {
            Ok(daemon.ctl(&["preflight", "--to", to]).await?.code == 0)
        })
        .await?;
        client.batch_execute("INSERT INTO t VALUES (1)").await?;
        let moved = daemon
            .ctl(&["switchover", "--to", to, "--reason", "x"])
            .await?;
        ensure!(
            moved.code == 0,
            "{}\n{}",
            moved.text,
            process::tail(&daemon.log())
        );
        eprintln!("to {to}: {} ms", moved.took.as_millis());
        // The same connection writes on the new primary, and nothing is missing there.
        client.batch_execute("INSERT INTO t VALUES (2)").await?;
        ensure!(member.count().await? == ((n + 1) * 2).to_string());
        member.until("to lead", "primary").await?;
        other.until("to follow", "replica").await?;
    }
    Ok(())
}
