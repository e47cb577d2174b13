//! Accepts connections of the PostgreSQL front and starts a session for each.
//!
//! A connection that breaks the protocol ends with a protocol error and nothing else notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::begin::begin;
use super::message::Report;
use super::refuse;
use super::startup::{Hello, HelloError, Startup, hello};
use crate::group::Group;

/// After an error of accept (out of file descriptors, mostly) the loop waits this long, so that it
/// neither spins nor gives up.
const PAUSE: Duration = Duration::from_millis(50);

/// How long sessions get to come to rest when the daemon stops.
const REST: Duration = Duration::from_secs(5);

/// Serves a listener until `shutdown` turns true, then lets its sessions come to rest.
pub async fn serve(group: Arc<Group>, listener: TcpListener, mut shutdown: watch::Receiver<bool>) {
    loop {
        // Both arms may be dropped at any point: accept and wait_for are cancel safe.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, client)) => {
                tokio::spawn(connection(Arc::clone(&group), stream, client));
            }
            Err(e) => {
                tracing::warn!(error = %e, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    group.sessions.end_all();
    let until = Instant::now() + REST;
    while !group.sessions.is_empty() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn connection(group: Arc<Group>, mut stream: TcpStream, client: SocketAddr) {
    // Without it small answers would wait for the client's delayed acknowledgements.
    let _ = stream.set_nodelay(true);
    match hello(&mut stream, group.settings.startup_timeout).await {
        Ok(Hello::Session(startup)) => session(group, stream, client, startup).await,
        Ok(Hello::Cancel { id, secret }) => {
            // PostgreSQL closes a cancel connection without an answer, whatever the key.
            if let Some(session) = group.sessions.by_key(id, secret) {
                session.ask_cancel();
            }
        }
        Ok(Hello::Nothing) | Err(HelloError::Io(_)) => {}
        Err(e) => {
            group
                .sessions
                .totals
                .offences
                .fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%client, error = %e, "a connection was refused");
            say(&mut stream, &refuse::offence(&e.to_string())).await;
        }
    }
}

async fn session(group: Arc<Group>, mut stream: TcpStream, client: SocketAddr, startup: Startup) {
    if group.sessions.len() >= group.settings.sessions {
        group
            .sessions
            .totals
            .refused
            .fetch_add(1, Ordering::Relaxed);
        let message = format!(
            "sorry, too many clients already: limits.sessions is {}",
            group.settings.sessions
        );
        say(&mut stream, &refuse::refused("53300", message, None)).await;
        return;
    }
    if startup
        .param("replication")
        .is_some_and(|v| !matches!(v, "false" | "off" | "no" | "0"))
    {
        let message = "replication connections are not in this version of writefence".to_owned();
        let hint = Some("Connect the standby or the subscriber to its server directly.".to_owned());
        say(&mut stream, &refuse::refused("0A000", message, hint)).await;
        return;
    }
    if let Some(session) = begin(group, stream, client, startup).await {
        Box::pin(session.run()).await;
    }
}

/// Tells a client why it is not served, and gives it a moment to read it.
async fn say(stream: &mut TcpStream, report: &Report) {
    let mut out = Vec::new();
    report.error(&mut out);
    let sent = async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), sent).await;
}
