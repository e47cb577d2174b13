//! Smoke test of the clusters themselves, on real PostgreSQL.

use std::time::Duration;

use anyhow::Result;

use super::{Cluster, Options, skipped};

async fn insert(cluster: &Cluster, n: i32) -> Result<()> {
    cluster
        .query(&format!("INSERT INTO t VALUES ({n})"))
        .await
        .map(|_| ())
}

async fn all(cluster: &Cluster) -> Result<String> {
    cluster
        .value("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t")
        .await
}

#[tokio::test]
async fn a_pair_moves_there_and_back_and_a_killed_primary_rejoins() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut a = Cluster::create("a", &Options::default()).await?;
    a.query("CREATE TABLE t (n int)").await?;
    insert(&a, 1).await?;
    let mut b = a.standby("b").await?;
    b.wait_caught_up(&a).await?;
    assert!(b.in_recovery().await?);
    assert!(insert(&b, 0).await.is_err(), "a standby takes no writes");

    b.promote().await?;
    insert(&b, 2).await?;
    insert(&a, 99).await?; // after the fork: must be gone after the rewind
    a.rejoin(&b).await?;
    a.wait_caught_up(&b).await?;
    assert_eq!(all(&a).await?, "1 2");

    b.synchronous(true).await?;
    insert(&b, 3).await?;
    b.kill()?;
    assert!(b.query("SELECT 1").await.is_err());
    a.promote().await?;
    assert_eq!(all(&a).await?, "1 2 3");
    b.rejoin(&a).await?;
    insert(&a, 4).await?;
    b.wait_caught_up(&a).await?;
    assert_eq!(all(&b).await?, "1 2 3 4");
    Ok(())
}

#[tokio::test]
async fn a_promotion_right_after_the_stream_broke_does_not_sleep() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut a = Cluster::create("a", &Options::default()).await?;
    let b = a.standby("b").await?;
    a.kill()?;
    let took = b.promote().await?;
    assert!(took < Duration::from_secs(4), "{took:?}");
    Ok(())
}

#[tokio::test]
async fn dropping_a_cluster_leaves_no_process_and_no_folder() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let a = Cluster::create("a", &Options::default()).await?;
    let (folder, port) = (a.folder.path().to_owned(), a.port());
    drop(a);
    assert!(!folder.exists());
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    Ok(())
}
