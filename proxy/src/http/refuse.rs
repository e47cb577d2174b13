//! What a client is told when its request is not passed on, or when nobody knows what became of it.
//!
//! "Not executed" is a promise: a client may send such a request again, also a POST. It is made
//! only where nothing was sent. 503 says it to HTTP clients, UNAVAILABLE as the only frame of the
//! answer to gRPC clients, a page to people. 504 with `Writefence-Outcome: unknown` says the
//! opposite: the write may have happened. No word for a client is made anywhere else.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{StatusCode, response};
use serde_json::json;

use super::headers::OUTCOME;
use crate::gate::Epoch;

/// Least and most seconds of a `Retry-After`: sooner is a stampede, later is forgotten.
const RETRY: (u64, u64) = (1, 30);

/// gRPC's code for "try again".
const UNAVAILABLE: &str = "14";

/// gRPC's code for what nobody knows. Not UNAVAILABLE and not DEADLINE_EXCEEDED: libraries are told
/// to try these again.
const UNKNOWN: &str = "2";

/// Why a request is not passed on. None of these was executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The fence rejects.
    Fenced,
    /// It was held for as long as it may be.
    HeldTooLong,
    /// As many writes are held as may be.
    RoomFull,
    /// Held writes take up their share of this HTTP/2 connection.
    ShareFull,
    /// The server behind cannot be reached.
    Unreachable,
    /// The daemon stops, and takes nothing with it that it holds.
    Stopping,
}

impl Why {
    /// The last part of the problem's `type`, and the label of metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Fenced => "fenced",
            Self::HeldTooLong => "held-too-long",
            Self::RoomFull => "waiting-room-full",
            Self::ShareFull => "connection-share-full",
            Self::Unreachable => "upstream-unreachable",
            Self::Stopping => "stopping",
        }
    }

    pub(super) const ALL: [Self; 6] = [
        Self::Fenced,
        Self::HeldTooLong,
        Self::RoomFull,
        Self::ShareFull,
        Self::Unreachable,
        Self::Stopping,
    ];

    const fn title(self) -> &'static str {
        match self {
            Self::Fenced => "Writes are paused. This request was not executed.",
            Self::HeldTooLong => {
                "Writes are still paused and this request may not wait longer. It was not executed."
            }
            Self::RoomFull => {
                "Writes are paused and as many wait as may. This request was not executed."
            }
            Self::ShareFull => {
                "Writes are paused and as many of this connection wait as may. This request was \
                 not executed."
            }
            Self::Unreachable => "The server cannot be reached. This request was not executed.",
            Self::Stopping => {
                "Writes are paused and this proxy is stopping. This request was not executed."
            }
        }
    }
}

/// How the client wants to be spoken to.
#[derive(Clone, Debug, Default)]
pub(super) struct Tongue {
    grpc: Option<Grpc>,
    html: bool,
    /// Allowed to read the answer from a script of this origin.
    origin: Option<HeaderValue>,
}

/// Which gRPC: that of browsers goes over any HTTP, and ends in the body where the other has trailers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grpc {
    Real,
    Web,
    WebText,
}

impl Grpc {
    fn of(content_type: &str) -> Option<Self> {
        match content_type.split(['+', ';']).next()?.trim() {
            "application/grpc" => Some(Self::Real),
            "application/grpc-web" => Some(Self::Web),
            "application/grpc-web-text" => Some(Self::WebText),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Real => "application/grpc",
            Self::Web => "application/grpc-web",
            Self::WebText => "application/grpc-web-text",
        }
    }
}

impl Tongue {
    pub(super) fn of(headers: &HeaderMap, reflect_origin: bool) -> Self {
        let text = |name: HeaderName| {
            let value = headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_ascii_lowercase()
        };
        Self {
            grpc: Grpc::of(&text(header::CONTENT_TYPE)),
            html: prefers_html(&text(header::ACCEPT)),
            origin: headers
                .get(header::ORIGIN)
                .filter(|_| reflect_origin)
                .cloned(),
        }
    }

    /// Whether the client speaks gRPC, which needs HTTP/2.
    pub(super) fn is_grpc(&self) -> bool {
        self.grpc == Some(Grpc::Real)
    }
}

/// Browsers ask for a page first; programs name JSON, or take anything.
fn prefers_html(accept: &str) -> bool {
    let at = |what: &str| accept.find(what);
    match (at("text/html"), at("json")) {
        (Some(html), Some(json)) => html < json,
        (Some(_), None) => true,
        (None, _) => false,
    }
}

/// An answer of ours. Without a body for gRPC: then the head is all.
pub(super) struct Reply {
    pub(super) head: response::Parts,
    pub(super) body: Bytes,
}

/// The seconds that a client is told to wait: around `base`, so that not all come back at once.
pub(super) fn jitter(base: Duration) -> u64 {
    let base = base.as_secs().clamp(RETRY.0, RETRY.1);
    let least = (base / 2).max(RETRY.0);
    let most = (base + base / 2 + 1).min(RETRY.1);
    rand::random_range(least..=most)
}

