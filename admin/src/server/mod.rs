//! The admin socket's server: bytes in, one call of [`Control`], one JSON document out.
//!
//! It has limits and no logic. Every connection, request and answer is bounded in number, size
//! and time; errors are always documents; a panic in a call ends that call only. A call that
//! changes something runs to its end even if its caller hangs up, since an operator's Ctrl-C must
//! not leave half a fence; a call that only looks ends with its caller.

mod accept;
mod acts;
mod answer;
mod bind;
mod body;
mod calls;
mod routes;

use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::watch;

pub use bind::{BindError, bind};

use crate::Control;

/// Serves `control` on `listener` until `shutdown` resolves; then no connection is accepted,
/// waiting looks are answered `stopping`, and calls in hand get a few seconds to end.
pub async fn serve<C: Control>(
    listener: UnixListener,
    control: Arc<C>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (stop, stopping) = watch::channel(false);
    let calls = Arc::new(calls::Calls::new(stopping));
    let router = routes::router(control, Arc::clone(&calls));
    accept::run(listener, router, shutdown, stop).await;
    calls.finish().await;
}
