//! What drivers rely on beyond the answers to their statements, and what their own test suites found.

use anyhow::{Result, ensure};
use writefence_tests::postgres::{Options, skipped};
use writefence_tests::script::Talk;
use writefence_tests::{Cluster, Daemon, DaemonOptions};

use crate::garbage::answer;
use crate::support::startup;
use crate::wire::Wire;

/// libpq's PQbackendPID, psycopg's `info.backend_pid`, asyncpg's `get_server_pid`: applications look
/// themselves up in `pg_stat_activity` and `pg_locks` by it, and skip their own notifications.
#[tokio::test]
async fn the_process_id_that_a_client_was_told_is_that_of_its_backend() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let server = Cluster::create("a", &Options::default()).await?;
    let daemon = Daemon::start(DaemonOptions::new(&[&server])).await?;
    daemon.wait_open().await?;
    let mut talk = Talk::start(daemon.port(), &startup()).await?;
    let told = talk.key.0;
    let own = format!("SELECT pg_backend_pid() = {told} AS own");
    let answer = talk.query(&own).await?;
    let row = "D \\x00\\x01\\x00\\x00\\x00\\x01t";
    ensure!(answer.iter().any(|m| m == row), "told {told}: {answer:?}");
    Ok(())
}

/// node-postgres' own suite: a client that is closed at once says goodbye before it has said hello.
#[tokio::test]
async fn a_client_that_leaves_before_it_has_begun_hears_nothing() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let server = Cluster::create("a", &Options::default()).await?;
    let daemon = Daemon::start(DaemonOptions::new(&[&server])).await?;
    daemon.wait_open().await?;
    for port in [server.port(), daemon.port()] {
        let heard = answer(port, b"X\0\0\0\x04").await?;
        ensure!(heard.is_empty(), "{port}: {}", heard.escape_ascii());
    }
    Ok(())
}

/// tokio-postgres' own suite: a name that is too long is told of before the login is done.
#[tokio::test]
async fn a_notice_that_comes_with_the_login_reaches_the_client() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let server = Cluster::create("a", &Options::default()).await?;
    let daemon = Daemon::start(DaemonOptions::new(&[&server])).await?;
    daemon.wait_open().await?;
    let name = "x".repeat(65);
    let (_, direct) = Wire::login(server.port(), &[("application_name", &name)]).await?;
    let (_, ours) = Wire::login(daemon.port(), &[("application_name", &name)]).await?;
    let notices = |all: &[(u8, Vec<u8>)]| -> Vec<Vec<u8>> {
        let notices = all.iter().filter(|(tag, _)| *tag == b'N');
        notices.map(|(_, body)| body.clone()).collect()
    };
    ensure!(notices(&direct).len() == 1, "{direct:?}");
    ensure!(notices(&ours) == notices(&direct), "{ours:?}");
    Ok(())
}
