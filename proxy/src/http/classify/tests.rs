//! Tables: requests and what is decided about them.

use http::{HeaderMap, HeaderName, HeaderValue};
use writefence_config::{Listener, parse};

use super::{Judged, Request, Rules, Verdict, rule};

/// The rules of a listener with these lines more.
fn rules(more: &str) -> Rules {
    let text = format!(
        "[group.main.region.a]\npostgres = \"host=127.0.0.1\"\nhttp = \"http://127.0.0.1:1\"\n\
         [[group.main.listen]]\nkind = \"http\"\naddress = \"127.0.0.1:8080\"\n{more}"
    );
    let loaded = parse(&text, "test.toml").unwrap_or_else(|problems| panic!("{problems}"));
    let Listener::Http(listener) = &loaded.config.groups[0].listeners[0] else {
        panic!("an HTTP listener was given")
    };
    Rules::new(listener)
}

fn route(lines: &str) -> Rules {
    rules(&format!("[[group.main.listen.route]]\n{lines}"))
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let name: HeaderName = name.parse().unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn judge(rules: &Rules, line: &str, lines: &[(&str, &str)], body: Option<&[u8]>) -> Judged {
    let (method, url) = line.split_once(' ').unwrap();
    let (path, query) = match url.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (url, None),
    };
    let headers = headers(lines);
    let request = Request {
        method,
        host: "api.example.com:8080",
        path,
        query,
        headers: &headers,
    };
    let judged = rules.judge(&request);
    match body {
        Some(body) => rules.judge_body(&request, judged, body),
        None => judged,
    }
}

#[track_caller]
fn check(rules: &Rules, line: &str, lines: &[(&str, &str)], verdict: Verdict, rule: &str) {
    let judged = judge(rules, line, lines, None);
    assert_eq!(
        (judged.verdict, judged.rule),
        (verdict, rule),
        "{line} {lines:?}"
    );
}

use Verdict::{Read, Write};

#[test]
fn without_a_route_the_method_decides() {
    let rules = rules("");
    check(&rules, "GET /orders/1", &[], Read, rule::SAFE_METHOD);
    check(&rules, "QUERY /orders", &[], Read, rule::SAFE_METHOD);
    check(&rules, "POST /orders", &[], Write, rule::METHOD);
    check(&rules, "get /orders", &[], Write, rule::METHOD);
    check(&rules, "BREW /pot", &[], Write, rule::METHOD);
    check(&rules, "CONNECT example.com:443", &[], Write, rule::METHOD);
}

#[test]
fn what_stands_in_for_the_method_can_only_raise() {
    let rules = route("path = \"/search\"\nverdict = \"read\"");
    for name in [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
    ] {
        check(&rules, "GET /a", &[(name, "DELETE")], Write, rule::OVERRIDE);
        check(&rules, "GET /a", &[(name, "delete")], Write, rule::OVERRIDE);
        check(
            &rules,
            "GET /a",
            &[(name, "nonsense")],
            Write,
            rule::OVERRIDE,
        );
        check(&rules, "GET /a", &[(name, "")], Write, rule::OVERRIDE);
        check(
            &rules,
            "GET /a",
            &[(name, "GET"), (name, "PUT")],
            Write,
            rule::OVERRIDE,
        );
        check(
            &rules,
            "GET /a",
            &[(name, "GET, PUT")],
            Write,
            rule::OVERRIDE,
        );
        check(&rules, "GET /a", &[(name, "\u{e9}")], Write, rule::OVERRIDE);
        check(
            &rules,
            "POST /search",
            &[(name, "PUT")],
            Write,
            rule::OVERRIDE,
        );
        check(&rules, "GET /a", &[(name, "get")], Read, rule::SAFE_METHOD);
        check(&rules, "POST /a", &[(name, "GET")], Write, rule::METHOD);
    }
    check(&rules, "GET /a?_method=DELETE", &[], Write, rule::OVERRIDE);
    check(
        &rules,
        "GET /a?x=1&%5fmethod=%44ELETE",
        &[],
        Write,
        rule::OVERRIDE,
    );
    check(&rules, "GET /a?x=1;_method=put", &[], Write, rule::OVERRIDE);
    check(&rules, "GET /a?_method=get", &[], Read, rule::SAFE_METHOD);
    check(&rules, "GET /a?_Method=put", &[], Write, rule::OVERRIDE);
    let cgi = [("x_http_method_override", "DELETE")];
    check(&rules, "GET /a", &cgi, Write, rule::OVERRIDE);
    check(&rules, "POST /a?_method=GET", &[], Write, rule::METHOD);
}

