//! HTTP/2 clients that break the protocol or ask too much: each hears what it did wrong, no server
//! behind hears of it, and everybody else is served.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use writefence_tests::eventually::until;
use writefence_tests::frames::{
    END_HEADERS, END_STREAM, Frames, PADDED, PRIORITIZED, frame, head, header, kind,
};
use writefence_tests::http::send;

use crate::http_support::{Alone, SOON};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

async fn serves(alone: &Alone) -> Result<()> {
    let reply = send(alone.port, "GET", "/after", "", "").await?;
    ensure!(reply.status == 200, "{}", reply.status);
    Ok(())
}

fn get(stream: u32) -> Vec<u8> {
    let flags = END_STREAM | END_HEADERS;
    frame(kind::HEADERS, flags, stream, &head("GET", "/x"))
}

fn post(stream: u32, path: &str) -> Vec<u8> {
    let flags = END_STREAM | END_HEADERS;
    frame(kind::HEADERS, flags, stream, &head("POST", path))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    let payload = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(kind::SETTINGS, 0, 0, &payload)
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// A head that is whole, with this behind it.
fn with(method: &str, more: &[u8]) -> Vec<u8> {
    let block = [&head(method, "/x"), more].concat();
    frame(kind::HEADERS, END_STREAM | END_HEADERS, 1, &block)
}

/// What ends a connection: what is sent, and the code of the GOAWAY. Where HTTP/2 has a more special
/// word than PROTOCOL_ERROR the crate `h2` does not always use it.
fn wrongs_of_a_connection() -> Vec<(&'static str, Vec<u8>, u32)> {
    let open = frame(kind::HEADERS, 0, 1, &head("GET", "/x"));
    vec![
        (
            "a frame larger than allowed",
            frame(kind::DATA, 0, 1, &[0; 16_385]),
            FRAME_SIZE_ERROR,
        ),
        (
            "data on no stream",
            frame(kind::DATA, 0, 0, b"x"),
            PROTOCOL_ERROR,
        ),
        (
            "data on a stream that was never opened",
            frame(kind::DATA, 0, 1, b"x"),
            PROTOCOL_ERROR,
        ),
        ("a stream of the server's", get(2), PROTOCOL_ERROR),
        ("a head on no stream", get(0), PROTOCOL_ERROR),
        (
            "a stream older than the last",
            [get(5), get(3)].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "an index that no table has",
            frame(kind::HEADERS, END_STREAM | END_HEADERS, 1, &[0xff, 0x80, 1]),
            PROTOCOL_ERROR,
        ),
        (
            "a table larger than allowed",
            frame(
                kind::HEADERS,
                END_STREAM | END_HEADERS,
                1,
                &[0x3f, 0xe1, 0xff, 3],
            ),
            PROTOCOL_ERROR,
        ),
        (
            "a name in capitals",
            with("GET", &header("X-Up", "1")),
            PROTOCOL_ERROR,
        ),
        (
            "more of a head that was none",
            frame(kind::CONTINUATION, END_HEADERS, 1, &head("GET", "/x")),
            PROTOCOL_ERROR,
        ),
        (
            "a frame in the middle of a head",
            [open.clone(), frame(kind::PING, 0, 0, &[0; 8])].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "another stream's head in the middle of one",
            [open, get(3)].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "padding longer than its frame",
            frame(
                kind::HEADERS,
                END_STREAM | END_HEADERS | PADDED,
                1,
                &[200, 0x82],
            ),
            PROTOCOL_ERROR,
        ),
        (
            "the end of a stream that was never opened",
            reset(1),
            PROTOCOL_ERROR,
        ),
        (
            "an end that is too short",
            [get(1), frame(kind::RST_STREAM, 0, 1, &[0; 3])].concat(),
            PROTOCOL_ERROR,
        ),
        (
            "settings that are cut off",
            frame(kind::SETTINGS, 0, 0, &[0; 5]),
            PROTOCOL_ERROR,
        ),
        (
            "an answer to settings with settings",
            frame(kind::SETTINGS, END_STREAM, 0, &[0; 6]),
            PROTOCOL_ERROR,
        ),
        (
            "settings of a stream",
            frame(kind::SETTINGS, 0, 1, &[]),
            PROTOCOL_ERROR,
        ),
        (
            "a window over the most",
            setting(4, 1 << 31),
            PROTOCOL_ERROR,
        ),
        (
            "frames smaller than the least",
            setting(5, 1),
            PROTOCOL_ERROR,
        ),
        ("a push that is no yes or no", setting(2, 2), PROTOCOL_ERROR),
        (
            "a ping that is too short",
            frame(kind::PING, 0, 0, &[0; 7]),
            PROTOCOL_ERROR,
        ),
        (
            "a ping of a stream",
            frame(kind::PING, 0, 1, &[0; 8]),
            PROTOCOL_ERROR,
        ),
        ("room for nothing", window(0, 0), PROTOCOL_ERROR),
        (
            "room for more than there is",
            [
                window(0, i32::MAX.unsigned_abs()),
                window(0, i32::MAX.unsigned_abs()),
            ]
            .concat(),
            FLOW_CONTROL_ERROR,
        ),
        (
            "a promise from a client",
            frame(kind::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
            PROTOCOL_ERROR,
        ),
        (
            "a goodbye of a stream",
            frame(kind::GOAWAY, 0, 1, &[0; 8]),
            PROTOCOL_ERROR,
        ),
        (
            "a place in the order of no stream",
            frame(kind::PRIORITY, 0, 0, &[0, 0, 0, 0, 1]),
            PROTOCOL_ERROR,
        ),
    ]
}

/// What ends one stream: what is sent, and the code of its RST_STREAM.
fn wrongs_of_a_stream() -> Vec<(&'static str, Vec<u8>, u32)> {
    let flags = END_STREAM | END_HEADERS;
    let length = |value: &str| header("content-length", value);
    let itself = [&1_u32.to_be_bytes()[..], &[15]].concat();
    let short = [head("POST", "/x"), length("5")].concat();
    let short = [
        frame(kind::HEADERS, END_HEADERS, 1, &short),
        frame(kind::DATA, END_STREAM, 1, b"x"),
    ];
    vec![
        (
            "a header of HTTP/1's connections",
            with("GET", &header("connection", "close")),
            PROTOCOL_ERROR,
        ),
        (
            "a coding of HTTP/1",
            with("POST", &header("transfer-encoding", "chunked")),
            PROTOCOL_ERROR,
        ),
        (
            "two methods",
            with("GET", &header(":method", "POST")),
            PROTOCOL_ERROR,
        ),
        (
            "an answer's status",
            with("GET", &header(":status", "200")),
            PROTOCOL_ERROR,
        ),
        (
            "no path",
            frame(kind::HEADERS, flags, 1, &header(":method", "GET")),
            PROTOCOL_ERROR,
        ),
        (
            "an empty path",
            frame(kind::HEADERS, flags, 1, &head("GET", "")),
            PROTOCOL_ERROR,
        ),
        (
            "two lengths",
            with("POST", &[length("0"), length("0")].concat()),
            PROTOCOL_ERROR,
        ),
        (
            "a length that is no number",
            with("POST", &length("+0")),
            PROTOCOL_ERROR,
        ),
        (
            "a stream that waits for itself",
            frame(
                kind::HEADERS,
                flags | PRIORITIZED,
                1,
                &[itself, head("GET", "/x")].concat(),
            ),
            PROTOCOL_ERROR,
        ),
        (
            "room for more than there is",
            [
                frame(kind::HEADERS, END_HEADERS, 1, &head("POST", "/x")),
                window(1, i32::MAX.unsigned_abs()),
            ]
            .concat(),
            FLOW_CONTROL_ERROR,
        ),
        (
            "a body shorter than its length",
            short.concat(),
            PROTOCOL_ERROR,
        ),
    ]
}

#[tokio::test]
async fn whoever_breaks_the_protocol_hears_how_and_no_server_hears_of_it() -> Result<()> {
    let alone = Alone::start("").await?;
    for (what, bytes, code) in wrongs_of_a_connection() {
        let mut client = Frames::connect(alone.port).await?;
        client.send(&bytes).await?;
        let end = client.end().await.context(what)?;
        assert_eq!(end, Some((kind::GOAWAY, code)), "{what}");
    }
    for (what, bytes, code) in wrongs_of_a_stream() {
        let mut client = Frames::connect(alone.port).await?;
        client.send(&bytes).await?;
        let end = client.end().await.context(what)?;
        assert_eq!(end, Some((kind::RST_STREAM, code)), "{what}");
        // The connection goes on.
        client.send(&get(3)).await?;
        let answer = client.find(kind::HEADERS, 3).await.context(what)?;
        ensure!(answer.is_some(), "{what}: the connection was ended as well");
    }
    let writes = alone.server.seen().into_iter();
    let writes: Vec<_> = writes.filter(|one| one.method != "GET").collect();
    ensure!(writes.iter().all(|one| one.body.is_none()), "{writes:?}");
    until("all that is whole to be answered", SOON, async || {
        let whole = alone.server.seen().len() - writes.len();
        Ok(alone.server.done() == whole as u64)
    })
    .await?;
    serves(&alone).await
}

#[tokio::test]
async fn websockets_over_http2_are_not_announced_and_tunnels_are_refused() -> Result<()> {
    let alone = Alone::start("").await?;
    let mut client = Frames::connect(alone.port).await?;
    let announced: Vec<u8> = client.settings.chunks(6).map(|one| one[1]).collect();
    ensure!(!announced.contains(&8), "{announced:?}");
    client
        .send(&with("CONNECT", &header(":protocol", "websocket")))
        .await?;
    assert_eq!(
        client.end().await?,
        Some((kind::RST_STREAM, PROTOCOL_ERROR))
    );
    // One to anywhere, as a forward proxy would be asked.
    let tunnel = [header(":method", "CONNECT"), header(":authority", "b:22")];
    let flags = END_STREAM | END_HEADERS;
    let tunnel = frame(kind::HEADERS, flags, 3, &tunnel.concat());
    client.send(&tunnel).await?;
    let answer = client.find(kind::DATA, 3).await?.context("no answer")?;
    let text = String::from_utf8_lossy(&answer.payload).into_owned();
    ensure!(text.contains("\"status\":501"), "{text}");
    assert!(alone.server.seen().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_head_without_an_end_is_ended() -> Result<()> {
    let alone = Alone::start("").await?;
    let before = alone.daemon.memory()?;
    let mut client = Frames::connect(alone.port).await?;
    client
        .send(&frame(kind::HEADERS, 0, 1, &head("GET", "/x")))
        .await?;
    let more = frame(
        kind::CONTINUATION,
        0,
        1,
        &header("x-more", &"y".repeat(100)).repeat(100),
    );
    // Far more than any head may have, unless it is stopped before.
    for _ in 0..2_000 {
        if client.send(&more).await.is_err() {
            break;
        }
    }
    // The server closes with bytes unread, so its words may be lost on the way.
    let end = client.end().await?;
    ensure!(
        end.is_none_or(|(kind, code)| kind == kind::GOAWAY && code == ENHANCE_YOUR_CALM),
        "{end:?}"
    );
    assert!(alone.server.seen().is_empty());
    let grown = alone.daemon.memory()?.saturating_sub(before);
    ensure!(grown < 8 << 20, "{grown} bytes more");
    serves(&alone).await
}

#[tokio::test]
async fn a_client_that_only_asks_and_leaves_is_ended() -> Result<()> {
    let alone = Alone::start("streams = 16").await?;
    let mut client = Frames::connect(alone.port).await?;
    for at in 0..5_000 {
        let stream = 2 * at + 1;
        let pair = [get(stream), reset(stream)].concat();
        if client.send(&pair).await.is_err() {
            break;
        }
    }
    while let Ok(Some(frame)) = client.read().await {
        if frame.kind == kind::GOAWAY {
            assert_eq!(frame.code(), Some(ENHANCE_YOUR_CALM));
        }
    }
    let reached = alone.server.seen().len();
    ensure!(reached < 600, "{reached} of 5,000 reached the server");
    serves(&alone).await
}

#[tokio::test]
async fn a_client_whose_requests_are_served_and_left_is_ended() -> Result<()> {
    let alone = Alone::start("").await?;
    let flags = END_STREAM | END_HEADERS;
    let slow = head("GET", "/slow?ms=20000");
    let mut client = Frames::connect(alone.port).await?;
    // Each is with the server before it is left, so nothing in HTTP/2 is wrong with it. 200 may be left.
    let rounds = [0..104_u32, 104..208];
    for round in rounds {
        let streams = round.clone().map(|at| 2 * at + 1);
        let asks = streams
            .clone()
            .flat_map(|stream| frame(kind::HEADERS, flags, stream, &slow));
        client.send(&asks.collect::<Vec<u8>>()).await?;
        until("the requests to be with the server", SOON, async || {
            Ok(alone.server.seen_at("/slow").len() == round.end as usize)
        })
        .await?;
        let leaves: Vec<u8> = streams.flat_map(reset).collect();
        client.send(&leaves).await?;
        until("them to be given up", SOON, async || {
            Ok(alone.server.open() == 0)
        })
        .await?;
    }
    client.send(&get(417)).await?;
    let end = client.end().await?;
    assert_eq!(end, Some((kind::GOAWAY, ENHANCE_YOUR_CALM)));
    serves(&alone).await
}

#[tokio::test]
async fn writes_whose_client_left_still_count_against_their_connection() -> Result<()> {
    let alone = Alone::start("streams = 8").await?;
    let mut client = Frames::connect(alone.port).await?;
    for at in 0..8 {
        let stream = 2 * at + 1;
        client.send(&post(stream, "/slow?gate=1")).await?;
    }
    until("all writes to be with the server", SOON, async || {
        Ok(alone.server.seen_at("/slow").len() == 8)
    })
    .await?;
    for at in 0..8 {
        client.send(&reset(2 * at + 1)).await?;
    }
    until("all clients to have left", SOON, async || {
        Ok(alone.daemon.status().await?["in_flight"]["orphaned"] == 8)
    })
    .await?;
    client.send(&post(17, "/ninth")).await?;
    let end = client.end().await?;
    assert_eq!(end, Some((kind::RST_STREAM, REFUSED_STREAM)));
    alone.server.release();
    until("the writes to be done", SOON, async || {
        Ok(alone.server.done() == 8)
    })
    .await?;
    until("the connection to have room", SOON, async || {
        Ok(alone.daemon.status().await?["in_flight"]["orphaned"] == 0)
    })
    .await?;
    client.send(&post(19, "/tenth")).await?;
    let answer = client.find(kind::HEADERS, 19).await?;
    ensure!(answer.is_some(), "it was not answered");
    assert!(alone.server.seen_at("/ninth").is_empty());
    assert_eq!(alone.server.seen_at("/tenth").len(), 1);
    Ok(())
}

#[tokio::test]
async fn floods_of_small_frames_take_no_memory_and_hold_up_nobody() -> Result<()> {
    let alone = Alone::start("").await?;
    serves(&alone).await?;
    let before = alone.daemon.memory()?;
    let floods = [
        frame(kind::PING, 0, 0, &[7; 8]),
        setting(3, 100),
        window(0, 1),
        frame(kind::PRIORITY, 0, 5, &[0, 0, 0, 0, 1]),
    ];
    for flood in floods {
        let mut client = Frames::connect(alone.port).await?;
        let many = flood.repeat(1_000);
        // Nothing is read, so the server cannot answer for ever. A client that it reads no more of
        // is stuck, and one that it ends is told.
        let sent = async {
            for _ in 0..500 {
                client.send(&many).await?;
            }
            anyhow::Ok(())
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), sent).await;
        serves(&alone).await?;
        let grown = alone.daemon.memory()?.saturating_sub(before);
        ensure!(
            grown < 16 << 20,
            "{grown} bytes more for frames of kind {}",
            flood[3]
        );
    }
    Ok(())
}
