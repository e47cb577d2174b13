//! A base backup by hand, through SQL and the file system.
//!
//! Not every installation of the server brings pg_basebackup. A copy that is taken between
//! `pg_backup_start` and `pg_backup_stop` may be torn; replay from its label mends it. The log
//! itself is not copied: the standby streams it, from `wal_keep_size` if it must.

use std::fs;
use std::io::{Error, ErrorKind};
use std::path::Path;

use anyhow::{Context, Result};

use super::{Cluster, SUPERUSER, rows};

/// Belong to the running server, not to its data.
const OWN: [&str; 3] = ["postmaster.pid", "postmaster.opts", "standby.signal"];

impl Cluster {
    /// Fills this cluster's empty data folder with a copy of the running `primary`.
    pub(super) async fn back_up(&self, primary: &Self) -> Result<()> {
        let client = primary.connect(SUPERUSER, "postgres").await?;
        rows(&client, "SELECT pg_backup_start('standby', true)").await?;
        let (programs, from, to) = (
            self.programs.clone(),
            primary.data.clone(),
            self.data.clone(),
        );
        tokio::task::spawn_blocking(move || {
            copy(&from, &to, &|path| programs.own(path))
                .with_context(|| format!("copy {} to {}", from.display(), to.display()))
        })
        .await??;
        let stopped = rows(&client, "SELECT labelfile FROM pg_backup_stop(false)").await?;
        let label = stopped.into_iter().flatten().next().flatten();
        self.programs.write(
            &self.data.join("backup_label"),
            &label.context("pg_backup_stop gave no label")?,
        )
    }
}

/// Copies a data folder, giving every copy to its owner. Files that vanish meanwhile are those
/// that replay does not need.
fn copy(from: &Path, to: &Path, own: &impl Fn(&Path) -> Result<()>) -> Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::metadata(from)?.permissions())?;
    own(to)?;
    let is_log = from.ends_with("pg_wal");
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let target = to.join(&name);
        let text = name.to_string_lossy();
        let kind = match entry.file_type() {
            Err(error) if gone(&error) => continue,
            kind => kind?,
        };
        if kind.is_dir() {
            copy(&entry.path(), &target, own)?;
            continue;
        }
        if OWN.contains(&&*text) || is_log && !text.ends_with(".history") {
            continue;
        }
        match fs::copy(entry.path(), &target) {
            Err(error) if gone(&error) => {}
            copied => {
                copied?;
                own(&target)?;
            }
        }
    }
    Ok(())
}

fn gone(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
}
