//! What becomes of headers on their way through.
//!
//! Headers of one hop end here (RFC 9110 7.6.1), also those that `Connection` names. The epoch is
//! ours to tell: what a client says of it is taken out. Where a request came from is told on in
//! `Forwarded` and `X-Forwarded-*`, and what a client says of that is believed only of a peer that
//! is trusted. Pure.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::classify::overrides::is_alias;

/// Tells the server behind under which epoch a request was admitted.
pub(super) const EPOCH: HeaderName = HeaderName::from_static("writefence-epoch");

/// Tells a client what is known of its write.
pub(super) const OUTCOME: HeaderName = HeaderName::from_static("writefence-outcome");

/// Names a request in logs and in the list of unknown outcomes.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The longest request id that is taken over from a client.
const REQUEST_ID_BYTES: usize = 128;

/// Headers that end at each hop. `Trailer` is none of them: it is how somebody further on sees that
/// a trailer was dropped.
const HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct From<'a> {
    pub(super) peer: SocketAddr,
    /// What the peer says of earlier hops is believed.
    pub(super) trusted: bool,
    pub(super) tls: bool,
    pub(super) host: &'a str,
}

/// Takes out what ends at this hop.
pub(super) fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Framing is not a client's to take out.
        .filter(|name| name != header::CONTENT_LENGTH && name != header::HOST)
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
}

/// Makes a request's headers ready for the server behind.
pub(super) fn to_upstream(headers: &mut HeaderMap, epoch: &str, id: &str, from: From<'_>) {
    let trailers = headers
        .get_all(header::TE)
        .iter()
        .any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip_hop(headers);
    if trailers {
        // Means "this client reads trailers"; gRPC servers insist on it.
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // We have answered it already.
    headers.remove(header::EXPECT);
    headers.remove(OUTCOME);
    strip_aliases(headers);
    set(headers, EPOCH, epoch);
    set(headers, REQUEST_ID, id);
    forwarded(headers, from);
    join_cookies(headers);
    headers.append(header::VIA, HeaderValue::from_static("1.1 writefence"));
}

/// Takes out what a server behind CGI's rules could not tell from what we say: it sees no difference
/// between an underscore and a hyphen.
fn strip_aliases(headers: &mut HeaderMap) {
    let ours = [
        EPOCH,
        OUTCOME,
        REQUEST_ID,
        FORWARDED_FOR,
        FORWARDED_PROTO,
        FORWARDED_HOST,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
    ];
    let aliases: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .filter(|name| ours.iter().any(|one| is_alias(name.as_str(), one.as_str())))
        .cloned()
        .collect();
    for name in aliases {
        headers.remove(name);
    }
}

/// Asks for the connection to become a WebSocket, which is again a matter of this hop.
pub(super) fn upgrade(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// The same for the answer that agrees to it.
pub(super) fn upgraded(headers: &mut HeaderMap) {
    strip_hop(headers);
    upgrade(headers);
}

/// Makes an answer's headers ready for the client.
pub(super) fn to_downstream(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        // It was read by its chunks, whatever else it says of its length (RFC 9112 6.3).
        headers.remove(header::CONTENT_LENGTH);
    }
    strip_hop(headers);
    headers.remove(OUTCOME);
    headers.append(header::VIA, HeaderValue::from_static("1.1 writefence"));
}

/// Makes an answer before the answer ready for the client.
pub(super) fn hint(headers: &mut HeaderMap) {
    strip_hop(headers);
    headers.remove(OUTCOME);
}

/// Takes out of trailers what has no business there (RFC 9110 6.5.1). Servers that merge them with
/// the head would find another length, user or method in them than was judged.
pub(super) fn trailers(trailers: &mut HeaderMap) {
    strip_hop(trailers);
    let forbidden: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| is_of_the_head(&name.as_str().replace('_', "-")))
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

/// Framing, routing, conditions, credentials, what controls a cache or a client, and what is ours.
fn is_of_the_head(name: &str) -> bool {
    const NAMES: [&str; 33] = [
        "age",
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-location",
        "content-range",
        "content-type",
        "cookie",
        "date",
        "expect",
        "expires",
        "forwarded",
        "host",
        "idempotency-key",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "range",
        "referer",
        "retry-after",
        "set-cookie",
        "traceparent",
        "tracestate",
        "trailer",
        "user-agent",
        "vary",
        "via",
        "warning",
        "www-authenticate",
        "x-method-override",
        "x-request-id",
    ];
    const BEGINNINGS: [&str; 6] = [
        "if-",
        "proxy-",
        "sec-",
        "writefence-",
        "x-forwarded-",
        "x-http-method",
    ];
    NAMES.contains(&name) || BEGINNINGS.iter().any(|one| name.starts_with(one))
}

fn forwarded(headers: &mut HeaderMap, from: From<'_>) {
    if !from.trusted {
        for name in [
            FORWARDED_FOR,
            FORWARDED_PROTO,
            FORWARDED_HOST,
            header::FORWARDED,
        ] {
            headers.remove(name);
        }
    }
    let proto = if from.tls { "https" } else { "http" };
    let ip = from.peer.ip().to_canonical();
    let mut hop = match ip {
        IpAddr::V4(ip) => format!("for={ip};proto={proto}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\";proto={proto}"),
    };
    if !from.host.is_empty() && !from.host.contains(['"', '\\']) {
        // Writing to a string does not fail.
        let _ = write!(hop, ";host=\"{}\"", from.host);
    }
    join(headers, FORWARDED_FOR, &ip.to_string());
    join(headers, header::FORWARDED, &hop);
    if !headers.contains_key(FORWARDED_PROTO) {
        set(headers, FORWARDED_PROTO, proto);
    }
    if !headers.contains_key(FORWARDED_HOST) && !from.host.is_empty() {
        set(headers, FORWARDED_HOST, from.host);
    }
}

/// HTTP/2 clients may send one cookie a header; HTTP/1 knows one header only (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let all: Vec<_> = headers.get_all(header::COOKIE).iter().cloned().collect();
    if all.len() > 1 {
        let parts: Vec<&[u8]> = all.iter().map(HeaderValue::as_bytes).collect();
        if let Ok(value) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
            headers.insert(header::COOKIE, value);
        }
    }
}