#[test]
fn the_first_route_that_fits_decides() {
    let rules = rules(
        "[[group.main.listen.route]]\nmethod = [\"POST\"]\npath = \"/search\"\nverdict = \"read\"\n\
         [[group.main.listen.route]]\npath = \"/search\"\nverdict = \"write\"\n\
         [[group.main.listen.route]]\nhost = \"*.example.com\"\npath = \"/v*/purge\"\n\
         verdict = \"write\"\nanswer = \"reject\"\nwrite_deadline = \"5m\"\n\
         [[group.main.listen.route]]\nhost = \"other.org\"\nverdict = \"write\"\n",
    );
    check(&rules, "POST /search", &[], Read, rule::ROUTE_READ);
    check(&rules, "GET /search", &[], Write, rule::ROUTE_WRITE);
    check(&rules, "GET /v1/purge", &[], Write, rule::ROUTE_WRITE);
    check(&rules, "GET /v1/x/purge", &[], Read, rule::SAFE_METHOD);
    check(&rules, "POST /search/all", &[], Write, rule::METHOD);
    let judged = judge(&rules, "GET /v1/purge", &[], None);
    assert_eq!(judged.route, Some(2));
    let manner = rules.manner(&judged);
    assert_eq!(manner.answer, Some(writefence_config::Answer::Reject));
    assert_eq!(manner.write_deadline.as_secs(), 300);
    let usual = rules.manner(&judge(&rules, "GET /", &[], None));
    assert_eq!((usual.answer, usual.write_deadline.as_secs()), (None, 60));
}

#[test]
fn no_spelling_of_a_path_evades_a_route_that_writes() {
    let rules = route("path = \"/admin/purge\"\nverdict = \"write\"");
    check(&rules, "GET /admin/purge", &[], Write, rule::ROUTE_WRITE);
    check(&rules, "GET /Admin/PURGE", &[], Write, rule::ROUTE_WRITE);
    for path in [
        "//admin/purge",
        "/admin//purge",
        "/x/../admin/purge",
        "/admin/./purge",
        "/admin/purge/",
        "/admin/%70urge",
        "/admin%2Fpurge",
        "/admin/%2570urge",
        "/admin\\purge",
        "/admin/purge;x=1",
    ] {
        check(&rules, &format!("GET {path}"), &[], Write, rule::SPELLING);
    }
    for (name, url) in [
        ("x-original-url", "/admin/purge?x=1"),
        ("x-rewrite-url", "http://a/admin/purge"),
        ("x_original_url", "/admin/%70urge"),
    ] {
        check(&rules, "GET /", &[(name, url)], Write, rule::SPELLING);
    }
    let same = [("x-original-url", "/orders")];
    check(&rules, "GET /orders", &same, Read, rule::SAFE_METHOD);
}

#[test]
fn no_spelling_of_a_path_makes_use_of_a_route_that_reads() {
    let rules = route("path = \"/search/**\"\nverdict = \"read\"");
    check(&rules, "POST /search/a", &[], Read, rule::ROUTE_READ);
    for path in [
        "/search/../orders",
        "/search/%2e%2e/orders",
        "/search/..;/orders",
        "/search/..%2forders",
    ] {
        check(&rules, &format!("POST {path}"), &[], Write, rule::SPELLING);
    }
    check(&rules, "POST /x/../search/a", &[], Write, rule::METHOD);
}

#[test]
fn a_websocket_may_write_unless_configured_otherwise() {
    let upgrade = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
    ];
    let rules = route("path = \"/live\"\nwebsocket = \"keep\"");
    check(&rules, "GET /chat", &upgrade, Write, rule::WEBSOCKET);
    check(&rules, "GET /live", &upgrade, Read, rule::WEBSOCKET_READ);
    check(&rules, "GET /live", &upgrade[1..], Read, rule::SAFE_METHOD);
    check(&rules, "POST /live", &upgrade, Write, rule::METHOD);
}

