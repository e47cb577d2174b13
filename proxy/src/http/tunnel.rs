//! A WebSocket once it is open: bytes both ways, and its end.
//!
//! A WebSocket that may write holds a permit, and a fence closes it; one that only reads is closed
//! when the target moves, or stays. Closed means code 1012 ("service restart") to both ends, set in
//! between two frames of the server's: clients that know it connect again by themselves. What was
//! on its way when the tunnel is closed is waited for until the server closes its side; a server
//! that does not leaves an unknown outcome.

use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::body::Piece;
use super::exchange::Event;
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

/// Runs until both ends are closed.
pub(super) async fn run(
    group: &Group,
    upgraded: Upgraded,
    closing: Closing,
    mut from_client: mpsc::Receiver<Piece>,
    events: &mpsc::Sender<Event>,
) -> Result<(), String> {
    let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let mut frames = Frames::default();
    let mut chunk = vec![0; CHUNK];
    let mut client_open = true;
    let mut until: Option<Instant> = None;
    let due = closing.due(group);
    tokio::pin!(due);
    let mut told = false;
    loop {
        // Every arm may be dropped: reading and receiving lose nothing, and the rest is waiting.
        tokio::select! {
            got = read.read(&mut chunk) => match got {
                Ok(0) => return Ok(()),
                Ok(n) => {
                    let data = chunk.get(..n).unwrap_or_default();
                    frames.take(data);
                    if !told {
                        let _ = events.send(Event::Data(Bytes::copy_from_slice(data))).await;
                    }
                }
                Err(error) => return Err(error.to_string()),
            },
            piece = from_client.recv(), if client_open => match piece {
                Some(Piece::Data(data)) => {
                    write.write_all(&data).await.map_err(|error| error.to_string())?;
                }
                Some(Piece::End(_)) | None => {
                    // The client is gone; the server finishes and closes.
                    client_open = false;
                    let _ = write.shutdown().await;
                    until = Some(Instant::now() + FAREWELL);
                }
            },
            () = &mut due, if until.is_none() => {
                let _ = write.write_all(&masked_restart()).await;
                until = Some(Instant::now() + FAREWELL);
                client_open = false;
            }
            () = over(until) => {
                return Err("the server did not close the tunnel in time".to_owned());
            }
        }
        if until.is_some() && !told && frames.at_boundary() {
            told = true;
            let _ = events.send(Event::Data(Bytes::from_static(&RESTART))).await;
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
        while let Some((&first, rest)) = data.split_first() {
            if self.left > 0 {
                let n = usize::try_from(self.left)
                    .unwrap_or(usize::MAX)
                    .min(data.len());
                self.left -= n as u64;
                data = data.get(n..).unwrap_or_default();
                continue;
            }
            self.head.push(first);
            data = rest;
            if let Some(length) = length(&self.head) {
                self.left = length;
                self.head.clear();
            }
        }
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
    }

    #[test]
    fn the_server_reads_1012_behind_the_mask() {
        let frame = masked_restart();
        let code = [frame[6] ^ frame[2], frame[7] ^ frame[3]];
        assert_eq!(u16::from_be_bytes(code), 1012);
    }
}
