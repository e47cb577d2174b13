//! A request in, verdict out: whether it may change something.
//!
//! [`Rules::judge`] looks at the method, what stands in for it, the path and its route, and is
//! enough for nearly every request. Where the body decides (GraphQL) it says so, and
//! [`Rules::judge_body`] decides once the body is there. Nothing here does IO or keeps state.
//!
//! The rule for doubt: what is not understood is a write. Whatever stands in for a method or a path
//! can only make a write of a read.

mod graphql;
mod method;
pub(in crate::http) mod overrides;
mod path;
mod route;
pub mod rule;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, UPGRADE};
use writefence_config::{Answer, HttpListener, RouteVerdict, Streams};

use graphql::InUrl;
use route::Compiled;

/// What is looked at of a request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// As sent: upper case matters.
    pub method: &'r str,
    /// Of the Host header or the authority; a port does not matter.
    pub host: &'r str,
    /// As sent, still encoded, without the query.
    pub path: &'r str,
    /// What follows the question mark, still encoded.
    pub query: Option<&'r str>,
    /// All of its headers.
    pub headers: &'r HeaderMap,
}

/// Whether a request may change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It passes a fence.
    Read,
    /// The body decides: ask [`Rules::judge_body`] with up to this many bytes of it. A longer body
    /// is a write, and so is this if the body is not wanted.
    NeedsBody(usize),
    /// It does not pass a fence.
    Write,
}

/// What was decided, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// The decision.
    pub verdict: Verdict,
    /// The rule behind it, one of [`rule::ALL`].
    pub rule: &'static str,
    /// The route that fits the path as sent, by its place in the file from 0 on.
    pub route: Option<usize>,
}

/// How the requests of a route are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// How a fence answers; `None`: as the fence says.
    pub answer: Option<Answer>,
    /// From admission to the end of a write's answer.
    pub write_deadline: Duration,
    /// What becomes of a WebSocket.
    pub websocket: Streams,
    /// What becomes of server-sent events.
    pub sse: Streams,
}

/// The rules of one listener.
#[derive(Debug)]
pub struct Rules {
    routes: Vec<Compiled>,
    usual: Manner,
}

impl Rules {
    /// Compiles a listener's routes.
    pub fn new(listener: &HttpListener) -> Self {
        Self {
            routes: listener.routes.iter().map(Compiled::new).collect(),
            usual: Manner {
                answer: None,
                write_deadline: listener.write_deadline,
                websocket: listener.websocket,
                sse: listener.sse,
            },
        }
    }

    /// Judges a request without its body.
    pub fn judge(&self, request: &Request<'_>) -> Judged {
        let mut spellings = path::spellings(request.path).into_iter();
        let sent = spellings.next().unwrap_or_default();
        let mut judged = self.judge_path(request, &sent);
        let named = overrides::paths(request.headers).flat_map(path::spellings);
        for other in spellings.chain(named) {
            let found = self.judge_path(request, &other);
            if found.verdict > judged.verdict {
                judged = Judged {
                    verdict: found.verdict,
                    rule: rule::SPELLING,
                    ..judged
                };
            }
        }
        if judged.verdict != Verdict::Write && overrides::raises(request.headers, request.query) {
            judged = Judged {
                verdict: Verdict::Write,
                rule: rule::OVERRIDE,
                ..judged
            };
        }
        judged
    }

    /// Decides a request of which [`Rules::judge`] said that its body decides.
    pub fn judge_body(&self, request: &Request<'_>, asked: Judged, body: &[u8]) -> Judged {
        let Verdict::NeedsBody(most) = asked.verdict else {
            return asked;
        };
        let found = if body.len() > most {
            Err(rule::GRAPHQL_LARGE)
        } else if InUrl::read(request.query).interferes() {
            Err(rule::GRAPHQL_REQUEST)
        } else {
            graphql::judge_body(content_type(request.headers), body)
        };
        let (verdict, rule) = decided(found);
        Judged {
            verdict,
            rule,
            ..asked
        }
    }