/// Adds an element to a list that may be spread over several headers.
fn join(headers: &mut HeaderMap, name: HeaderName, element: &str) {
    let mut all: Vec<String> = headers
        .get_all(&name)
        .iter()
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect();
    all.push(element.to_owned());
    set(headers, name, &all.join(", "));
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// The id under which a request is known: the client's own if it is one, else a new one.
pub(super) fn request_id(headers: &HeaderMap) -> String {
    let own = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let sound = |id: &&str| {
        let chars = |c: char| c.is_ascii_alphanumeric() || "-_.:/+=@".contains(c);
        !id.is_empty() && id.len() <= REQUEST_ID_BYTES && id.chars().all(chars)
    };
    match own.filter(sound) {
        Some(id) => id.to_owned(),
        None => format!("{:032x}", rand::random::<u128>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn from(trusted: bool) -> From<'static> {
        From {
            peer: "192.0.2.7:999".parse().unwrap(),
            trusted,
            tls: true,
            host: "api.example",
        }
    }

    #[test]
    fn headers_of_one_hop_end_here_and_the_framing_stays() {
        let mut headers = of(&[
            ("connection", "close, X-Mine, Content-Length, host"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "secret"),
            ("content-length", "3"),
            ("host", "a"),
            ("accept", "*/*"),
        ]);
        strip_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "content-length", "host"]);
    }

    #[test]
    fn a_clients_own_word_on_epoch_and_origin_is_taken_out() {
        let mut headers = of(&[
            ("writefence-epoch", "main:999"),
            ("writefence-epoch", "main:998"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "gopher"),
            ("forwarded", "for=10.0.0.1"),
            ("expect", "100-continue"),
            ("te", "trailers"),
            ("writefence_epoch", "main:997"),
            ("x_forwarded_for", "10.0.0.1"),
            ("content_length", "9"),
            ("x_own", "1"),
        ]);
        to_upstream(&mut headers, "main:7", "id1", from(false));
        let all = |name: &str| -> Vec<_> {
            let values = headers.get_all(name).iter();
            values.map(|v| v.to_str().unwrap().to_owned()).collect()
        };
        assert_eq!(all("writefence-epoch"), ["main:7"]);
        assert_eq!(all("x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(all("x-forwarded-proto"), ["https"]);
        assert_eq!(all("x-forwarded-host"), ["api.example"]);
        let own = "for=192.0.2.7;proto=https;host=\"api.example\"";
        assert_eq!(all("forwarded"), [own]);
        assert_eq!(all("expect"), [""; 0]);
        assert_eq!(all("te"), ["trailers"]);
        let aliases = headers.keys().filter(|name| name.as_str().contains('_'));
        let aliases: Vec<_> = aliases.map(HeaderName::as_str).collect();
        assert_eq!(aliases, ["x_own"]);
        assert_eq!(all("x-request-id"), ["id1"]);
    }

    #[test]
    fn a_trusted_peers_word_is_kept_and_added_to() {
        let mut headers = of(&[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "http"),
        ]);
        to_upstream(&mut headers, "main:7", "id1", from(true));
        assert_eq!(headers["x-forwarded-for"], "10.0.0.1, 10.0.0.2, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "http");
    }

    #[test]
    fn trailers_bring_nothing_that_belongs_into_the_head() {
        let mut behind = of(&[
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
            ("host", "b"),
            ("authorization", "secret"),
            ("x-http-method-override", "DELETE"),
            ("x-http-method", "DELETE"),
            ("x-method-override", "DELETE"),
            ("x_http_method_override", "DELETE"),
            ("x-forwarded-for", "10.0.0.1"),
            ("writefence-epoch", "main:999"),
            ("connection", "x-mine"),
            ("x-mine", "1"),
            ("content-digest", "sha-256=:x:"),
            ("grpc-status", "0"),
            ("x-checksum", "1"),
        ]);
        trailers(&mut behind);
        let mut left: Vec<_> = behind.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-digest", "grpc-status", "x-checksum"]);
    }

    #[test]
    fn an_answer_in_chunks_has_no_other_length() {
        let mut headers = of(&[("content-length", "2"), ("transfer-encoding", "chunked")]);
        to_downstream(&mut headers);
        assert!(!headers.contains_key("content-length"));
        let mut headers = of(&[("content-length", "2")]);
        to_downstream(&mut headers);
        assert_eq!(headers["content-length"], "2");
    }

    #[test]
    fn cookies_are_one_header_again() {
        let mut headers = of(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers["cookie"], "a=1; b=2");
    }

    #[test]
    fn an_id_that_could_break_a_log_line_is_replaced() {
        assert_eq!(request_id(&of(&[("x-request-id", "abc-1")])), "abc-1");
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            let id = request_id(&of(&[("x-request-id", bad)]));
            assert_eq!(id.len(), 32, "{bad:?}");
        }
    }
}
