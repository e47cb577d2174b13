//! Garbage on any port ends that connection with a protocol error, and nothing else notices.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use writefence_tests::postgres::skipped;

use crate::support::{Pair, startup};

const SOON: Duration = Duration::from_secs(30);

/// All that is heard until the connection is closed.
pub(crate) async fn answer(port: u16, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(bytes).await?;
    let mut got = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut got)).await;
    // A reset after the answer is an end too.
    let _ = read.context("the connection was not ended")?;
    Ok(got)
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let bystander = pair.client().await?;
    let port = pair.daemon.port();
    let offences: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\0\0\0\x08\0\x02\0\0",
        b"\0\0\0\x09\0\x03\0\0\0",
        b"\0\0\0\x08\x04\xd2\x16\x2f\0\0\0\x08\x04\xd2\x16\x2f",
        b"\0\0\0\x00",
    ];
    for offence in offences {
        let got = answer(port, offence).await?;
        let said = String::from_utf8_lossy(&got);
        ensure!(said.contains("08P01"), "{offence:?}: {said}");
    }
    let after_login: [&[u8]; 4] = [
        b"\0\0\0\0\0",
        b"Q\0\0\0\x01",
        b"Z\0\0\0\x05I",
        b"Q\xff\xff\xff\xff",
    ];
    for offence in after_login {
        let got = answer(port, &[&startup(), offence].concat()).await?;
        ensure!(
            String::from_utf8_lossy(&got).contains("08P01"),
            "{offence:?}"
        );
    }
    // A cancel with a key of nobody's, and garbage on the admin socket.
    answer(port, b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02").await?;
    let mut admin = UnixStream::connect(pair.daemon.socket()).await?;
    admin.write_all(b"\0\x01\x02 nonsense\r\n\r\n").await?;
    bystander.batch_execute("INSERT INTO t VALUES (1)").await?;
    ensure!(pair.group().await?["in_flight"]["executing"].as_u64() == Some(0));
    Ok(())
}
