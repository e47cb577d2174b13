//! One request over plain HTTP/1.1, on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{ANSWER, OutsideError};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Get,
    Post,
}

/// Sends a request, with JSON as its body, and answers with the body of a 2xx answer.
///
/// # Errors
/// No answer in time, or one that is none of success.
pub(crate) async fn request(
    method: Method,
    url: &str,
    body: String,
    within: Duration,
) -> Result<String, OutsideError> {
    let late = |_| OutsideError::Late {
        what: url.to_owned(),
        after: within,
    };
    timeout(within, exchange(method, url, body))
        .await
        .unwrap_or_else(|elapsed| Err(late(elapsed)))
}

async fn exchange(method: Method, url: &str, body: String) -> Result<String, OutsideError> {
    let bad = || OutsideError::Address {
        url: url.to_owned(),
    };
    let silent = |why: String| OutsideError::Silent {
        url: url.to_owned(),
        why,
    };
    let uri: Uri = url.parse().map_err(|_| bad())?;
    if uri.scheme_str() != Some("http") {
        return Err(bad());
    }
    let authority = uri.authority().ok_or_else(bad)?;
    let host = authority.host().trim_matches(['[', ']']);
    let port = authority.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port)).await;
    let stream = stream.map_err(|e| silent(e.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| silent(e.to_string()))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder()
        .method(match method {
            Method::Get => hyper::Method::GET,
            Method::Post => hyper::Method::POST,
        })
        .uri(path)
        .header(HOST, authority.as_str())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| bad())?;
    let answer = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|e| silent(e.to_string()))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await;
        let body = body.map_err(|e| silent(e.to_string()))?.to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            return Ok(body);
        }
        Err(OutsideError::Status {
            url: url.to_owned(),
            status: status.as_u16(),
            body,
        })
    };
    // The connection has no task of its own: it lives as long as its one exchange. Its end may come
    // first, when the server closes with its answer; the answer is then still to be read.
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answered = &mut answer => answered,
        _ = &mut connection => answer.await,
    }
}
