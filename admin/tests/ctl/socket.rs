//! The socket itself: binding, limits, errors as documents, garbage, shutdown.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use writefence_admin::Wait;
use writefence_admin::api::{API, Code, Verb};
use writefence_admin::client::ClientError;
use writefence_admin::server::{self, BindError};

use crate::kit::{Server, eventually};

fn bind(path: &std::path::Path) -> Result<tokio::net::UnixListener, BindError> {
    tokio::runtime::Runtime::new()
        .unwrap()
        .block_on(async { server::bind(path) })
}

#[test]
fn only_the_daemons_user_may_open_the_socket() {
    let server = Server::start();
    let mode = fs::metadata(&server.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_live_daemon_keeps_its_socket_and_a_dead_ones_is_taken_over() {
    let server = Server::start();
    assert!(matches!(bind(&server.socket), Err(BindError::Live { .. })));
    assert_eq!(server.ctl(&["status"]).code, Some(0), "it still answers");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a dead daemon leaves its file");
    bind(&path).unwrap();
}

#[test]
fn what_is_not_a_socket_is_never_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    fs::write(&path, "precious").unwrap();
    assert!(matches!(bind(&path), Err(BindError::NotASocket { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    let missing = dir.path().join("no/such/dir/admin.sock");
    assert!(matches!(
        bind(&missing),
        Err(BindError::Io { what: "bind", .. })
    ));
}

#[test]
fn peers_are_known_by_their_credentials() {
    let server = Server::start();
    server.http("POST", "/v1/groups/main/abort", "");
    server.ctl(&["reload"]);
    let actors = server.fake.actors();
    assert_eq!(actors[0].pid, i32::try_from(std::process::id()).ok());
    assert!(actors[1].pid.is_some() && actors[1].pid != actors[0].pid);
    assert_eq!(actors[0].uid, actors[1].uid);
}

#[test]
fn every_refusal_is_a_document_with_its_status() {
    let server = Server::start();
    let large = format!("{{\"sql\":\"{}\"}}", "x".repeat(300_000));
    for (method, path, body, status, code) in [
        ("GET", "/", "", 404, "no_such_path"),
        ("GET", "/v1/groups/main/nonsense", "", 404, "no_such_path"),
        (
            "POST",
            "/v1/groups/main/nonsense",
            "{}",
            404,
            "no_such_path",
        ),
        ("GET", "/v1/groups/%ff/sessions", "", 404, "no_such_path"),
        ("GET", "/v1/runs/r9", "", 404, "no_such_run"),
        ("GET", "/v1/groups/main/drains/d9", "", 404, "no_such_drain"),
        (
            "GET",
            "/v1/groups/main/promote",
            "",
            405,
            "method_not_allowed",
        ),
        (
            "POST",
            "/v1/groups/main/sessions",
            "{}",
            405,
            "method_not_allowed",
        ),
        ("DELETE", "/v1/status", "", 405, "method_not_allowed"),
        ("GET", "/v1/reload", "", 405, "method_not_allowed"),
        ("POST", "/v1/groups/main/abort", "{", 400, "bad_request"),
        ("POST", "/v1/groups/main/abort", "[]", 400, "bad_request"),
        ("POST", "/v1/groups/main/abort", "\u{0}", 400, "bad_request"),
        (
            "POST",
            "/v1/groups/main/abort",
            "{\"force\":true}",
            400,
            "bad_request",
        ),
        (
            "POST",
            "/v1/groups/main/abort",
            "{\"epoch\":\"4\"}",
            400,
            "bad_request",
        ),
        ("POST", "/v1/groups/main/verify", "{}", 400, "bad_request"),
        (
            "POST",
            "/v1/groups/main/promote",
            "{\"new_primary\":\"b\"}",
            400,
            "not_confirmed",
        ),
        (
            "POST",
            "/v1/groups/main/explain-sql",
            &large,
            413,
            "too_large",
        ),
        ("GET", "/v1/runs/r1?wait=5", "", 400, "bad_request"),
        ("GET", "/v1/audit?limit=x", "", 400, "bad_request"),
        ("GET", "/v1/runs/r9/report", "", 404, "no_such_run"),
        (
            "POST",
            "/v1/groups/main/drill",
            r#"{"to":"b","reason":" "}"#,
            400,
            "bad_request",
        ),
        ("GET", "/v1/runs/r1?after=-1", "", 400, "bad_request"),
        ("POST", "/v1/groups/main/abort", "", 412, "nothing_to_abort"),
        (
            "POST",
            "/v1/groups/main/audit",
            "{}",
            405,
            "method_not_allowed",
        ),
    ] {
        let (found, document) = server.http(method, path, body);
        assert_eq!(
            document["error"]["code"], code,
            "{method} {path} {document}"
        );
        assert_eq!(found, status, "{method} {path}");
        assert_eq!(document["api"], API);
        assert!(
            document["error"]["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
    }
}

#[test]
fn every_verb_has_a_path() {
    let server = Server::start();
    for verb in Verb::ALL {
        let (status, document) =
            server.http("POST", &format!("/v1/groups/main/{verb}"), "{\"?\":1}");
        assert_ne!(status, 404, "{verb} {document}");
        assert_ne!(status, 501, "{verb} {document}");
    }
}

#[test]
fn garbage_ends_its_own_connection_and_nothing_else() {
    let server = Server::start();
    let mut noise: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut random = move |len: usize| -> Vec<u8> {
        let next = |_| {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            noise.to_le_bytes()[0]
        };
        (0..len).map(next).collect()
    };
    for len in [0, 1, 7, 100, 5_000, 200_000] {
        server.garbage(&random(len));
    }
    let long = [b"GET /".to_vec(), vec![b'a'; 1_000_000]].concat();
    let header = [b"GET / HTTP/1.1\r\nx: ".to_vec(), vec![b'y'; 1_000_000]].concat();
    for bytes in [
        &[0_u8; 64][..],
        b"\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/groups/main/abort HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{",
        b"POST /v1/groups/main/abort HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz",
        b"POST /v1/groups/main/abort HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        &long,
        &header,
    ] {
        server.garbage(bytes);
    }
    assert!(server.fake.calls().is_empty(), "nothing of it was a call");
    assert_eq!(server.ctl(&["status"]).code, Some(0));
}

#[test]
fn a_panic_ends_its_call_only() {
    let server = Server::start();
    let body = "{\"to\":\"b\",\"reason\":\"panics\"}";
    let (status, document) = server.http("POST", "/v1/groups/main/switchover", body);
    assert_eq!(
        (status, document["error"]["code"].as_str()),
        (500, Some("internal"))
    );
    assert_eq!(server.ctl(&["status"]).code, Some(0));
}

#[test]
fn a_call_runs_to_its_end_when_its_caller_hangs_up() {
    let server = Server::start();
    let mut stream = UnixStream::connect(&server.socket).unwrap();
    let body = "{\"to\":\"b\",\"reason\":\"late\"}";
    let head = "POST /v1/groups/main/switchover HTTP/1.1\r\nhost: x\r\ncontent-length:";
    stream
        .write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes())
        .unwrap();
    eventually("the call arrived", || server.fake.calls().len() == 1);
    drop(stream);
    eventually("the run began all the same", || server.fake.working());
}

#[test]
fn silent_connections_are_closed_and_do_not_keep_others_out() {
    let server = Server::start();
    let silent: Vec<_> = (0..140)
        .map(|_| UnixStream::connect(&server.socket).unwrap())
        .collect();
    let began = Instant::now();
    let ran = server.ctl(&["--timeout", "20s", "status"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(began.elapsed() < Duration::from_secs(15));
    drop(silent);
}

#[test]
fn shutdown_answers_who_waits_and_closes_who_does_not_ask() {
    let mut server = Server::start();
    let idle = UnixStream::connect(&server.socket).unwrap();
    let body = "{\"to\":\"b\",\"reason\":\"forever\"}";
    // Connections are accepted in order, so the idle one is no longer in the kernel's queue.
    assert_eq!(
        server.http("POST", "/v1/groups/main/switchover", body).0,
        200
    );
    let (client, began) = (server.client(), Instant::now());
    let wait = Wait {
        after: u64::MAX,
        at_most: Duration::from_secs(20),
    };
    let waiting = server
        .runtime
        .spawn(async move { client.progress("r1", wait).await });
    eventually("it waits", || server.fake.polls() == 1);
    server.shut_down();
    match server.runtime.block_on(waiting).unwrap() {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, Code::Stopping),
        other => unreachable!("{other:?}"),
    }
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    assert_eq!((&idle).read_to_end(&mut Vec::new()).unwrap(), 0);
    assert_eq!(
        server.ctl(&["status"]).code,
        Some(2),
        "nobody answers any more"
    );
}