    /// How a judged request is treated.
    pub fn manner(&self, judged: &Judged) -> Manner {
        let route = judged.route.and_then(|at| self.routes.get(at));
        let Some(Compiled { route, .. }) = route else {
            return self.usual;
        };
        Manner {
            answer: route.answer,
            write_deadline: route.write_deadline.unwrap_or(self.usual.write_deadline),
            websocket: route.websocket.unwrap_or(self.usual.websocket),
            sse: route.sse.unwrap_or(self.usual.sse),
        }
    }

    /// Judges a request as if this were its path.
    fn judge_path(&self, request: &Request<'_>, path: &str) -> Judged {
        let at = self.routes.iter().position(|one| one.fits(request, path));
        let route = at.map(|at| &self.routes[at]);
        let by_route = match route.map(|one| one.route.verdict) {
            None | Some(RouteVerdict::Method) => by_method(request.method),
            Some(RouteVerdict::Read) => (Verdict::Read, rule::ROUTE_READ),
            Some(RouteVerdict::Write) => (Verdict::Write, rule::ROUTE_WRITE),
            Some(RouteVerdict::Graphql) => by_graphql(request, route),
            Some(RouteVerdict::Grpc) => by_grpc(request, path, route),
        };
        let mut judged = Judged {
            verdict: by_route.0,
            rule: by_route.1,
            route: at,
        };
        if is_websocket(request) && judged.verdict != Verdict::Write {
            (judged.verdict, judged.rule) = match self.manner(&judged).websocket {
                Streams::Fence => (Verdict::Write, rule::WEBSOCKET),
                Streams::Repoint | Streams::Keep => (Verdict::Read, rule::WEBSOCKET_READ),
            };
        }
        judged
    }
}

fn by_method(method: &str) -> (Verdict, &'static str) {
    match method::is_safe(method) {
        true => (Verdict::Read, rule::SAFE_METHOD),
        false => (Verdict::Write, rule::METHOD),
    }
}

/// In a GET all is in the URL, and a body would not be looked at; in a POST the body decides.
fn by_graphql(request: &Request<'_>, route: Option<&Compiled>) -> (Verdict, &'static str) {
    match request.method {
        "HEAD" | "OPTIONS" | "TRACE" => (Verdict::Read, rule::SAFE_METHOD),
        "GET" if InUrl::read(request.query) == InUrl::default() => {
            // No request at all: the page of an explorer, a health check.
            (Verdict::Read, rule::SAFE_METHOD)
        }
        "GET" => decided(InUrl::read(request.query).judge()),
        "POST" | "QUERY" if request.headers.contains_key(CONTENT_ENCODING) => {
            (Verdict::Write, rule::GRAPHQL_FORM)
        }
        "POST" | "QUERY" => {
            let most = route.map_or(0, |one| one.route.body_bytes);
            (Verdict::NeedsBody(most), rule::GRAPHQL_BODY)
        }
        _ => (Verdict::Write, rule::METHOD),
    }
}

fn by_grpc(request: &Request<'_>, path: &str, route: Option<&Compiled>) -> (Verdict, &'static str) {
    let grpc =
        request.method == "POST" && content_type(request.headers).starts_with("application/grpc");
    let listed = route.is_some_and(|one| one.lists(path));
    match (grpc && listed, method::is_safe(request.method)) {
        (true, _) => (Verdict::Read, rule::GRPC_READ),
        (false, true) => (Verdict::Read, rule::SAFE_METHOD),
        (false, false) => (Verdict::Write, rule::GRPC),
    }
}

fn decided(found: graphql::Found) -> (Verdict, &'static str) {
    match found {
        Ok(rule) => (Verdict::Read, rule),
        Err(rule) => (Verdict::Write, rule),
    }
}

/// The content type, if there is just one.
fn content_type(headers: &HeaderMap) -> &str {
    let mut all = headers.get_all(CONTENT_TYPE).iter();
    let first = all.next().filter(|_| all.next().is_none());
    first
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Whether the request asks to become a WebSocket: by HTTP/1.1's upgrade. HTTP/2 asks by CONNECT,
/// which is a write anyway.
pub fn is_websocket(request: &Request<'_>) -> bool {
    let names = |header, word: &str| {
        let values = request.headers.get_all(header).iter();
        let mut words = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        words.any(|one| one.trim().eq_ignore_ascii_case(word))
    };
    names(UPGRADE, "websocket") && names(CONNECTION, "upgrade")
}
