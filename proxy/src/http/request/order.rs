//! The request as it goes out, and the two ways between its client and its exchange.

use std::sync::Arc;

use http::{Request, Uri, Version};
use tokio::sync::mpsc;

use super::Serving;
use crate::http::body::{PIECES, Piece, UpBody};
use crate::http::exchange::{EVENTS, Event, Order};
use crate::http::headers::{self, From};
use crate::http::pool::{Aim, Need};
use crate::http::server::Gone;
use crate::http::tunnel::Closing;

/// Between a client's side and an exchange.
pub(super) struct Wires {
    pub(super) to_server: Option<mpsc::Sender<Piece>>,
    pub(super) from_server: mpsc::Receiver<Event>,
}

impl Serving<'_> {
    /// The request as it goes out.
    pub(super) fn order(
        &mut self,
        target: &Uri,
        aim: Aim,
        closing: Closing,
        upgrade: bool,
    ) -> Result<(Order, Wires), Gone> {
        let (events, from_server) = mpsc::channel(EVENTS);
        let (to_server, mut rest) = match self.down.body_done() && !upgrade {
            true => (None, None),
            false => {
                let (to, from) = mpsc::channel(PIECES);
                (Some(to), Some(from))
            }
        };
        let upgrade = match upgrade {
            true => rest.take().map(|rest| (closing, rest)),
            false => None,
        };
        let grpc = self.tongue.is_grpc();
        let trailers = self.take_trailers();
        let body = UpBody::new(self.take_ahead(), rest).with_trailers(trailers);
        let mut request = Request::new(body);
        let head = self.down.head();
        head.method.clone_into(request.method_mut());
        head.headers.clone_into(request.headers_mut());
        let scheme = aim.origin.scheme();
        *request.uri_mut() = outgoing(target, scheme, &self.host).ok_or(Gone)?;
        *request.version_mut() = Version::HTTP_11;
        let epoch = format!("{}:{}", self.front.group.name, aim.epoch);
        let from = From {
            peer: self.peer.client,
            trusted: self.is_trusted(),
            tls: self.peer.tls,
            host: &self.host,
        };
        headers::to_upstream(request.headers_mut(), &epoch, &self.id, from);
        if upgrade.is_some() {
            headers::upgrade(request.headers_mut());
        }
        let need = match (&upgrade, grpc) {
            (Some(_), _) => Need::Upgrade,
            (None, true) => Need::Grpc,
            (None, false) => Need::Any,
        };
        let order = Order {
            group: Arc::clone(&self.front.group),
            pool: Arc::clone(&self.front.pool),
            aim,
            elsewhere: None,
            events_end: false,
            request,
            need,
            read_timeout: self.front.listener.read_timeout,
            upgrade,
            events,
        };
        Ok((
            order,
            Wires {
                to_server,
                from_server,
            },
        ))
    }

    fn is_trusted(&self) -> bool {
        let proxies = &self.front.listener.trusted_proxies;
        let peer = self.peer.client.ip();
        proxies.iter().any(|network| network.contains(peer))
    }
}

/// With the authority that the client named. HTTP/1 connections send the path alone.
fn outgoing(target: &Uri, scheme: &str, host: &str) -> Option<Uri> {
    let path = target.path_and_query()?.clone();
    let whole = Uri::builder().scheme(scheme).authority(host);
    let whole = whole.path_and_query(path.clone()).build();
    whole
        .ok()
        .or_else(|| Uri::builder().path_and_query(path).build().ok())
}
