//! The front's inside for the fuzz targets: what must hold for any bytes whatever.

mod negotiation;

use std::collections::VecDeque;

use futures_util::FutureExt;

use super::auth::initial;
use super::classify::{Eyes, Policy, Reading, Verdict, judge};
use super::decide::view;
use super::frame::{HEADER, head, is_client_tag};
use super::startup::{Asked, Heard, Hello, read_hello};
use super::track::{Shape, Track, window};
use crate::scram::{self, Binding, Server, Verifier};

pub use negotiation::Negotiation;

/// Bytes of a client and of a server in turns. The first byte of each turn says whose it is, the
/// second how many bytes follow.
///
/// # Panics
/// Something that was sent stopped counting without a ReadyForQuery, or by one more than it.
pub fn conversation(mut data: &[u8]) {
    let eyes = eyes();
    let mut track = Track::default();
    let (mut client, mut server) = (VecDeque::new(), VecDeque::new());
    while let Some((&[whose, length], rest)) = data.split_first_chunk::<2>() {
        let (turn, rest) = rest.split_at(usize::from(length).min(rest.len()));
        data = rest;
        let more = if whose % 2 == 0 {
            client.extend(turn);
            from_client(&mut track, &mut client, &eyes)
        } else {
            server.extend(turn);
            from_server(&mut track, &mut server, &eyes)
        };
        if !more {
            return;
        }
    }
}

/// False when the connection would be ended.
fn from_client(track: &mut Track, bytes: &mut VecDeque<u8>, eyes: &Eyes) -> bool {
    let data = bytes.make_contiguous();
    // While fenced a group is looked at before anything of it is sent.
    let _ = view(data, track, eyes);
    let mut at = 0;
    while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
        let Ok(found) = head(rest) else { return false };
        let Some(head) = found else { break };
        assert!(head.total >= HEADER, "{head:?}");
        if !is_client_tag(head.tag) {
            return false;
        }
        let window = window(head);
        let Some(seen) = rest.get(..window) else {
            break;
        };
        let before = weight(track);
        // The server ignores what comes behind a failed run, up to the Sync.
        let ignored = track.skipping();
        track.sent(head.tag, seen, window == head.total);
        let sent = weight(track).checked_sub(before);
        let counts = matches!(head.tag, b'Q' | b'F' | b'E');
        assert!(sent <= Some(1) && sent.is_some(), "{head:?}: {sent:?}");
        assert!(
            !matches!(head.tag, b'Q' | b'F') || sent == Some(usize::from(!ignored)),
            "{head:?}"
        );
        assert!(counts || sent == Some(0), "{head:?}");
        // A message longer than its window streams past; here the rest of it is all that came.
        at += head.total.min(rest.len());
    }
    bytes.drain(..at);
    true
}

fn from_server(track: &mut Track, bytes: &mut VecDeque<u8>, eyes: &Eyes) -> bool {
    let data = bytes.make_contiguous();
    let mut at = 0;
    while let Some(rest) = data.get(at..).filter(|rest| !rest.is_empty()) {
        let Ok(found) = head(rest) else { return false };
        let Some(frame) = found.and_then(|h| rest.get(..h.total)) else {
            break;
        };
        let before = (weight(track), track.in_flight().count());
        let closes_run = track.closes_run();
        match frame.first() {
            Some(b'Z') => {
                track.ready(frame.get(HEADER).copied().unwrap_or(b'I'), eyes);
                let left = track.in_flight().count();
                // One group, and the run that it closed.
                let most = 1 + usize::from(closes_run);
                assert!(left + most >= before.1, "{left} left of {}", before.1);
            }
            Some(b'E') => track.failed(),
            Some(tag) => track.received(*tag, frame),
            None => {}
        }
        if frame.first() != Some(&b'Z') {
            assert_eq!(weight(track), before.0, "after {}", frame.escape_ascii());
        }
        assert!(!track.quiescent() || track.in_flight().next().is_none());
        at += frame.len();
    }
    bytes.drain(..at);
    true
}

/// How much is in flight that could change anything.
fn weight(track: &Track) -> usize {
    track
        .in_flight()
        .map(|group| match group.shape {
            Shape::Query | Shape::Function => 1,
            Shape::Extended => group.executes(),
            Shape::CopyEnd | Shape::CopySync => 0,
        })
        .sum()
}

/// The first bytes of a connection.
///
/// # Panics
/// A startup packet was taken that names no user, or gave more than it held.
pub fn startup(data: &[u8]) {
    let mut stream = tokio::io::join(data, tokio::io::sink());
    let tls = data.first().is_some_and(|b| b % 2 == 1);
    let mut asked = Asked::default();
    // All bytes are there, so it never waits.
    let mut read = || read_hello(&mut stream, &mut asked, tls).now_or_never();
    let mut heard = read();
    if matches!(heard, Some(Ok(Heard::Encrypt))) {
        assert!(tls, "TLS is promised where there is none");
        heard = read();
        assert!(!matches!(heard, Some(Ok(Heard::Encrypt))), "TLS twice");
    }
    if let Some(Ok(Heard::Hello(Hello::Session(startup)))) = heard {
        let held = startup.params.iter().map(|(n, v)| n.len() + v.len());
        assert!(held.sum::<usize>() <= data.len());
        assert!(startup.param("user").is_some_and(|user| !user.is_empty()));
    }
}

/// A client's two SCRAM messages, the second one behind a zero byte; and the same two as a server's.
///
/// # Panics
/// Somebody was let in without the password.
pub fn scram(data: &[u8]) {
    let verifier = Verifier::mock(b"fuzzing", "nobody", 4096);
    let plus = data.first().is_some_and(|b| b % 2 == 1);
    let binding = if plus {
        Binding::EndPoint(&[7; 32])
    } else {
        Binding::None
    };
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let (first, last) = data.split_at(end);
    let last = last.get(1..).unwrap_or_default();
    let _ = initial(data);
    for mechanism in [scram::PLAIN, scram::PLUS] {
        let begun = Server::first(mechanism.as_bytes(), first, binding, verifier.clone());
        if let Ok((server, _)) = begun {
            assert!(!matches!(server.last(last), Ok(Some(_))), "let in");
        }
    }
}

/// Whether a text is judged to be a read.
pub fn is_read(sql: &[u8]) -> bool {
    judge(sql, Reading::default(), &eyes()).verdict() == Verdict::Read
}

fn eyes() -> Eyes {
    Eyes::without_catalog(Policy::default(), "fuzzing")
}
