//! Accepting connections, bounded, and closing them in order.
//!
//! axum's own loop has no limit on connections and no timer for headers, so this is hyper's
//! HTTP/1 server with axum's router as the service.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::Actor;

/// Connections at a time. Each holds a few kilobytes; more than a handful is a script gone wild,
/// and the rest waits in the kernel's backlog.
const CONNECTIONS: usize = 128;
/// From the connection, or the previous answer, to a request's headers. Shorter would cut a slow
/// `socat`; longer lets silent connections use up the limit above.
const HEADERS_WITHIN: Duration = Duration::from_secs(5);
/// For connections to end at shutdown; a looking call has been answered by then.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// After a failed accept (no file descriptors left): not a busy loop, and soon enough.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Accepts until `shutdown`, then says so through `stop` and waits for the connections.
pub(super) async fn run(
    listener: UnixListener,
    router: Router,
    shutdown: impl Future<Output = ()>,
    stop: watch::Sender<bool>,
) {
    let limit = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // Every arm may be dropped: accepting and acquiring take nothing unless they complete,
        // a finished connection stays in the set, and shutdown is polled again.
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = next(&listener, &limit) => accepted,
        };
        if let Some((stream, slot)) = accepted {
            let (router, stopping) = (router.clone(), stop.subscribe());
            connections.spawn(async move {
                connection(stream, router, stopping).await;
                drop(slot);
            });
        }
    }
    drop(listener);
    stop.send_replace(true);
    // What is left after that is a peer that does not read; dropping the set closes it.
    let all_closed = async { while connections.join_next().await.is_some() {} };
    let _ = timeout(CLOSE_WITHIN, all_closed).await;
}

async fn next(
    listener: &UnixListener,
    limit: &Arc<Semaphore>,
) -> Option<(UnixStream, tokio::sync::OwnedSemaphorePermit)> {
    let slot = Arc::clone(limit).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(_) => {
            sleep(ACCEPT_AGAIN).await;
            None
        }
    }
}

/// Serves one peer. Without credentials there is no call: the audit could not say who it was.
async fn connection(stream: UnixStream, router: Router, mut stopping: watch::Receiver<bool>) {
    let Ok(peer) = stream.peer_cred() else { return };
    let actor = Actor {
        uid: peer.uid(),
        gid: peer.gid(),
        pid: peer.pid(),
    };
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(actor);
        inner.call(request)
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    // The connection's future is pinned outside and goes on being polled; `wait_for` takes nothing.
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = stopping.wait_for(|stop| *stop) => serving.as_mut().graceful_shutdown(),
    }
    // An error here is the peer's: it hung up or spoke no HTTP. Nobody is left to be told.
    let _ = serving.await;
}
