//! Traps of the protocol that have no better place; tests/TRAPS.md has the list of all of them.

use std::time::Duration;

use anyhow::{Result, ensure};
use writefence_tests::eventually::until;
use writefence_tests::postgres::skipped;
use writefence_tests::script::{Cut, Talk, message};

use crate::support::{Pair, sqlstate, startup};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_transaction_was_lost_is_an_error_and_no_rollback_in_disguise() -> Result<()>
{
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let (commits, goes_on) = (pair.client().await?, pair.client().await?);
    for client in [&commits, &goes_on] {
        client.batch_execute("BEGIN").await?;
        client.batch_execute("INSERT INTO t VALUES (1)").await?;
    }
    pair.a.kill()?;
    // Lost while the clients ask for nothing, so nobody has told them.
    until("the daemon to see the loss", SOON, async || {
        Ok(pair.group().await?["in_flight"]["open_transactions"] == 0)
    })
    .await?;
    pair.a.start().await?;
    let error = commits
        .batch_execute("COMMIT")
        .await
        .expect_err("it was lost");
    ensure!(sqlstate(&error) == "08006", "{error}");
    let error = goes_on
        .batch_execute("SELECT 1")
        .await
        .expect_err("it was lost");
    ensure!(sqlstate(&error) == "25P02", "{error}");
    goes_on.batch_execute("ROLLBACK").await?;
    for client in [&commits, &goes_on] {
        until("writes to pass", SOON, async || {
            client.batch_execute("INSERT INTO t VALUES (2)").await?;
            Ok(true)
        })
        .await?;
    }
    ensure!(pair.a.value("SELECT count(*) FROM t WHERE a = 1").await? == "0");
    Ok(())
}

fn messages(text: &str) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for line in text.split(" | ") {
        all.extend(message(line)?);
    }
    Ok(all)
}

#[tokio::test]
async fn a_refusal_in_a_pipeline_is_one_error_up_to_its_sync() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.answer = "reject".into()).await?;
    let mut talk = Talk::start(pair.daemon.port(), &startup()).await?;
    pair.ctl(
        0,
        &["prepare", "--primary", "a", "--reason", "x", "--reject"],
    )
    .await?;
    let write = "P - INSERT INTO t VALUES (1) | B - - | E -";
    let read = "P - SELECT 1 | B - - | E -";
    for group in [
        format!("{write} | {read} | S"),
        format!("{read} | {write} | S"),
        format!("{write} | {write} | S"),
    ] {
        talk.send(&messages(&format!("{group} | Q SELECT 2"))?, Cut::Whole)
            .await;
        let mut told = Vec::new();
        talk.read_until(b"ZZ", &mut told).await?;
        let tags: String = told.iter().filter_map(|line| line.chars().next()).collect();
        let (refused, answered) = tags.split_at(tags.find('Z').unwrap_or_default());
        // What came before the write may be answered; behind the error there is nothing.
        ensure!(
            refused.matches('E').count() == 1 && refused.ends_with('E'),
            "{told:#?}"
        );
        ensure!(answered == "ZTDCZ", "{told:#?}");
        let status = told.iter().filter(|line| line.starts_with('Z'));
        ensure!(status.clone().all(|line| line == "Z I"), "{told:#?}");
        let error = told.iter().find(|line| line.starts_with('E'));
        ensure!(
            error.is_some_and(|line| line.contains("C25006")),
            "{told:#?}"
        );
    }
    pair.ctl(0, &["abort"]).await?;
    ensure!(
        pair.rows(&pair.a).await? == "0",
        "refused means not executed"
    );
    Ok(())
}

#[tokio::test]
async fn a_copy_that_crosses_the_fence_is_finished_and_waited_for() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.deadline = "20s".into()).await?;
    let mut talk = Talk::start(pair.daemon.port(), &startup()).await?;
    let mut told = Vec::new();
    talk.send(&message("Q COPY t FROM STDIN")?, Cut::Whole)
        .await;
    talk.read_until(b"G", &mut told).await?;
    talk.send(&message("d 1\\n")?, Cut::Whole).await;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "300ms"]).await?;
    talk.send(&messages("d 2\\n | c")?, Cut::Whole).await;
    talk.read_until(b"Z", &mut told).await?;
    ensure!(told.iter().any(|line| line == "C COPY 2\\x00"), "{told:#?}");
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    pair.ctl(0, &["abort"]).await?;
    ensure!(pair.rows(&pair.a).await? == "2");
    Ok(())
}
