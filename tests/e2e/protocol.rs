//! Protocol 3.2 and what asks for more than there is; a session's two sides may speak different ones.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use writefence_tests::Cluster;
use writefence_tests::eventually::until;
use writefence_tests::postgres::skipped;
use writefence_tests::script::{Cut, Talk, message};

use crate::support::Pair;

/// A startup packet of this minor version, with these parameters besides user and database.
fn packet(minor: u16, more: &[&str]) -> Result<Vec<u8>> {
    let mut body = vec![0, 3];
    body.extend(minor.to_be_bytes());
    for word in ["user", "postgres", "database", "postgres"]
        .iter()
        .chain(more)
    {
        body.extend(word.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut packet = u32::try_from(body.len() + 4)?.to_be_bytes().to_vec();
    packet.extend(body);
    Ok(packet)
}

/// Waits until the statement sleeps: a cancel that comes before it is for nothing.
async fn sleeps(at: &Cluster) -> Result<()> {
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' \
                  AND state = 'active' AND pid <> pg_backend_pid()";
    until("it sleeps", Duration::from_secs(20), async || {
        Ok(at.value(sleeps).await? == "1")
    })
    .await
}

async fn cancel(port: u16, key: &(i32, Vec<u8>)) -> Result<()> {
    let mut request = 80_877_102u32.to_be_bytes().to_vec();
    request.extend(key.0.to_be_bytes());
    request.extend(&key.1);
    let length = u32::try_from(request.len() + 4)?.to_be_bytes();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(&[&length[..], &request].concat()).await?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await?;
    ensure!(rest.is_empty(), "a cancel connection was answered");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn protocol_3_2_has_long_cancel_keys_and_a_newer_one_is_negotiated_down_to_it() -> Result<()>
{
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let port = pair.daemon.port();
    let grease = "_pq_.test_protocol_negotiation";
    for (minor, more, negotiated, key) in [
        (0, vec![], None, 4),
        (
            0,
            vec![grease, ""],
            Some("v \\x00\\x03\\x00\\x00\\x00\\x00\\x00\\x01_pq_"),
            4,
        ),
        (2, vec![], None, 32),
        (
            9999,
            vec![grease, ""],
            Some("v \\x00\\x03\\x00\\x02\\x00\\x00\\x00\\x01_pq_"),
            32,
        ),
    ] {
        let talk = Talk::start(port, &packet(minor, &more)?).await?;
        let first = talk.greeting.first().context("a greeting")?;
        match negotiated {
            Some(told) => ensure!(first.starts_with(told), "{minor}: {first}"),
            None => ensure!(first.starts_with('R'), "{minor}: {first}"),
        }
        ensure!(
            talk.key.1.len() == key,
            "{minor}: {} bytes",
            talk.key.1.len()
        );
    }
    // The long key cancels, a part of it does not.
    let mut talk = Talk::start(port, &packet(2, &[])?).await?;
    let key = talk.key.clone();
    talk.send(&message("Q SELECT pg_sleep(120)")?, Cut::Whole)
        .await;
    sleeps(&pair.a).await?;
    let short = (key.0, key.1.get(..4).context("a key")?.to_vec());
    cancel(port, &short).await?;
    let mut told = Vec::new();
    ensure!(
        tokio::time::timeout(Duration::from_millis(200), talk.read_until(b"E", &mut told))
            .await
            .is_err(),
        "a part of the key cancelled: {told:?}"
    );
    cancel(port, &key).await?;
    talk.read_until(b"Z", &mut told).await?;
    ensure!(told.iter().any(|line| line.contains("C57014")), "{told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_protocol_3_2_moves_whatever_its_servers_speak() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut talk = Talk::start(pair.daemon.port(), &packet(2, &[])?).await?;
    let key = talk.key.clone();
    talk.query("SET application_name = 'moves'").await?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "test"])
        .await?;
    let told = talk.query("INSERT INTO t VALUES (1)").await?;
    ensure!(
        told.iter().any(|line| line.starts_with("C INSERT")),
        "{told:?}"
    );
    talk.send(&message("Q SELECT pg_sleep(120)")?, Cut::Whole)
        .await;
    sleeps(&pair.b).await?;
    cancel(pair.daemon.port(), &key).await?;
    let mut told = Vec::new();
    talk.read_until(b"Z", &mut told).await?;
    ensure!(told.iter().any(|line| line.contains("C57014")), "{told:?}");
    Ok(())
}
