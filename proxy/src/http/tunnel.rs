//! A WebSocket once it is open: bytes both ways, and its end.
//!
//! A WebSocket that may write holds a permit, and a fence closes it; one that only reads is closed
//! when the target moves, or stays. Closed means code 1012 ("service restart") to both ends, set in
//! between two frames of the server's: clients that know it connect again by themselves. What was
//! on its way when the tunnel is closed is waited for until the server closes its side; a server
//! that does not leaves an unknown outcome.

use std::time::Duration;

use bytes::{Buf, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::body::Piece;
use super::exchange::{Event, Kept};
use crate::gate::{Lane, Phase, Watch};
use crate::group::Group;

/// How long the server gets to close once it was asked to, or once its client has left.
const FAREWELL: Duration = Duration::from_secs(5);

/// What one read of the server may give.
const CHUNK: usize = 16 << 10;

/// A close frame with code 1012, as servers send it.
const RESTART: [u8; 4] = [0x88, 0x02, 0x03, 0xf4];

/// When a tunnel is closed from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// When the lane is fenced.
    AtFence,
    /// When the target moves away from what it was at this version.
    AtRepoint(u64),
    /// Never.
    Never,
}

impl Closing {
    /// Waits until that is so.
    pub(super) async fn due(self, group: &Group) {
        let mut watch: Watch = group.gate.watch();
        while !self.is_due(group) {
            watch.changed().await;
        }
    }

    fn is_due(self, group: &Group) -> bool {
        match self {
            Self::AtFence => group.gate.look(Lane::Http).phase != Phase::Open,
            Self::AtRepoint(serial) => group.targets.serial() != serial,
            Self::Never => false,
        }
    }
}

/// Runs until the server has closed its side. Gives back what the client has not taken yet.
pub(super) async fn run(
    group: &Group,
    upgraded: Upgraded,
    closing: Closing,
    mut from_client: mpsc::Receiver<Piece>,
    events: &mpsc::Sender<Event>,
) -> Result<Kept, String> {
    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let mut ends = Ends::default();
    let mut chunk = vec![0; CHUNK];
    let due = closing.due(group);
    tokio::pin!(due);
    loop {
        ends.take_leave();
        let next = ends.next();
        // Every arm may be dropped: reading, receiving and a part of a write lose nothing, a place that
        // is not taken is free again, and the rest is waiting. None waits inside, so that neither end
        // can keep the other, or the fence, waiting.
        tokio::select! {
            got = read.read(&mut chunk), if ends.wants_answers() => match got {
                Ok(0) => return Ok(ends.to_client),
                Ok(n) => ends.answered(chunk.get(..n).unwrap_or_default()),
                Err(error) => return Err(error.to_string()),
            },
            place = events.reserve(), if !ends.to_client.is_empty() => match (place, ends.to_client.pop()) {
                (Ok(place), Some(event)) => place.send(event),
                (Ok(_), None) => {}
                (Err(_), _) => ends.deaf(),
            },
            piece = from_client.recv(), if ends.wants_pieces() => match piece {
                Some(Piece::Data(data)) => ends.asked(data),
                Some(Piece::End(_)) | None => ends.left(),
            },
            n = step(&mut write, &ends.to_server, next), if next != Next::Nothing => {
                ends.took(next, n.map_err(|error| error.to_string())?);
            }
            () = &mut due, if !ends.is_due => ends.due(),
            () = over(ends.until) => {
                return Err("the server did not close the tunnel in time".to_owned());
            }
        }
    }
}

/// What is to be done towards the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Write,
    Flush,
    Shut,
    Nothing,
}

/// Does it; of a write, as much as the server takes. Safe to drop.
async fn step(
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    next: Next,
) -> std::io::Result<usize> {
    match next {
        Next::Write => match to.write(bytes).await? {
            0 => Err(std::io::ErrorKind::WriteZero.into()),
            n => Ok(n),
        },
        Next::Flush => to.flush().await.map(|()| 0),
        // It may have closed already, which shows when it is read from.
        Next::Shut => Ok(to.shutdown().await.map_or(0, |()| 0)),
        Next::Nothing => Ok(0),
    }
}

/// Both directions of a tunnel, and how far their end has come.
struct Ends {
    from_server: Frames,
    from_client: Frames,
    to_server: Bytes,
    unflushed: bool,
    to_client: Kept,
    /// The client sends no more.
    client_left: bool,
    /// The client takes no more.
    is_deaf: bool,
    /// It is to be closed from here.
    is_due: bool,
    told_server: bool,
    told_client: bool,
    is_shut: bool,
    until: Option<Instant>,
}

impl Default for Ends {
    fn default() -> Self {
        Self {
            from_server: Frames::default(),
            from_client: Frames::default(),
            to_server: Bytes::new(),
            unflushed: false,
            to_client: Kept::default(),
            client_left: false,
            is_deaf: false,
            is_due: false,
            told_server: false,
            told_client: false,
            is_shut: false,
            until: None,
        }
    }
}

impl Ends {
    /// Says goodbye to each end where a frame is over.
    fn take_leave(&mut self) {
        if !self.is_due && !self.client_left {
            return;
        }
        let to_server = self.is_due && !self.client_left && !self.told_server;
        if to_server && self.to_server.is_empty() && self.from_client.at_boundary() {
            self.told_server = true;
            self.to_server = Bytes::copy_from_slice(&masked_restart());
        }
        if !self.told_client && !self.is_deaf && self.from_server.at_boundary() {
            self.told_client = true;
            self.to_client
                .push(Event::Data(Bytes::from_static(&RESTART)));
        }
    }

