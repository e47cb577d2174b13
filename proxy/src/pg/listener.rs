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

use super::auth::{Admitted, Denied, Peer, admit};
use super::begin::{begin, negotiation};
use super::door::Door;
use super::message::Report;
use super::negotiate::{Line, hello};
use super::refuse;
use super::startup::{Hello, HelloError, Startup};
use crate::group::Group;
use crate::tls::Stream;

/// After an error of accept (out of file descriptors, mostly) the loop waits this long, so that it
/// neither spins nor gives up.
const PAUSE: Duration = Duration::from_millis(50);

/// How long sessions get to come to rest when the daemon stops.
const REST: Duration = Duration::from_secs(5);

/// Serves a listener until `shutdown` turns true, then lets its sessions come to rest.
pub async fn serve(
    group: Arc<Group>,
    door: Arc<Door>,
    listener: TcpListener,
    mut shutdown: watch::Receiver<bool>,
) {
    loop {
        // Both arms may be dropped at any point: accept and wait_for are cancel safe.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, client)) => {
                tokio::spawn(connection(
                    Arc::clone(&group),
                    Arc::clone(&door),
                    stream,
                    client,
                ));
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

async fn connection(group: Arc<Group>, door: Arc<Door>, stream: TcpStream, client: SocketAddr) {
    // Without it small answers would wait for the client's delayed acknowledgements.
    let _ = stream.set_nodelay(true);
    let mut line = Line {
        stream: Some(Stream::Plain(stream)),
        end_point: None,
    };
    match hello(&mut line, &door, group.settings.startup_timeout).await {
        Ok(Hello::Session(startup)) => session(group, door, line, client, startup).await,
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
            match &e {
                // The peer is told by an alert at most, so this is where its reason can be read.
                HelloError::Handshake(_) => {
                    tracing::info!(%client, error = %e, "a connection was refused");
                }
                _ => tracing::debug!(%client, error = %e, "a connection was refused"),
            }
            if let Some(stream) = &mut line.stream {
                say(stream, &refuse::hello(&e)).await;
            }
        }
    }
}

async fn session(
    group: Arc<Group>,
    door: Arc<Door>,
    line: Line,
    client: SocketAddr,
    startup: Startup,
) {
    let Line {
        stream: Some(mut stream),
        end_point,
    } = line
    else {
        return;
    };
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
    let Some(admitted) = admitted(&group, &door, &mut stream, end_point, client, &startup).await
    else {
        return;
    };
    if let Some(session) = begin(group, stream, client, startup, admitted).await {
        Box::pin(session.run()).await;
    }
}

/// Finds out who it is; `None` when it was refused.
async fn admitted(
    group: &Group,
    door: &Door,
    stream: &mut Stream,
    end_point: Option<Arc<[u8]>>,
    client: SocketAddr,
    startup: &Startup,
) -> Option<Admitted> {
    let certificate = stream.peer_certificate().cloned();
    let peer = Peer {
        address: client,
        end_point: end_point.as_deref(),
        certificate: certificate.as_deref(),
    };
    let within = group.settings.startup_timeout;
    let found = async {
        negotiated(stream, startup).await?;
        admit(door, &group.targets, stream, peer, startup).await
    };
    let denied = match tokio::time::timeout(within, found).await {
        Ok(Ok(admitted)) => return Some(admitted),
        Ok(Err(denied)) => denied,
        Err(_) => Denied::Slow(within),
    };
    let user = startup.param("user").unwrap_or_default();
    let totals = &group.sessions.totals;
    match &denied {
        Denied::Gone(_) => {}
        // A flood of these is what the throttle is there for; the log is not to be flooded as well.
        Denied::Throttled { .. } => {
            totals.logins_throttled.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%client, user, error = %denied, "a login was refused");
        }
        _ => {
            totals.logins_denied.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%client, user, error = %denied, "a login was refused");
        }
    }
    if let Some(report) = denied.report() {
        say(stream, &report).await;
    }
    None
}

/// Tells a client what of its startup packet is not spoken; it expects that before anything else.
async fn negotiated(stream: &mut Stream, startup: &Startup) -> std::io::Result<()> {
    let mut out = Vec::new();
    negotiation(&mut out, startup);
    if out.is_empty() {
        return Ok(());
    }
    stream.write_all(&out).await?;
    stream.flush().await
}

/// Tells a client why it is not served, and gives it a moment to read it.
async fn say(stream: &mut Stream, report: &Report) {
    let mut out = Vec::new();
    report.error(&mut out);
    let sent = async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), sent).await;
}
