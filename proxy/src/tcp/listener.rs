//! Accepts connections up to the limit and has each served by a task of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::Front;
use super::admit::{Admitted, admit};
use super::figures::Fate;
use super::relay::Relay;
use crate::requests::RequestState;
use crate::shutdown::{Shutdown, Tasks};

/// After an error of accept (out of file descriptors, mostly) the loop waits this long, so that it
/// neither spins nor gives up.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves a listener until it is taken away or the daemon stops. Connections are tasks of `tasks`.
pub async fn serve(
    front: Front,
    listener: TcpListener,
    tasks: Tasks,
    mut removed: Shutdown,
    mut stop: Shutdown,
) {
    let front = Arc::new(front);
    let room = Arc::new(Semaphore::new(front.connections));
    loop {
        // Every arm may be dropped at any point: accept and the words are cancel safe.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = removed.stopping() => return,
            () = stop.stopping() => return,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            front.group.tcp.count(Fate::TurnedAway);
            tracing::debug!(%client, limit = front.connections, "a connection too many");
            continue;
        };
        let (front, stop) = (Arc::clone(&front), stop.clone());
        tasks.spawn(async move {
            connection(&front, stream, client, stop).await;
            drop(place);
        });
    }
}

async fn connection(front: &Front, client: TcpStream, from: SocketAddr, mut stop: Shutdown) {
    // Without it small answers would wait for delayed acknowledgements.
    let _ = client.set_nodelay(true);
    let entry = front.group.connections.enter(
        &from.to_string(),
        front.service.clone(),
        from,
        RequestState::Held,
    );
    let permit = match admit(front, &client, &mut stop).await {
        Admitted::Permit(permit) => permit,
        Admitted::Not(fate, why) => {
            front.group.tcp.count(fate);
            tracing::debug!(client = %from, service = %front.service, why, "not connected");
            return;
        }
    };
    entry.set_state(RequestState::Executing);
    // Read under the permit: while it lives the target does not change.
    let region = front.group.targets.accepted().region.to_string();
    entry.set_region(&region);
    let server = match connect(front, &region).await {
        Ok(server) => server,
        Err(error) => {
            front.group.tcp.count(Fate::Unreachable);
            // Nothing was sent, so the permit ends and the client may try again.
            tracing::info!(client = %from, service = %front.service, region, error, "not reached");
            return;
        }
    };
    front.group.tcp.count(Fate::Relayed);
    Relay::new(front, permit, &entry, region)
        .run(client, server, stop)
        .await;
}

async fn connect(front: &Front, region: &str) -> Result<TcpStream, String> {
    let server = front
        .server(region)
        .ok_or("the region has no such server")?;
    let connect = TcpStream::connect((server.host.as_str(), server.port));
    let connected = tokio::time::timeout(front.connect_timeout, connect).await;
    let stream = connected
        .map_err(|_| format!("no answer within {:?}", front.connect_timeout))?
        .map_err(|error| error.to_string())?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
