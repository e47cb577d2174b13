//! A request's body on its way to the server behind.
//!
//! What was read before the request was admitted comes first, the rest piece by piece as the client
//! sends it. A client that leaves before the end makes an error of it: the server must never take
//! half a body for a whole one.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// Pieces on their way between the client's side and the exchange. A piece is what one read gave,
/// so that is a few dozen KiB.
pub(super) const PIECES: usize = 4;

/// From the client.
#[derive(Debug)]
pub(super) enum Piece {
    Data(Bytes),
    /// All has come, with what stood behind it.
    End(Option<HeaderMap>),
}

/// The client left in the middle.
#[derive(Debug, thiserror::Error)]
#[error("the client left before its request was complete")]
pub(super) struct Cut;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct UpBody {
    first: VecDeque<Bytes>,
    rest: Option<mpsc::Receiver<Piece>>,
    trailers: Option<HeaderMap>,
}

impl UpBody {
    /// A body of which `first` is there already; the rest, if there is one, comes through `rest`.
    pub(super) fn new(first: VecDeque<Bytes>, rest: Option<mpsc::Receiver<Piece>>) -> Self {
        Self {
            first,
            rest,
            trailers: None,
        }
    }

    /// With what stands behind a body that is there already.
    pub(super) fn with_trailers(mut self, trailers: Option<HeaderMap>) -> Self {
        self.trailers = trailers;
        self
    }

    /// The same once more, if nothing of it is to come any more. Its bytes are shared.
    pub(super) fn copy(&self) -> Option<Self> {
        let copy = || Self {
            first: self.first.clone(),
            rest: None,
            trailers: self.trailers.clone(),
        };
        self.rest.is_none().then(copy)
    }
}

impl Body for UpBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(data) = self.first.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(rest) = &mut self.rest {
            match std::task::ready!(rest.poll_recv(cx)) {
                Some(Piece::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Piece::End(trailers)) => (self.rest, self.trailers) = (None, trailers),
                None => return Poll::Ready(Some(Err(Cut))),
            }
        }
        Poll::Ready(self.trailers.take().map(|them| Ok(Frame::trailers(them))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.rest, &self.trailers) {
            (None, None) => {
                SizeHint::with_exact(self.first.iter().map(|part| part.len() as u64).sum())
            }
            // Trailers need chunks, and whoever is told a length sends none.
            _ => SizeHint::default(),
        }
    }
}

/// Why there is no more of an answer before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Connection(#[from] hyper::Error),
    #[error("its stream was reset before the end of its answer")]
    Reset,
}

/// An answer's body as it comes.
pub(super) struct DownBody {
    inner: hyper::body::Incoming,
    is_http2: bool,
}

impl DownBody {
    pub(super) fn new(version: Version, inner: hyper::body::Incoming) -> Self {
        Self {
            inner,
            is_http2: version == Version::HTTP_2,
        }
    }

    /// Nothing is to come any more.
    pub(super) fn is_over(&self) -> bool {
        self.inner.is_end_stream()
    }

    /// The next frame; `None` behind the last. Safe to drop.
    pub(super) async fn next(&mut self) -> Option<Result<Frame<Bytes>, Broken>> {
        match self.inner.frame().await {
            Some(frame) => Some(frame.map_err(Broken::from)),
            // hyper takes a reset with NO_ERROR for an end. It is none unless the end had come.
            None if self.is_http2 && !self.is_over() => Some(Err(Broken::Reset)),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_whose_client_left_is_an_error_and_not_an_end() {
        let (tx, rx) = mpsc::channel(PIECES);
        let mut body = UpBody::new(VecDeque::from([Bytes::from("a")]), Some(rx));
        tx.try_send(Piece::Data(Bytes::from("b"))).unwrap();
        drop(tx);
        assert!(body.copy().is_none());
        for part in ["a", "b"] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), part);
        }
        assert!(body.frame().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_whole_body_knows_its_length_and_ends() {
        let mut body = UpBody::new(VecDeque::from([Bytes::from("abc")]), None);
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(body.frame().await.unwrap().is_ok());
        assert!(body.frame().await.is_none());
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn trailers_come_behind_the_last_piece_however_it_came() {
        let trailers = || HeaderMap::from_iter([(http::header::ETAG, "a".parse().unwrap())]);
        let (tx, rx) = mpsc::channel(PIECES);
        tx.try_send(Piece::End(Some(trailers()))).unwrap();
        let streamed = UpBody::new(VecDeque::new(), Some(rx));
        let ahead = UpBody::new(VecDeque::new(), None).with_trailers(Some(trailers()));
        for mut body in [streamed, ahead] {
            assert!(!body.is_end_stream());
            assert_eq!(
                body.size_hint().exact(),
                None,
                "a length would leave no room for them"
            );
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_trailers().unwrap(), trailers());
            assert!(body.frame().await.is_none());
        }
    }
}