#[test]
fn a_grpc_method_reads_if_it_is_listed() {
    let rules =
        route("path = \"/shop.Orders/*\"\nverdict = \"grpc\"\nreads = [\"shop.Orders/Get*\"]");
    let grpc = [("Content-Type", "application/grpc+proto")];
    check(
        &rules,
        "POST /shop.Orders/GetOrder",
        &grpc,
        Read,
        rule::GRPC_READ,
    );
    check(&rules, "POST /shop.Orders/Place", &grpc, Write, rule::GRPC);
    check(
        &rules,
        "POST /shop.Orders/getOrder",
        &grpc,
        Write,
        rule::GRPC,
    );
    check(&rules, "POST /shop.Orders/GetOrder", &[], Write, rule::GRPC);
    check(
        &rules,
        "POST /shop.Carts/GetCart",
        &grpc,
        Write,
        rule::METHOD,
    );
    check(
        &rules,
        "GET /shop.Orders/GetOrder",
        &[],
        Read,
        rule::SAFE_METHOD,
    );
}

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json; charset=utf-8")];

fn graphql() -> Rules {
    route("path = \"/graphql\"\nverdict = \"graphql\"\nbody_bytes = \"4KiB\"")
}

#[track_caller]
fn check_body(lines: &[(&str, &str)], body: &str, verdict: Verdict, rule: &str) {
    let judged = judge(&graphql(), "POST /graphql", lines, Some(body.as_bytes()));
    assert_eq!((judged.verdict, judged.rule), (verdict, rule), "{body}");
}

#[test]
fn a_graphql_request_is_what_its_operation_is() {
    let needs = judge(&graphql(), "POST /graphql", JSON, None);
    assert_eq!(
        (needs.verdict, needs.rule),
        (Verdict::NeedsBody(4096), rule::GRAPHQL_BODY)
    );
    let reads = [
        r#"{"query":"{ orders { id } }"}"#,
        r#"{"query":"query A { a } query B { b }","operationName":"B"}"#,
        r#"{"query":"query A { a } mutation B { b }","operationName":"A"}"#,
        r#"{"query":"subscription { a }","variables":{"x":1},"extensions":null}"#,
        r#"[{"query":"{ a }"},{"query":"{ b }"}]"#,
        r#"{"query":"{ a }","extensions":{"trace":true}}"#,
        " {\"query\":\"# mutation\\n{ a(s: \\\"mutation { b }\\\") }\"}",
    ];
    for body in reads {
        check_body(JSON, body, Read, rule::GRAPHQL_QUERY);
    }
    let writes = [
        r#"{"query":"mutation { a }"}"#,
        r#"{"query":"query A { a } mutation B { b }","operationName":"B"}"#,
        r#"{"query":"query A { a } mutation B { b }"}"#,
        r#"{"query":"query A { a } mutation B { b }","operationName":""}"#,
        r#"{"query":"query A { a } mutation B { b }","operationName":null}"#,
        r#"[{"query":"{ a }"},{"query":"mutation { b }"}]"#,
        "{\"query\":\"\\u006dutation { a }\"}",
    ];
    for body in writes {
        check_body(JSON, body, Write, rule::GRAPHQL_MUTATION);
    }
}

