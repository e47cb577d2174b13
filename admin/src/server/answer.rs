//! Answers: a document with its HTTP status, errors included.

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde::Serialize;

use crate::Answer;
use crate::api::{ApiError, Code, Doc, ErrorDoc};

/// Writes an answer as JSON.
pub(super) fn document<T: Serialize>(answer: Answer<T>) -> Response {
    match answer {
        Ok(body) => json(StatusCode::OK, &Doc::new(body)),
        Err(error) => {
            let status = StatusCode::from_u16(error.code.http_status())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            json(status, &Doc::new(ErrorDoc { error }))
        }
    }
}

fn json<T: Serialize>(status: StatusCode, document: &T) -> Response {
    let mut bytes = serde_json::to_vec(document)
        .expect("documents have only string keys and plain values, which JSON can always hold");
    bytes.push(b'\n');
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The answer to a path that does not exist.
pub(super) fn no_such_path(path: &str) -> ApiError {
    ApiError::new(Code::NoSuchPath, format!("there is nothing at {path}"))
        .hint("GET /v1/status, GET /v1/runs/{id}, POST /v1/groups/{group}/{verb} are accepted")
}

/// The answer to a method that does not fit its path.
pub(super) fn wrong_method(method: &str, path: &str) -> ApiError {
    ApiError::new(
        Code::MethodNotAllowed,
        format!("{method} does not fit {path}"),
    )
    .hint("GET looks, POST with a verb acts")
}