/// Refuses a request that was not executed.
pub(super) fn not_executed(why: Why, epoch: Epoch, retry_after: u64, tongue: &Tongue) -> Reply {
    let problem = json!({
        "type": format!("urn:writefence:{}", why.name()),
        "title": why.title(),
        "status": 503,
        "executed": false,
        "epoch": epoch.value(),
        "retry_after": retry_after,
    });
    let mut reply = say(503, why.title(), &problem, tongue);
    let seconds = HeaderValue::from(retry_after);
    match tongue.grpc.is_some() {
        true => {
            let pause = HeaderValue::from(retry_after * 1000);
            let name = HeaderName::from_static("grpc-retry-pushback-ms");
            reply.head.headers.insert(name, pause);
        }
        false => {
            reply.head.headers.insert(header::RETRY_AFTER, seconds);
        }
    }
    reply
}

/// Nobody knows whether the write happened.
pub(super) fn unknown(request: &str, epoch: Epoch, tongue: &Tongue) -> Reply {
    let title =
        "The server did not say whether this write happened. Look before you send it again.";
    let problem = json!({
        "type": "urn:writefence:outcome-unknown",
        "title": title,
        "status": 504,
        "executed": null,
        "epoch": epoch.value(),
        "request": request,
    });
    let reply = say(504, title, &problem, tongue);
    as_unknown(reply, tongue)
}

fn as_unknown(mut reply: Reply, tongue: &Tongue) -> Reply {
    if tongue.grpc.is_some() {
        let status = HeaderValue::from_static(UNKNOWN);
        let name = HeaderName::from_static("grpc-status");
        reply.head.headers.insert(name, status);
    }
    let value = HeaderValue::from_static("unknown");
    reply.head.headers.insert(OUTCOME, value);
    reply
}

/// What a body that did not come in time leaves behind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Late<'a> {
    /// Nothing of it was sent.
    Unsent,
    /// A part of a read was.
    Read,
    /// A part of a write was, under this id.
    Write(&'a str),
}

/// The body of a request did not come in time.
pub(super) fn too_slow(late: Late<'_>, tongue: &Tongue) -> Reply {
    let (title, executed, request) = match late {
        Late::Unsent => (
            "The body did not come in time. This request was not executed.",
            Some(false),
            None,
        ),
        Late::Read => ("The body did not come in time.", None, None),
        Late::Write(request) => (
            "The body did not come in time, and the server had a part of it. Look before you send \
             it again.",
            None,
            Some(request),
        ),
    };
    let mut problem = json!({
        "type": "urn:writefence:body-too-slow",
        "title": title,
        "status": 408,
        "executed": executed,
    });
    if let Some(request) = request {
        problem["request"] = request.into();
    }
    let reply = say(408, title, &problem, tongue);
    match late {
        Late::Write(_) => as_unknown(reply, tongue),
        Late::Unsent | Late::Read => reply,
    }
}

/// A read that did not get an answer.
pub(super) fn failed_read(tongue: &Tongue) -> Reply {
    let title = "The server broke off before it had answered.";
    let problem = json!({
        "type": "urn:writefence:upstream-failed",
        "title": title,
        "status": 502,
    });
    say(502, title, &problem, tongue)
}

/// What came is refused, and was sent nowhere.
pub(super) fn bad(status: StatusCode, why: &str) -> Reply {
    let problem = json!({
        "type": "urn:writefence:bad-request",
        "title": format!("The request is refused: {why}."),
        "status": status.as_u16(),
        "executed": false,
    });
    say(status.as_u16(), why, &problem, &Tongue::default())
}

/// Answers of our own that are no refusal.
pub(super) fn healthy() -> Reply {
    let mut reply = Reply {
        head: head(200),
        body: Bytes::from_static(b"ok\n"),
    };
    content(&mut reply, "text/plain; charset=utf-8");
    reply
}

fn say(status: u16, title: &str, problem: &serde_json::Value, tongue: &Tongue) -> Reply {
    let mut reply = Reply {
        head: head(status),
        body: Bytes::new(),
    };
    if let Some(kind) = tongue.grpc {
        reply = grpc(kind, UNAVAILABLE, title);
    } else if tongue.html {
        reply.body = page(title).into();
        content(&mut reply, "text/html; charset=utf-8");
    } else {
        let mut body = serde_json::to_vec(problem).unwrap_or_default();
        body.push(b'\n');
        reply.body = body.into();
        content(&mut reply, "application/problem+json");
    }
    if let Some(origin) = &tongue.origin {
        let headers = &mut reply.head.headers;
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let yes = HeaderValue::from_static("true");
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        let seen = "Retry-After, Writefence-Outcome, grpc-status, grpc-message";
        let seen = HeaderValue::from_static(seen);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, seen);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    reply
}

