//! A cancel that races with the end of its statement never hits a later one.
//!
//! PostgreSQL promises that to a client which waits for the end of its cancel connection before it
//! sends the next statement. Through a proxy it holds only if the proxy keeps that next statement
//! back until the server has closed the cancel connection which the proxy made.

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use writefence_tests::postgres::{Options, skipped};
use writefence_tests::script::{Cut, Talk, message};
use writefence_tests::{Cluster, Daemon, DaemonOptions};

use crate::support::{Pair, startup};

const ROUNDS: usize = 10_000;
const SESSIONS: usize = 8;

/// Rows the raced statement counts, at first and at most. Their number follows the race: one that
/// was cancelled is followed by a shorter one, so that statement and cancel always end together.
const FIRST: usize = 10_000;
const MOST: usize = 1_000_000;

/// What became of the raced statements.
#[derive(Debug, Default)]
struct Tally {
    cancelled: usize,
    finished: usize,
    later_hit: usize,
}

/// Sends a cancel request and waits for the end of its connection, as libpq does.
async fn cancel(port: u16, key: &(i32, Vec<u8>)) -> Result<()> {
    let mut request = 80_877_102u32.to_be_bytes().to_vec();
    request.extend(key.0.to_be_bytes());
    request.extend(&key.1);
    let length = u32::try_from(request.len() + 4)?.to_be_bytes();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(&[&length[..], &request].concat()).await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    Ok(())
}

async fn race(port: u16) -> Result<Tally> {
    let mut talk = Talk::start(port, &startup()).await?;
    let key = talk.key.clone();
    let mut tally = Tally::default();
    let mut rows = FIRST;
    for _ in 0..ROUNDS / SESSIONS {
        let first = message(&format!(
            "Q SELECT count(*) FROM generate_series(1, {rows})"
        ))?;
        talk.send(&first, Cut::Whole).await;
        let mut told = Vec::new();
        let (answered, asked) = tokio::join!(talk.read_until(b"Z", &mut told), cancel(port, &key));
        answered?;
        asked?;
        if told.iter().any(|line| line.contains("C57014")) {
            tally.cancelled += 1;
            rows -= rows / 8;
        } else {
            tally.finished += 1;
            rows = (rows + rows / 8 + 1).min(MOST);
        }
        // Sleeping, it is hit by whatever is still on its way.
        let later = talk.query("SELECT pg_sleep(0.002), 'later'").await?;
        tally.later_hit += usize::from(later.iter().any(|line| line.starts_with("E ")));
    }
    Ok(tally)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_never_hits_a_later_statement_in_ten_thousand_races() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let server = Cluster::create("a", &Options::default()).await?;
    let daemon = Daemon::start(DaemonOptions::new(&[&server])).await?;
    daemon.wait_open().await?;
    let port = daemon.port();
    let races = (0..SESSIONS).map(|_| tokio::spawn(race(port)));
    let mut all = Tally::default();
    for tally in futures_util::future::join_all(races).await {
        let tally = tally??;
        all.cancelled += tally.cancelled;
        all.finished += tally.finished;
        all.later_hit += tally.later_hit;
    }
    println!("{all:?}");
    ensure!(all.later_hit == 0, "{all:?}");
    // A race that always ends the same way is none.
    let enough = ROUNDS / 50;
    ensure!(all.cancelled > enough && all.finished > enough, "{all:?}");
    Ok(())
}

/// Passes everything on but cancels: their connections are taken, and then nothing happens.
async fn deaf_to_cancels(target: u16) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = [0; 8];
                near.read_exact(&mut head).await?;
                if head.ends_with(&80_877_102u32.to_be_bytes()) {
                    return std::future::pending().await;
                }
                let mut far = TcpStream::connect(("127.0.0.1", target)).await?;
                far.write_all(&head).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    Ok(port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_that_the_server_does_not_close_keeps_no_session_without_its_wall() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start_behind(deaf_to_cancels, |options| {
        "[limits]\nconnect_timeout = \"60s\"\n".clone_into(&mut options.extra);
        "tls.mode = \"disable\"".clone_into(&mut options.region);
    })
    .await?;
    let mut talk = Talk::start(pair.daemon.port(), &startup()).await?;
    let sleep = message("Q SELECT pg_sleep(0.3)")?;
    talk.send(&sleep, Cut::Whole).await;
    cancel(pair.daemon.port(), &talk.key.clone()).await?;
    talk.read_until(b"Z", &mut Vec::new()).await?;
    let run = pair
        .ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    let evidence = run["certificate"]["evidence"]["detail"].as_str();
    ensure!(
        evidence.is_some_and(|said| said.contains("0 foreign sessions were ended")),
        "{evidence:?}"
    );
    Ok(())
}
