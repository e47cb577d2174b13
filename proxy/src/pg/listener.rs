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
use super::startup::{Hello, HelloError, Startup, hello};
use super::{console, refuse, replication};
use crate::group::Group;
use crate::sessions::{Key, Who};
use crate::upstream::wire::set_times;

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
    let settings = group.settings.load_full();
    // A socket that takes no options is broken, which the first read tells.
    let _ = set_times(&stream, &settings.tcp);
    let within = settings.startup_timeout;
    drop(settings);
    match Box::pin(hello(&mut stream, within)).await {
        Ok(Hello::Session(startup)) => session(group, stream, client, startup).await,
        Ok(Hello::Cancel { id, secret }) => {
            // PostgreSQL closes a cancel connection without an answer, whatever the key.
            group.sessions.cancel(id, &secret);
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
    if let Some(told) = startup.negotiation()
        && stream.write_all(&told).await.is_err()
    {
        return;
    }
    let who = who(&startup, client);
    let settings = group.settings.load_full();
    if console::is_meant(&settings.console, &who.database) {
        let minor = startup.spoken();
        return Box::pin(console::serve(group, stream, who, minor)).await;
    }
    if let Some(kind) = replication::kind(&startup) {
        return Box::pin(replication::serve(group, stream, who, kind, startup)).await;
    }
    let key = Key::new(startup.spoken());
    match group.sessions.enter(who.clone(), key, settings.sessions) {
        Ok(handle) => {
            // Boxed one by one: a session in rest keeps none of what its beginning needed.
            if let Some(session) = Box::pin(begin(group, stream, handle, startup)).await {
                Box::pin(session.run()).await;
            }
        }
        Err(full) => {
            let totals = &group.sessions.totals;
            totals.refused.fetch_add(1, Ordering::Relaxed);
            say(&mut stream, &refuse::full(full, &who)).await;
        }
    }
}

fn who(startup: &Startup, client: SocketAddr) -> Who {
    let text = |name| startup.param(name).unwrap_or_default().to_owned();
    let user = text("user");
    Who {
        database: Some(text("database"))
            .filter(|database| !database.is_empty())
            .unwrap_or_else(|| user.clone()),
        user,
        application_name: text("application_name"),
        client,
    }
}

/// Tells a client why it is not served, and gives it a moment to read it.
pub(super) async fn say(stream: &mut TcpStream, report: &Report) {
    let mut out = Vec::new();
    report.error(&mut out);
    let sent = async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), sent).await;
}
