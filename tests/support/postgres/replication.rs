//! Standbys: made by a base backup, promoted, and brought back by pg_rewind, or by a further base
//! backup where the installation has no pg_rewind.
//!
//! There are no replication slots; `wal_keep_size` bridges the time a standby is away. Promotion
//! here is for tests without a daemon, and leaves out everything a daemon does before it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Cluster, SUPERUSER, rows};
use crate::eventually::until;

/// A standby that isn't streaming after this time has a reason, which is in its log.
const STREAMING: Duration = Duration::from_secs(30);

/// A promotion that takes longer than this may be asleep: most take 10 to 60 ms.
const NUDGE: Duration = Duration::from_millis(100);

impl Cluster {
    /// A streaming standby of this cluster, running.
    ///
    /// # Errors
    /// The base backup or the start failed, or it does not stream.
    pub async fn standby(&self, name: &str) -> Result<Self> {
        let mut standby = Self::blank(name, &self.programs, &self.options)?;
        standby.back_up(self).await?;
        standby.follow(self.port())?;
        standby.start().await?;
        self.wait_streaming(name).await?;
        Ok(standby)
    }

    /// Makes this (former) primary a standby of `primary`: fast stop, pg_rewind, start. A killed
    /// one is rewound as well; pg_rewind lets it recover first. Either way what `ALTER SYSTEM` left
    /// in it stays, as a barrier's setting does.
    ///
    /// # Errors
    /// A program failed, or it does not stream.
    pub async fn rejoin(&mut self, primary: &Self) -> Result<()> {
        self.rejoin_through(primary, primary.port()).await
    }

    /// Like [`Cluster::rejoin`], with the stream (not the rewind) through `port`, where a relay
    /// may stand.
    ///
    /// # Errors
    /// As [`Cluster::rejoin`].
    pub async fn rejoin_through(&mut self, primary: &Self, port: u16) -> Result<()> {
        self.stop().await?;
        if self.programs.has("pg_rewind") {
            self.rewind(primary).await?;
        } else {
            let auto = self.data.join("postgresql.auto.conf");
            let own = std::fs::read_to_string(&auto).context("read what ALTER SYSTEM left")?;
            std::fs::remove_dir_all(&self.data).context("remove the old data folder")?;
            self.back_up(primary).await?;
            self.programs.write(&auto, &own)?;
        }
        self.follow(port)?;
        self.start().await?;
        primary.wait_streaming(self.name()).await
    }

    async fn rewind(&self, primary: &Self) -> Result<()> {
        // pg_rewind reads the timeline from the control file, which a promotion brings up to
        // date only with its checkpoint; without this it can say that nothing needs to be done.
        primary.query("CHECKPOINT").await?;
        let source = format!(
            "host=127.0.0.1 port={} user={SUPERUSER} dbname=postgres",
            primary.port()
        );
        let mut command = self.command("pg_rewind");
        command.arg("--source-server").arg(source).arg("--no-sync");
        command.arg("--target-pgdata").arg(&self.data);
        super::run(command).await
    }

    /// Moves the running standby's stream to `port`, where a relay to its primary may stand.
    ///
    /// # Errors
    /// As [`Cluster::query`], or it does not stream there.
    pub async fn stream_through(&self, primary: &Self, port: u16) -> Result<()> {
        let conninfo = self.conninfo(port);
        self.query(&format!("ALTER SYSTEM SET primary_conninfo = '{conninfo}'"))
            .await?;
        self.query("SELECT pg_reload_conf()").await?;
        let sql = "SELECT count(*) FROM pg_stat_wal_receiver \
                   WHERE status = 'streaming' AND sender_port = ";
        until("the stream to move", STREAMING, async || {
            Ok(self.value(&format!("{sql}{port}")).await? != "0")
        })
        .await?;
        primary.wait_streaming(self.name()).await
    }

    fn conninfo(&self, port: u16) -> String {
        let own = self.name();
        format!("host=127.0.0.1 port={port} user={SUPERUSER} application_name={own}")
    }

    /// Points the stopped cluster at a primary.
    fn follow(&self, port: u16) -> Result<()> {
        self.programs.write(&self.data.join("standby.signal"), "")?;
        let conninfo = self.conninfo(port);
        self.set_auto(
            "primary_conninfo",
            &format!("primary_conninfo = '{conninfo}'"),
        )
    }

    /// Replaces the line of `key` in the file that `ALTER SYSTEM` writes. Other lines stay: what a
    /// barrier left there is part of what a rejoin brings back.
    fn set_auto(&self, key: &str, line: &str) -> Result<()> {
        let path: &Path = &self.data.join("postgresql.auto.conf");
        let old =
            std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let kept = old.lines().filter(|line| !line.starts_with(key));
        let text: String = kept.chain([line]).flat_map(|line| [line, "\n"]).collect();
        self.programs.write(path, &text)
    }

    /// Waits until the standby `name` streams from here.
    ///
    /// # Errors
    /// It does not within half a minute.
    pub async fn wait_streaming(&self, name: &str) -> Result<()> {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_replication \
             WHERE state = 'streaming' AND application_name = '{name}'"
        );
        until(&format!("{name} to stream"), STREAMING, async || {
            Ok(self.value(&sql).await? != "0")
        })
        .await
    }

    /// Waits until this standby has replayed all that `primary` has written by now.
    ///
    /// # Errors
    /// It has not within half a minute.
    pub async fn wait_caught_up(&self, primary: &Self) -> Result<()> {
        let lsn = primary.value("SELECT pg_current_wal_lsn()").await?;
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
        until(&format!("replay up to {lsn}"), STREAMING, async || {
            Ok(self.value(&sql).await? == "t")
        })
        .await
    }

    /// Whether commits wait for a standby's disk. Switching on waits until a standby counts.
    ///
    /// # Errors
    /// As [`Cluster::query`], or no standby became synchronous.
    pub async fn synchronous(&self, on: bool) -> Result<()> {
        let names = if on { "*" } else { "" };
        self.query(&format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{names}'"
        ))
        .await?;
        self.query("SELECT pg_reload_conf()").await?;
        let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        until(
            "replication to turn synchronous or not",
            STREAMING,
            async || Ok((self.value(sql).await? != "0") == on),
        )
        .await
    }

    /// Promotes this standby and says how long that took. Polled: waiting inside `pg_promote` looks
    /// only ten times a second.
    ///
    /// # Errors
    /// As [`Cluster::query`], or it is still a standby after half a minute.
    pub async fn promote(&self) -> Result<Duration> {
        let client = self.connect(SUPERUSER, "postgres").await?;
        let begin = Instant::now();
        rows(&client, "SELECT pg_promote(false)").await?;
        let mut nudged = begin;
        until("the end of recovery", STREAMING, async || {
            // A promotion that arrives while the stream is being set up again counts as the
            // stream's failure, and the server then sleeps wal_retrieve_retry_interval (5 s).
            // A reload wakes it.
            if nudged.elapsed() > NUDGE {
                nudged = Instant::now();
                rows(&client, "SELECT pg_reload_conf()").await?;
            }
            let answer = rows(&client, "SELECT pg_is_in_recovery()").await?;
            Ok(answer == [[Some("f".to_owned())]])
        })
        .await?;
        Ok(begin.elapsed())
    }
}
