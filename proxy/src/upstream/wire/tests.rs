//! Reading what servers send, without a server.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::cancel::request;
use super::rows::parse_row;
use super::*;
use crate::upstream::Endpoint;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    let mut out = vec![tag];
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body);
    out
}

fn how() -> Login {
    Login {
        params: vec![("user".into(), "u".into())],
        minor: 0,
        proof: Proof::None,
        timeout: Duration::from_secs(30),
    }
}

/// Answers one connection with fixed bytes after its startup packet was read.
async fn server(answer: Vec<u8>) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let length = stream.read_u32().await.unwrap();
        let mut startup = vec![0; length as usize - 4];
        stream.read_exact(&mut startup).await.unwrap();
        stream.write_all(&answer).await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    });
    Endpoint::new("127.0.0.1", port)
}

fn greeting() -> Vec<u8> {
    let mut out = message(b'R', &[0, 0, 0, 0]);
    out.extend(message(b'S', b"server_version\x0015.1\0"));
    out.extend(message(b'N', b"SNOTICE\0C00000\0Mhello\0\0"));
    out.extend(message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4]));
    out.extend(message(b'Z', b"I"));
    out
}

#[tokio::test]
async fn login_stops_exactly_at_ready_for_query() {
    let mut answer = greeting();
    answer.extend(b"beyond");
    let mut connected = login(&server(answer).await, &how()).await.unwrap();
    assert_eq!((connected.pid, connected.secret), (7, vec![1, 2, 3, 4]));
    assert_eq!(
        connected.params,
        [("server_version".to_owned(), "15.1".to_owned())]
    );
    assert_eq!(connected.notices.len(), 1);
    let mut rest = [0; 6];
    connected.stream.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"beyond");
}

#[tokio::test]
async fn login_relays_the_servers_refusal() {
    let body = b"SFEHLER\0VFATAL\0C3D000\0Mno such database\0Dd\0Hh\0\0";
    let error = login(&server(message(b'E', body)).await, &how())
        .await
        .unwrap_err();
    let refusal = error.server().unwrap();
    assert_eq!(
        (refusal.severity.as_str(), refusal.sqlstate.as_str()),
        ("FATAL", "3D000")
    );
    assert_eq!(
        (refusal.detail.as_deref(), refusal.hint.as_deref()),
        (Some("d"), Some("h"))
    );
    assert_eq!(refusal.raw.as_ref(), body);
}

async fn fault(answer: Vec<u8>) -> ProtocolFault {
    match login(&server(answer).await, &how()).await.unwrap_err() {
        LoginError::Protocol { source, .. } => source,
        other => unreachable!("{other:?}"),
    }
}

#[tokio::test]
async fn login_refuses_garbage() {
    assert!(matches!(
        fault(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()).await,
        ProtocolFault::TooLarge { .. }
    ));
    assert!(matches!(
        fault(vec![b'R', 0, 0, 0, 3]).await,
        ProtocolFault::BadLength { .. }
    ));
    assert!(matches!(
        fault(message(b'Z', b"I")).await,
        ProtocolFault::Unexpected { tag: b'Z', .. }
    ));
    assert!(matches!(
        fault(message(b'R', &[0, 0])).await,
        ProtocolFault::Malformed {
            message: "Authentication"
        }
    ));
    let mut odd = message(b'R', &[0, 0, 0, 0]);
    odd.extend(message(b'S', b"no end"));
    assert!(matches!(
        fault(odd).await,
        ProtocolFault::Malformed {
            message: "ParameterStatus"
        }
    ));
}

#[tokio::test]
async fn login_refuses_an_endless_greeting() {
    let mut answer = message(b'R', &[0, 0, 0, 0]);
    for _ in 0..40 {
        answer.extend(message(b'N', &[b'x'; 32 << 10]));
    }
    assert!(matches!(
        fault(answer).await,
        ProtocolFault::TooLarge { .. }
    ));
}

#[tokio::test]
async fn login_says_which_method_is_missing() {
    let gss = login(&server(message(b'R', &[0, 0, 0, 7])).await, &how())
        .await
        .unwrap_err();
    assert!(matches!(gss, LoginError::UnsupportedAuth { method, .. } if method == "GSSAPI"));
    let md5 = message(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]);
    let md5 = login(&server(md5).await, &how()).await.unwrap_err();
    assert!(matches!(md5, LoginError::NoPassword { method: "md5", .. }));
}

#[tokio::test]
async fn silence_is_a_timeout_and_a_closed_port_is_unreachable() {
    let mut how = how();
    how.timeout = Duration::from_millis(50);
    let error = login(&server(Vec::new()).await, &how).await.unwrap_err();
    assert!(matches!(error, LoginError::Timeout { .. }));
    how.timeout = Duration::from_secs(30);
    // Nobody is given that one.
    let error = login(&Endpoint::new("127.0.0.1", 1), &how)
        .await
        .unwrap_err();
    assert!(matches!(error, LoginError::Unreachable { .. }));
}

#[test]
fn null_is_not_an_empty_text() {
    let mut body = BytesMut::new();
    body.put_u16(3);
    body.put_i32(-1);
    body.put_i32(0);
    body.put_i32(1);
    body.put_u8(b'x');
    let row = parse_row(body.freeze()).unwrap();
    assert_eq!(row, [None, Some(String::new()), Some("x".to_owned())]);
    assert_eq!(
        parse_row(Bytes::from_static(&[0, 1, 0, 0, 0, 9, b'x'])),
        None
    );
    assert_eq!(parse_row(Bytes::from_static(&[0, 0, 1])), None);
}

#[test]
fn a_cancel_request_carries_keys_of_any_legal_length() {
    assert_eq!(
        request(1, &[9, 9, 9, 9]).unwrap().as_ref(),
        [0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 9, 9, 9, 9]
    );
    assert_eq!(request(1, &[0; 256]).unwrap().len(), 268);
    assert!(request(1, &[0; 257]).is_err());
}
