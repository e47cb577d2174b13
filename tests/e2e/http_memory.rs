//! What a connection in rest costs.

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use writefence_tests::http::Raw;

use crate::http_support::Api;

/// Connections, fewer where the system does not allow as many descriptors.
const MANY: u64 = 5_000;

/// Bytes of each; what is measured is about a third of it.
const MOST: u64 = 16 << 10;

#[tokio::test]
async fn thousands_of_connections_in_rest_take_little_memory() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    let many = limit
        .maximum
        .map_or(MANY, |most| MANY.min(most.saturating_sub(500)));
    let api = Api::start(|options| {
        let http = options.front.as_mut().expect("there is a listener");
        http.keys = "connections = 6000".to_owned();
    })
    .await?;
    // The first request makes what all share.
    api.send("GET", "/x", "").await?;
    let before = api.daemon.memory()?;
    let mut clients = Vec::new();
    for n in 0..many {
        let mut client = Raw::connect(api.port())
            .await
            .with_context(|| n.to_string())?;
        client
            .send("GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n")
            .await?;
        assert_eq!(client.reply().await?.status, 200);
        clients.push(client);
    }
    let each = api.daemon.memory()?.saturating_sub(before) / many;
    // Shown by a run with `--nocapture`.
    println!("{each} bytes for each of {many} connections in rest");
    ensure!(each < MOST, "{each} bytes for each of {many} connections");
    for client in &mut clients {
        client
            .send("GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n")
            .await?;
    }
    Ok(())
}
