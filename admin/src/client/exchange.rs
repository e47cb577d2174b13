//! One request and its answer over a connection of their own.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ClientError;
use crate::api::{Doc, ErrorDoc};

/// The largest answer, bytes: a list of 5000 sessions is about 2 MiB.
const ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Asks and reads the answer's document.
pub(super) async fn exchange<T: DeserializeOwned>(
    socket: &Path,
    method: &str,
    path: &str,
    body: String,
    within: Duration,
) -> Result<T, ClientError> {
    let what = format!("{method} {path}");
    let asked = async {
        let stream =
            UnixStream::connect(socket)
                .await
                .map_err(|source| ClientError::Unreachable {
                    socket: socket.to_owned(),
                    source,
                })?;
        talk(stream, method, path, body)
            .await
            .map_err(|source| ClientError::BrokenOff {
                socket: socket.to_owned(),
                what: what.clone(),
                source,
            })
    };
    let Ok(answer) = timeout(within, asked).await else {
        return Err(ClientError::Timeout {
            socket: socket.to_owned(),
            what,
            within,
        });
    };
    let (well, bytes) = answer?;
    read(well, &bytes).map_err(|error| match error {
        Unread::Refused(error) => ClientError::Refused(error),
        Unread::Bad(source) => ClientError::BadAnswer { what, source },
    })
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn talk(
    stream: UnixStream,
    method: &str,
    path: &str,
    body: String,
) -> Result<(bool, Bytes), Broken> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Drives the connection; aborted when dropped, so a timeout leaves nothing behind.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "writefence")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let answer = sender.send_request(request).await?;
    let well = answer.status().is_success();
    let bytes = Limited::new(answer.into_body(), ANSWER_BYTES)
        .collect()
        .await?
        .to_bytes();
    Ok((well, bytes))
}

enum Unread {
    Refused(crate::api::ApiError),
    Bad(serde_json::Error),
}

fn read<T: DeserializeOwned>(well: bool, bytes: &[u8]) -> Result<T, Unread> {
    if well {
        return serde_json::from_slice::<Doc<T>>(bytes)
            .map(|doc| doc.body)
            .map_err(Unread::Bad);
    }
    match serde_json::from_slice::<Doc<ErrorDoc>>(bytes) {
        Ok(doc) => Err(Unread::Refused(doc.body.error)),
        Err(source) => Err(Unread::Bad(source)),
    }
}
