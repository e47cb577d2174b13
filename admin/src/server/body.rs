//! Reading a request's body: bounded in size and time, then `run` and `epoch` apart from the rest.

use std::time::Duration;

use axum::body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tokio::time::timeout;

use crate::Expect;
use crate::api::{ApiError, Code, Request};

/// The largest body, bytes. `explain-sql` takes 64 KiB of text, which JSON may write four times
/// as long; nothing else comes near.
const BODY_BYTES: usize = 256 * 1024;
/// From the headers to the body's last byte.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// Reads a request. An empty body is an empty object, so that `curl -X POST` can abort.
///
/// # Errors
/// `too_large`, `too_slow`, `bad_request`, and what [`Request::check`] finds.
pub(super) async fn read<R: Request>(body: Body) -> Result<(Expect, R), ApiError> {
    let bytes = collect(body).await?;
    let mut fields = object(&bytes)?;
    let expect = ["run", "epoch"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), fields.remove(name)?)))
        .collect();
    let expect = typed::<Expect>(expect)?;
    let request = typed::<R>(fields)?;
    request.check()?;
    Ok((expect, request))
}

async fn collect(body: Body) -> Result<Vec<u8>, ApiError> {
    let limited = Limited::new(body, BODY_BYTES);
    let collected = timeout(BODY_WITHIN, limited.collect()).await.map_err(|_| {
        let limit = BODY_WITHIN.as_secs();
        ApiError::new(
            Code::TooSlow,
            format!("the request's body did not arrive in {limit} s"),
        )
    })?;
    match collected {
        Ok(whole) => Ok(whole.to_bytes().to_vec()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::new(
            Code::TooLarge,
            format!("the request's body is larger than {BODY_BYTES} bytes"),
        )),
        Err(error) => Err(bad(format!("the request's body broke off: {error}"))),
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if bytes.trim_ascii().is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_slice(bytes)
        .map_err(|error| bad(format!("the request's body is not a JSON object: {error}")))
}

fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| bad(format!("the request cannot be used: {error}")))
}

fn bad(message: String) -> ApiError {
    ApiError::new(Code::BadRequest, message)
}