/// The status is in the only frame, so it needs no trailers.
fn grpc(kind: Grpc, status: &'static str, title: &str) -> Reply {
    let mut reply = Reply {
        head: head(200),
        body: Bytes::new(),
    };
    let headers = &mut reply.head.headers;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.name()));
    let status = HeaderValue::from_static(status);
    headers.insert(HeaderName::from_static("grpc-status"), status);
    if let Ok(message) = HeaderValue::from_str(title) {
        headers.insert(HeaderName::from_static("grpc-message"), message);
    }
    reply
}

fn page(title: &str) -> String {
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Paused</title>\
         <body style=\"font-family:sans-serif;margin:4em auto;max-width:30em\">\
         <h1>One moment</h1><p>{title}</p><p>Please try again in a little while.</p></body></html>\n"
    )
}

fn head(status: u16) -> response::Parts {
    let mut head = response::Response::new(()).into_parts().0;
    head.status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let no_store = HeaderValue::from_static("no-store");
    head.headers.insert(header::CACHE_CONTROL, no_store);
    head
}

fn content(reply: &mut Reply, kind: &'static str) {
    let headers = &mut reply.head.headers;
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(reply.body.len()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tongue(list: &[(&'static str, &str)]) -> Tongue {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            headers.insert(*name, value.parse().unwrap());
        }
        Tongue::of(&headers, true)
    }

    #[test]
    fn a_refusal_says_that_nothing_was_executed() {
        let reply = not_executed(Why::Fenced, Epoch::new(42), 3, &tongue(&[]));
        let body: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let expected = json!({
            "type": "urn:writefence:fenced",
            "title": "Writes are paused. This request was not executed.",
            "status": 503,
            "executed": false,
            "epoch": 42,
            "retry_after": 3,
        });
        assert_eq!(body, expected);
        let headers = &reply.head.headers;
        assert_eq!(reply.head.status, 503);
        assert_eq!(headers["retry-after"], "3");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["content-type"], "application/problem+json");
        assert!(!headers.contains_key("access-control-allow-origin"));
    }

    #[test]
    fn grpc_clients_hear_unavailable_in_one_frame() {
        let client = tongue(&[("content-type", "application/grpc+proto")]);
        let reply = not_executed(Why::HeldTooLong, Epoch::new(1), 2, &client);
        assert_eq!(reply.head.status, 200);
        assert_eq!(reply.head.headers["grpc-status"], "14");
        assert_eq!(reply.head.headers["grpc-retry-pushback-ms"], "2000");
        assert!(reply.body.is_empty());
    }

    #[test]
    fn grpc_clients_are_not_told_to_repeat_what_may_have_happened() {
        let client = tongue(&[("content-type", "application/grpc")]);
        let reply = unknown("id", Epoch::new(1), &client);
        assert_eq!(reply.head.headers["grpc-status"], "2");
        assert_eq!(reply.head.headers["writefence-outcome"], "unknown");
        assert!(!reply.head.headers.contains_key("grpc-retry-pushback-ms"));
    }

    #[test]
    fn browsers_with_grpc_read_a_refusal_across_origins() {
        let client = tongue(&[
            ("content-type", "application/grpc-web+proto"),
            ("origin", "https://a.example"),
        ]);
        assert!(!client.is_grpc(), "it goes over any HTTP");
        let reply = not_executed(Why::Fenced, Epoch::new(1), 2, &client);
        let headers = &reply.head.headers;
        assert_eq!(headers["content-type"], "application/grpc-web");
        assert_eq!(headers["grpc-status"], "14");
        assert_eq!(headers["access-control-allow-origin"], "https://a.example");
        let seen = headers["access-control-expose-headers"].to_str().unwrap();
        assert!(seen.contains("grpc-status"), "{seen}");
    }

    #[test]
    fn scripts_of_other_origins_can_read_it_and_people_get_a_page() {
        let client = tongue(&[("origin", "https://a.example"), ("accept", "text/html,*/*")]);
        let reply = not_executed(Why::Fenced, Epoch::new(1), 2, &client);
        let headers = &reply.head.headers;
        assert_eq!(headers["access-control-allow-origin"], "https://a.example");
        assert_eq!(headers["content-type"], "text/html; charset=utf-8");
        assert!(prefers_html("text/html,application/json"));
        assert!(!prefers_html("application/json, text/html"));
        assert!(!prefers_html("*/*"));
    }

    #[test]
    fn clients_are_told_different_times_within_the_bounds() {
        let mut seen: Vec<u64> = (0..200).map(|_| jitter(Duration::from_secs(8))).collect();
        seen.sort_unstable();
        seen.dedup();
        assert!(seen.len() > 4, "{seen:?}");
        assert!(seen.iter().all(|s| (4..=13).contains(s)), "{seen:?}");
        assert!((1..=30).contains(&jitter(Duration::ZERO)));
        assert!((1..=30).contains(&jitter(Duration::from_secs(9999))));
    }
}
