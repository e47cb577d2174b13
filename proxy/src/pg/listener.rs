//! Accepts connections of the PostgreSQL front and starts a session for each.
//!
//! A connection that breaks the protocol ends with a protocol error and nothing else notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::auth::{Admitted, Denied, Peer, admit};
use super::begin::begin;
use super::door::Door;
use super::message::Report;
use super::negotiate::{Line, hello};
use super::session::Session;
use super::startup::{Hello, HelloError, Startup};
use super::{console, refuse, replication};
use crate::group::Group;
use crate::sessions::{Arriving, Full, Key, Who};
use crate::shutdown::Shutdown;
use crate::tls::Stream;
use crate::upstream::wire::set_times;

/// After an error of accept (out of file descriptors, mostly) the loop waits this long, so that it
/// neither spins nor gives up.
const PAUSE: Duration = Duration::from_millis(50);

/// How long sessions get to come to rest when the daemon stops.
const REST: Duration = Duration::from_secs(5);

/// Serves a listener until it is taken away or the daemon stops, then lets the group's sessions come to
/// rest. Those of a listener that was taken away go on until the daemon stops.
pub async fn serve(
    group: Arc<Group>,
    door: Arc<Door>,
    listener: TcpListener,
    mut removed: Shutdown,
    mut stop: Shutdown,
) {
    loop {
        // Every arm may be dropped at any point: accept and stopping are cancel safe.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = removed.stopping() => break,
            () = stop.stopping() => break,
        };
        match accepted {
            Ok((stream, client)) => {
                let sessions = &group.sessions;
                let Some(place) = sessions.arrives(group.settings.load().sessions.all) else {
                    // Without a word, for which another task would be needed.
                    sessions.totals.refused.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(%client, "too many connections are logging in");
                    continue;
                };
                let (group, door) = (Arc::clone(&group), Arc::clone(&door));
                tokio::spawn(connection(group, door, stream, client, place));
            }
            Err(e) => {
                tracing::warn!(error = %e, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    drop(door);
    stop.stopping().await;
    group.sessions.end_all();
    let until = Instant::now() + REST;
    while !group.sessions.is_empty() && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Serves a client from its first byte on. A session in rest keeps none of what its beginning needed,
/// so that is a future of its own.
async fn connection(
    group: Arc<Group>,
    door: Arc<Door>,
    stream: TcpStream,
    client: SocketAddr,
    place: Arriving,
) {
    let beginning = Box::pin(opened(group, door, stream, client));
    let session = beginning.await;
    drop(place);
    if let Some(session) = session {
        session.run().await;
    }
}

/// Finds out what a client wants, and makes a session if it is one; all else is served here.
async fn opened(
    group: Arc<Group>,
    door: Arc<Door>,
    stream: TcpStream,
    client: SocketAddr,
) -> Option<Box<Session>> {
    let settings = group.settings.load_full();
    // A socket that takes no options is broken, which the first read tells.
    let _ = set_times(&stream, &settings.tcp);
    let within = settings.startup_timeout;
    drop(settings);
    let mut line = Line {
        stream: Some(Stream::Plain(stream)),
        end_point: None,
    };
    match Box::pin(hello(&mut line, &door, within)).await {
        Ok(Hello::Session(startup)) => {
            return session(group, door, line, client, startup).await;
        }
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
    None
}

async fn session(
    group: Arc<Group>,
    door: Arc<Door>,
    line: Line,
    client: SocketAddr,
    startup: Startup,
) -> Option<Box<Session>> {
    let Line {
        stream: Some(mut stream),
        end_point,
    } = line
    else {
        return None;
    };
    let who = who(&startup, client);
    let console = console::is_meant(&group.settings.load().console, &who.database);
    // Counted before anybody is asked for a password, and a second time where it is added.
    let sessions = group.settings.load().sessions;
    if !console && group.sessions.len() + group.sessions.replicating() >= sessions.all {
        refuse_full(&group, &mut stream, Full::All(sessions.all), &who).await;
        return None;
    }
    let asking = admitted(&group, &door, &mut stream, end_point, client, &startup);
    let admitted = Box::pin(asking).await?;
    if console {
        let known = !admitted.passed_through;
        let serving = console::serve(group, stream, who, startup.spoken(), known);
        Box::pin(serving).await;
        return None;
    }
    if let Some(kind) = replication::kind(&startup) {
        let serving = replication::serve(group, stream, who, kind, startup, admitted);
        Box::pin(serving).await;
        return None;
    }
    let key = Key::new(startup.spoken());
    match group.sessions.enter(who.clone(), key, sessions) {
        Ok(handle) => {
            let beginning = begin(group, stream, handle, startup, admitted);
            Box::pin(beginning).await
        }
        Err(full) => {
            refuse_full(&group, &mut stream, full, &who).await;
            None
        }
    }
}

async fn refuse_full(group: &Group, stream: &mut Stream, full: Full, who: &Who) {
    let totals = &group.sessions.totals;
    totals.refused.fetch_add(1, Ordering::Relaxed);
    say(stream, &refuse::full(full, who)).await;
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
    let within = group.settings.load().startup_timeout;
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
    let Some(out) = startup.negotiation() else {
        return Ok(());
    };
    stream.write_all(&out).await?;
    stream.flush().await
}

/// Tells a client why it is not served, and gives it a moment to read it.
pub(super) async fn say(stream: &mut Stream, report: &Report) {
    let mut out = Vec::new();
    report.error(&mut out);
    let sent = async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), sent).await;
}