#[test]
fn a_graphql_request_that_cannot_be_judged_is_a_write() {
    for (body, rule) in [
        ("", rule::GRAPHQL_REQUEST),
        ("[]", rule::GRAPHQL_REQUEST),
        ("\"{ a }\"", rule::GRAPHQL_REQUEST),
        (
            r#"{"query":"{ a }","query":"mutation { b }"}"#,
            rule::GRAPHQL_REQUEST,
        ),
        (
            r#"{"query":"{ a }","documentId":"7"}"#,
            rule::GRAPHQL_REQUEST,
        ),
        (
            r#"{"query":"{ a }","variables":[1]}"#,
            rule::GRAPHQL_REQUEST,
        ),
        (r#"{"query":["{ a }"]}"#, rule::GRAPHQL_REQUEST),
        (
            r#"{"query":"{ a }"} {"query":"mutation { b }"}"#,
            rule::GRAPHQL_REQUEST,
        ),
        (r#"{"query":"{ a "}"#, rule::GRAPHQL_DOCUMENT),
        (
            r#"{"query":"query A { a }","operationName":"B"}"#,
            rule::GRAPHQL_DOCUMENT,
        ),
        (
            r#"{"query":"fragment F on T { a }"}"#,
            rule::GRAPHQL_DOCUMENT,
        ),
        (r#"{"query":""}"#, rule::GRAPHQL_PERSISTED),
        (
            r#"{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"ab"}}}"#,
            rule::GRAPHQL_PERSISTED,
        ),
        (
            r#"{"query":"{ a }","extensions":{"persistedQuery":{"version":1,"sha256Hash":"ab"}}}"#,
            rule::GRAPHQL_PERSISTED,
        ),
    ] {
        check_body(JSON, body, Write, rule);
    }
    let long = format!("{{\"query\":\"{{ a }} #{}\"}}", "x".repeat(5000));
    check_body(JSON, &long, Write, rule::GRAPHQL_LARGE);
    for kind in [
        "multipart/form-data; boundary=x",
        "text/plain",
        "application/json; charset=utf-16",
        "",
    ] {
        check_body(
            &[("Content-Type", kind)],
            r#"{"query":"{ a }"}"#,
            Write,
            rule::GRAPHQL_FORM,
        );
    }
    check_body(&[], r#"{"query":"{ a }"}"#, Write, rule::GRAPHQL_FORM);
    let two = [JSON[0], JSON[0]];
    check_body(&two, r#"{"query":"{ a }"}"#, Write, rule::GRAPHQL_FORM);
    let packed = [JSON[0], ("Content-Encoding", "gzip")];
    check(
        &graphql(),
        "POST /graphql",
        &packed,
        Write,
        rule::GRAPHQL_FORM,
    );
}

#[test]
fn a_persisted_query_with_its_own_text_is_what_the_text_is() {
    // sha256 of "{ a }".
    let digest = ring::digest::digest(&ring::digest::SHA256, b"{ a }");
    let hash: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let body = format!(
        r#"{{"query":"{{ a }}","extensions":{{"persistedQuery":{{"sha256Hash":"{hash}"}}}}}}"#
    );
    check_body(JSON, &body, Read, rule::GRAPHQL_QUERY);
}

#[test]
fn a_document_of_any_depth_is_looked_through_or_refused() {
    let nested =
        |open: &str, close: &str, n| format!("{{ a(x: {}1{}) }}", open.repeat(n), close.repeat(n));
    for (document, verdict) in [
        (nested("[", "]", 50), Read),
        (nested("[", "]", 70), Write),
        (nested("[\\\"]\\\", ", "]", 70), Write),
        (nested("{x: ", "}", 70), Write),
        ("{".repeat(1000), Write),
        ("{ a ".repeat(100) + &"}".repeat(100), Write),
    ] {
        let judged = judge(
            &graphql(),
            "POST /graphql",
            JSON,
            Some(format!(r#"{{"query":"{document}"}}"#).as_bytes()),
        );
        assert_eq!(judged.verdict, verdict, "{document}");
    }
    let deep = "[".repeat(4000);
    check_body(JSON, &deep, Write, rule::GRAPHQL_REQUEST);
    check_body(
        &[("Content-Type", "application/graphql")],
        "{ a }",
        Read,
        rule::GRAPHQL_QUERY,
    );
}

#[test]
fn a_graphql_request_in_a_url_is_judged_too() {
    let rules = graphql();
    let get = |query: &str, verdict, rule: &str| {
        check(&rules, &format!("GET /graphql?{query}"), &[], verdict, rule);
    };
    get("query=%7Ba%7D", Read, rule::GRAPHQL_QUERY);
    get("query=mutation%7Ba%7D", Write, rule::GRAPHQL_MUTATION);
    get("query={a}&query=mutation{b}", Write, rule::GRAPHQL_REQUEST);
    get(
        "query=query+A{a}+mutation+B{b}&operationName=A",
        Read,
        rule::GRAPHQL_QUERY,
    );
    get(
        "query=query+A{a}+mutation+B{b}&operationName=B",
        Write,
        rule::GRAPHQL_MUTATION,
    );
    get(
        "extensions=%7B%7D&query={a}",
        Write,
        rule::GRAPHQL_PERSISTED,
    );
    get("operationName=A", Write, rule::GRAPHQL_PERSISTED);
    get("Query=mutation{b}", Write, rule::GRAPHQL_MUTATION);
    get("query[]=mutation{b}", Write, rule::GRAPHQL_MUTATION);
    get("query={a}&Query=mutation{b}", Write, rule::GRAPHQL_REQUEST);
    get("x=1", Read, rule::SAFE_METHOD);
    check(&rules, "GET /graphql", &[], Read, rule::SAFE_METHOD);
    check(&rules, "PUT /graphql", &[], Write, rule::METHOD);
    // Some servers prefer the URL's document to the body's.
    let body = br#"{"query":"{ a }"}"#;
    let judged = judge(&rules, "POST /graphql?query=mutation{b}", JSON, Some(body));
    assert_eq!(
        (judged.verdict, judged.rule),
        (Write, rule::GRAPHQL_REQUEST)
    );
}

#[test]
fn every_rule_has_its_own_word() {
    let mut words = rule::ALL.to_vec();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), rule::ALL.len());
}
