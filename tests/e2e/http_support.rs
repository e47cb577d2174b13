//! What the HTTP tests share: one PostgreSQL server and HTTP servers behind the daemon.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use writefence_tests::eventually::until;
use writefence_tests::http::{Reply, Upstream, send};
use writefence_tests::ports::free_port;
use writefence_tests::postgres::Options;
use writefence_tests::{Cluster, Daemon, DaemonOptions, HttpOptions, process};

pub(crate) const SOON: Duration = Duration::from_secs(15);

/// A daemon in front of one region's servers.
pub(crate) struct Api {
    // Dropped in this order: the daemon before what it watches.
    pub(crate) daemon: Daemon,
    pub(crate) server: Upstream,
    _cluster: Cluster,
}

impl Api {
    pub(crate) async fn start(tune: impl FnOnce(&mut DaemonOptions)) -> Result<Self> {
        let cluster = Cluster::create("a", &Options::default()).await?;
        let server = Upstream::start("a").await?;
        let mut options = DaemonOptions::new(&[&cluster]);
        options.front = Some(HttpOptions::new(&[server.port()])?);
        tune(&mut options);
        let daemon = Daemon::start(options).await?;
        let log = || process::tail(&daemon.log());
        daemon.wait_open().await.with_context(log)?;
        Ok(Self {
            daemon,
            server,
            _cluster: cluster,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        http_port(&self.daemon)
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(&self, method: &str, target: &str, body: &str) -> Result<Reply> {
        send(self.port(), method, target, "", body).await
    }

    pub(crate) async fn fence(&self, answer: &str) -> Result<()> {
        fence(&self.daemon, answer).await
    }

    pub(crate) async fn open(&self) -> Result<()> {
        open(&self.daemon).await
    }

    pub(crate) async fn in_flight(&self) -> Result<Value> {
        Ok(self.daemon.status().await?["in_flight"].clone())
    }

    /// Waits until `status` shows this count.
    pub(crate) async fn until_count(&self, what: &str, n: u64) -> Result<()> {
        until_count(&self.daemon, what, n).await
    }
}

/// A daemon before one server and nothing else.
pub(crate) struct Alone {
    pub(crate) daemon: Daemon,
    pub(crate) server: Upstream,
    pub(crate) port: u16,
}

impl Alone {
    /// With these keys of the listener.
    pub(crate) async fn start(keys: &str) -> Result<Self> {
        Self::start_with("", keys).await
    }

    /// With these of the region too.
    pub(crate) async fn start_with(region: &str, keys: &str) -> Result<Self> {
        let server = Upstream::start("a").await?;
        let (daemon, port) = before(server.port(), region, keys).await?;
        Ok(Self {
            daemon,
            server,
            port,
        })
    }
}

/// A daemon before the server at this port, and the daemon's own port.
pub(crate) async fn before(server: u16, region: &str, keys: &str) -> Result<(Daemon, u16)> {
    let port = free_port()?;
    let group = format!(
        "[group.main.region.a]\nhttp = \"http://127.0.0.1:{server}\"\n{region}\n\
         [[group.main.listen]]\nkind = \"http\"\naddress = \"127.0.0.1:{port}\"\n{keys}\n"
    );
    let daemon = Daemon::start(DaemonOptions::without_database("a", &group)).await?;
    let log = || process::tail(&daemon.log());
    daemon.wait_open().await.with_context(log)?;
    Ok((daemon, port))
}

/// Fences writes, which are held or refused.
pub(crate) async fn fence(daemon: &Daemon, answer: &str) -> Result<()> {
    let args = ["prepare", "--primary", "a", "--reason", "test"];
    let how: &[&str] = match answer {
        "hold" => &["--hold", "20s"],
        _ => &["--reject"],
    };
    daemon.ctl(&[&args[..], how].concat()).await?.ok()?;
    Ok(())
}

/// Has writes pass again.
pub(crate) async fn open(daemon: &Daemon) -> Result<()> {
    daemon.ctl(&["open-writes", "--primary", "a"]).await?.ok()?;
    Ok(())
}

/// Waits until `status` shows this count.
pub(crate) async fn until_count(daemon: &Daemon, what: &str, n: u64) -> Result<()> {
    until(&format!("{what} to be {n}"), SOON, async || {
        Ok(daemon.status().await?["in_flight"][what].as_u64() == Some(n))
    })
    .await
}

pub(crate) fn http_port(daemon: &Daemon) -> u16 {
    daemon.options.front.as_ref().map_or(0, |http| http.port)
}