    /// While it goes on, answers come as fast as the client takes them; at its end the server's is
    /// waited for.
    fn wants_answers(&self) -> bool {
        self.to_client.is_empty() || self.until.is_some()
    }

    fn answered(&mut self, data: &[u8]) {
        self.from_server.take(data);
        if self.told_client || self.is_deaf {
            return;
        }
        self.to_client
            .push(Event::Data(Bytes::copy_from_slice(data)));
        if self.to_client.is_full() {
            self.deaf();
        }
    }

    fn deaf(&mut self) {
        self.is_deaf = true;
        self.to_client.clear();
    }

    /// Once it is due, only to the end of the frame in hand.
    fn wants_pieces(&self) -> bool {
        let closed = self.client_left || self.told_server;
        !closed && self.to_server.is_empty()
    }

    fn asked(&mut self, mut data: Bytes) {
        match self.is_due {
            true => data.truncate(self.from_client.take_one(&data)),
            false => self.from_client.take(&data),
        }
        self.to_server = data;
    }

    /// The client is gone; the server finishes and closes.
    fn left(&mut self) {
        self.client_left = true;
        self.until.get_or_insert(Instant::now() + FAREWELL);
    }

    fn due(&mut self) {
        self.is_due = true;
        self.until.get_or_insert(Instant::now() + FAREWELL);
    }

    fn next(&self) -> Next {
        let leaves = self.client_left && !self.told_server && !self.is_shut;
        match self.to_server.is_empty() {
            false => Next::Write,
            true if self.unflushed => Next::Flush,
            true if leaves => Next::Shut,
            true => Next::Nothing,
        }
    }

    fn took(&mut self, next: Next, n: usize) {
        match next {
            Next::Write => {
                self.to_server.advance(n);
                self.unflushed = true;
            }
            Next::Flush => self.unflushed = false,
            Next::Shut => self.is_shut = true,
            Next::Nothing => {}
        }
    }
}

async fn over(until: Option<Instant>) {
    match until {
        Some(until) => {
            let _ = timeout_at(until, std::future::pending::<()>()).await;
        }
        None => std::future::pending().await,
    }
}

/// Clients mask what they send.
fn masked_restart() -> [u8; 8] {
    let mask: [u8; 4] = rand::random();
    let [head, _, high, low] = RESTART;
    let code = [high ^ mask[0], low ^ mask[1]];
    [
        head, 0x82, mask[0], mask[1], mask[2], mask[3], code[0], code[1],
    ]
}

/// Where the frames of one direction begin and end.
#[derive(Default)]
struct Frames {
    /// Bytes of the frame in hand that are still to come.
    left: u64,
    /// Its head as far as it has come.
    head: Vec<u8>,
}

impl Frames {
    fn at_boundary(&self) -> bool {
        self.left == 0 && self.head.is_empty()
    }

    fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let n = self.take_one(data);
            data = data.get(n..).unwrap_or_default();
        }
    }

    /// Takes what belongs to the frame in hand, or to the next one, and says how much that was.
    fn take_one(&mut self, data: &[u8]) -> usize {
        let mut at = 0;
        while let Some(byte) = data.get(at).filter(|_| self.left == 0) {
            self.head.push(*byte);
            at += 1;
            if let Some(length) = length(&self.head) {
                self.left = length;
                self.head.clear();
                if length == 0 {
                    return at;
                }
            }
        }
        let rest = (data.len() - at) as u64;
        let n = self.left.min(rest);
        self.left -= n;
        at + usize::try_from(n).unwrap_or_default()
    }
}

/// The length of a frame behind its head, once the head is complete.
fn length(head: &[u8]) -> Option<u64> {
    let second = *head.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let (length, at) = match second & 0x7f {
        126 => {
            let bytes: [u8; 2] = head.get(2..4)?.try_into().ok()?;
            (u64::from(u16::from_be_bytes(bytes)), 4)
        }
        127 => {
            let bytes: [u8; 8] = head.get(2..10)?.try_into().ok()?;
            (u64::from_be_bytes(bytes), 10)
        }
        short => (u64::from(short), 2),
    };
    (head.len() >= at + mask).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_frame_goes_between_two_frames_only() {
        let mut long = vec![0x82, 126, 0x01, 0x00];
        long.extend_from_slice(&[7; 256]);
        let mut masked = vec![0x81, 0x82, 1, 2, 3, 4];
        masked.extend_from_slice(&[7; 2]);
        let stream = [long, masked, vec![0x89, 0x00]].concat();
        let mut frames = Frames::default();
        let mut boundaries = Vec::new();
        for (at, byte) in stream.iter().enumerate() {
            frames.take(&[*byte]);
            if frames.at_boundary() {
                boundaries.push(at + 1);
            }
        }
        assert_eq!(boundaries, [260, 268, 270]);
        let mut whole = Frames::default();
        whole.take(&stream);
        assert!(whole.at_boundary());
        // One by one, from wherever it stands.
        let (mut one, mut at) = (Frames::default(), 100);
        one.take(&stream[..at]);
        let mut ends = Vec::new();
        while at < stream.len() {
            at += one.take_one(&stream[at..]);
            ends.push(at);
        }
        assert_eq!(ends, boundaries);
    }

    #[test]
    fn the_server_reads_1012_behind_the_mask() {
        let frame = masked_restart();
        let code = [frame[6] ^ frame[2], frame[7] ^ frame[3]];
        assert_eq!(u16::from_be_bytes(code), 1012);
    }
}
