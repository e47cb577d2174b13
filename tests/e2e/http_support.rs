//! What the HTTP tests share: one PostgreSQL server and HTTP servers behind the daemon.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use writefence_tests::eventually::until;
use writefence_tests::http::{Reply, Upstream, send};
use writefence_tests::postgres::Options;
use writefence_tests::{Cluster, Daemon, DaemonOptions, HttpOptions, process};

pub(crate) const SOON: Duration = Duration::from_secs(5);

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
        let args = ["prepare", "--primary", "a", "--reason", "test"];
        let how: &[&str] = match answer {
            "hold" => &["--hold", "20s"],
            _ => &["--reject"],
        };
        self.daemon.ctl(&[&args[..], how].concat()).await?.ok()?;
        Ok(())
    }

    pub(crate) async fn open(&self) -> Result<()> {
        let args = ["open-writes", "--primary", "a"];
        self.daemon.ctl(&args).await?.ok()?;
        Ok(())
    }

    pub(crate) async fn in_flight(&self) -> Result<Value> {
        Ok(self.daemon.status().await?["in_flight"].clone())
    }

    /// Waits until `status` shows this count.
    pub(crate) async fn until_count(&self, what: &str, n: u64) -> Result<()> {
        until(&format!("{what} to be {n}"), SOON, async || {
            Ok(self.in_flight().await?[what].as_u64() == Some(n))
        })
        .await
    }
}

pub(crate) fn http_port(daemon: &Daemon) -> u16 {
    daemon.options.front.as_ref().map_or(0, |http| http.port)
}
