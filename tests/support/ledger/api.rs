//! Sessions of the shapes that speak HTTP: a client of the API behind the HTTP front.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::op::{Failure, Sent};
use super::session::Who;
use super::shape::Shape;

/// Longer than any fence of a test holds; a client without an answer by then has none.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection, kept alive.
#[derive(Debug)]
pub(super) struct Api {
    sender: SendRequest<Empty<Bytes>>,
}

impl Api {
    pub(super) async fn connect(port: u16) -> Result<Self, Failure> {
        let never = || Failure::lost(None, Sent::No);
        let stream = TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(|_| never())?;
        let _ = stream.set_nodelay(true);
        let shaken = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(|_| never())?;
        tokio::spawn(connection);
        Ok(Self { sender })
    }

    /// One request.
    pub(super) async fn run(&mut self, who: &Who, seq: i32) -> Result<(), Failure> {
        if self.sender.ready().await.is_err() {
            return Err(Failure::lost(None, Sent::No));
        }
        let (run, code, client) = (who.run, who.shape.code(), who.client);
        let (method, path) = match who.shape {
            Shape::ApiRead => (Method::GET, format!("/orders/{seq}")),
            Shape::ApiSteps => (Method::POST, format!("/steps/{run}/{code}/{client}/{seq}")),
            _ => (Method::POST, format!("/orders/{run}/{code}/{client}/{seq}")),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "api.test")
            .header("idempotency-key", format!("{run}-{code}-{client}-{seq}"))
            .body(Empty::new());
        let Ok(request) = request else {
            return Err(Failure::lost(None, Sent::No));
        };
        let asked = timeout(PATIENCE, async {
            let answer = self.sender.send_request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, body))
        });
        match asked.await {
            Ok(Ok((status, _))) if status.is_success() => Ok(()),
            Ok(Ok((status, body))) => Err(refused(status.as_u16(), &body)),
            Ok(Err(_)) | Err(_) => Err(Failure::lost(None, Sent::Maybe)),
        }
    }
}

/// A fence says in so many words that nothing was executed; of anything else a careful client
/// concludes nothing.
fn refused(status: u16, body: &[u8]) -> Failure {
    let text: String = String::from_utf8_lossy(body)
        .chars()
        .filter(|c| !c.is_whitespace())
        .collect();
    let not_executed = status == 503 && text.contains("\"executed\":false");
    Failure {
        sqlstate: Some(status.to_string()),
        lost: false,
        sent: if not_executed { Sent::No } else { Sent::Maybe },
        not_executed,
    }
}
