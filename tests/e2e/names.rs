//! A server's name is asked for once and kept: the server that was checked is the one that sessions
//! log in to, wherever DNS leads meanwhile.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::net::{TcpListener, TcpStream};
use writefence_tests::eventually::until;
use writefence_tests::postgres::{self, Options, skipped};
use writefence_tests::{Cluster, Daemon, DaemonOptions, process};

use crate::support::value;

const SOON: Duration = Duration::from_secs(30);
const USERS: &str = "[console]\nadmin_users = [\"ops\"]\n";

/// Another address with the same port, and what answers there.
async fn elsewhere(port: u16, target: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.2", port)).await?;
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", target)).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    Ok(())
}

struct Named {
    daemon: Daemon,
    a: Cluster,
    b: Cluster,
    hosts: std::path::PathBuf,
}

impl Named {
    async fn start() -> Result<Self> {
        let a = Cluster::create("a", &Options::default()).await?;
        a.query("CREATE TABLE t (a int)").await?;
        let b = a.standby("b").await?;
        let mut options = DaemonOptions::new(&[&a, &b]);
        "db.test".clone_into(&mut options.host);
        USERS.clone_into(&mut options.extra);
        let mut daemon = Daemon::prepare(options)?;
        let hosts = daemon.state_dir().with_file_name("hosts");
        std::fs::write(&hosts, "db.test 127.0.0.1\n")?;
        let file = hosts.display().to_string();
        daemon.launch(&[("WRITEFENCE_HOSTS", &file)]).await?;
        let open = daemon.wait_open().await;
        open.with_context(|| process::tail(&daemon.log()))?;
        Ok(Self {
            daemon,
            a,
            b,
            hosts,
        })
    }

    /// From here on the name leads to the other address.
    fn leads_elsewhere(&self) -> Result<()> {
        Ok(std::fs::write(&self.hosts, "db.test 127.0.0.2\n")?)
    }

    /// What `status` says of where the name of the primary, or of its standby, led.
    async fn shown(&self, region: usize) -> Result<String> {
        let status = self.daemon.status().await?;
        let address = status["regions"][region]["address"].as_str();
        Ok(address.with_context(|| status.to_string())?.to_owned())
    }

    async fn console(&self, command: &str) -> Result<()> {
        let ops = postgres::connect(self.daemon.port(), "ops", "pgbouncer").await?;
        ops.simple_query(command).await?;
        Ok(())
    }

    /// The address at which a new session meets its server.
    async fn server_of_a_new_session(&self) -> Result<String> {
        let client = postgres::connect(self.daemon.port(), "postgres", "postgres").await?;
        value(&client, "SELECT system_identifier FROM pg_control_system()").await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_changes_is_followed_by_reconnect_or_with_a_fence_and_not_before() -> Result<()>
{
    if skipped() {
        return Ok(());
    }
    let named = Named::start().await?;
    let (first, second) = ("127.0.0.1", "127.0.0.2");
    ensure!(named.shown(0).await?.starts_with(first));
    elsewhere(named.a.port(), named.a.port()).await?;
    named.leads_elsewhere()?;
    named.server_of_a_new_session().await?;
    ensure!(
        named.shown(0).await?.starts_with(first),
        "followed without a reason"
    );
    named.console("RECONNECT").await?;
    ensure!(named.shown(0).await?.starts_with(second));
    named.server_of_a_new_session().await?;
    // With a fence the other regions' names are asked for again: one of them may be next.
    ensure!(named.shown(1).await?.starts_with(first));
    elsewhere(named.b.port(), named.b.port()).await?;
    let prepare = ["prepare", "--primary", "a", "--reason", "x"];
    named.daemon.ctl(&prepare).await?.ok()?;
    until("the standby's name to be asked for", SOON, async || {
        Ok(named.shown(1).await?.starts_with(second))
    })
    .await?;
    named.daemon.ctl(&["abort"]).await?.ok()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_to_another_server_is_not_followed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let named = Named::start().await?;
    let own = named.server_of_a_new_session().await?;
    let other = Cluster::create("c", &Options::default()).await?;
    elsewhere(named.a.port(), other.port()).await?;
    named.leads_elsewhere()?;
    let error = named
        .console("RECONNECT")
        .await
        .expect_err("another server");
    let said = format!("{error:?}");
    ensure!(said.contains("leads to another server now"), "{said}");
    let prepare = ["prepare", "--primary", "a", "--reason", "x"];
    named.daemon.ctl(&prepare).await?.ok()?;
    named.daemon.ctl(&["abort"]).await?.ok()?;
    ensure!(named.shown(0).await?.starts_with("127.0.0.1"));
    ensure!(named.server_of_a_new_session().await? == own);
    Ok(())
}
