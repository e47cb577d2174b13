//! A cable that can be cut: a TCP relay between two of our processes.
//!
//! Faults apply to connections that exist and to those that come: `cut` closes and refuses,
//! `black_hole` keeps everything open and passes nothing, `delay` passes later, `half_close` ends
//! one direction only. `heal` ends a fault; what was swallowed does not come back, as TCP would
//! have it retransmitted but a middle box would not.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::eventually::pause;
use crate::ports::free_port;

/// Chunks that may be under way in one direction; more hold the sender back, as a full pipe does.
const UNDER_WAY: usize = 1024;

/// A direction through the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// From the one who connected to the target.
    Forth,
    /// From the target to the one who connected.
    Back,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Cut,
    BlackHole,
    Delay(Duration),
    HalfClosed(Leg),
}

/// A running relay; dropping it cuts everything.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    fault: Arc<watch::Sender<Fault>>,
    accept: JoinHandle<()>,
}

impl Relay {
    /// Listens on a free port of loopback and passes on to `target` there.
    ///
    /// # Errors
    /// No port could be bound.
    pub async fn start(target: u16) -> Result<Self> {
        let port = free_port()?;
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let fault = Arc::new(watch::channel(Fault::None).0);
        let state = Arc::clone(&fault);
        let accept = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                // Accepted and closed at once: the nearest to a refusal with a bound port.
                if *state.borrow() != Fault::Cut {
                    tokio::spawn(pass(near, target, state.subscribe()));
                }
            }
        });
        Ok(Self {
            port,
            fault,
            accept,
        })
    }

    /// Where to connect.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections and refuses new ones.
    pub fn cut(&self) {
        self.fault.send_replace(Fault::Cut);
    }

    /// Swallows everything; nobody is told.
    pub fn black_hole(&self) {
        self.fault.send_replace(Fault::BlackHole);
    }

    /// Passes everything later by `time`, in each direction.
    pub fn delay(&self, time: Duration) {
        self.fault.send_replace(Fault::Delay(time));
    }

    /// Ends one direction of all connections, also of new ones.
    pub fn half_close(&self, leg: Leg) {
        self.fault.send_replace(Fault::HalfClosed(leg));
    }

    /// Ends the fault.
    pub fn heal(&self) {
        self.fault.send_replace(Fault::None);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        self.accept.abort();
    }
}

async fn pass(near: TcpStream, target: u16, mut fault: watch::Receiver<Fault>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else {
        return;
    };
    for socket in [&near, &far] {
        // Only slower without it.
        let _ = socket.set_nodelay(true);
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let forth = one_way(near_in, far_out, Leg::Forth, fault.clone());
    let back = one_way(far_in, near_out, Leg::Back, fault.clone());
    tokio::select! {
        // Both directions have ended by themselves.
        _ = async { tokio::join!(forth, back) } => {}
        // Dropping the halves closes both sockets. An error means that the relay is gone.
        _ = fault.wait_for(|fault| *fault == Fault::Cut) => {}
    }
}

/// Reads at once and writes when it is due, so that a delay is not also a limit of throughput.
async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    leg: Leg,
    mut fault: watch::Receiver<Fault>,
) {
    let (send, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let closed = fault.clone();
    let read = async move {
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(n @ 1..) = from.read(&mut chunk).await {
            let wait = match *closed.borrow() {
                Fault::BlackHole => continue,
                Fault::Delay(time) => time,
                Fault::None | Fault::Cut | Fault::HalfClosed(_) => Duration::ZERO,
            };
            if send
                .send((Instant::now() + wait, chunk[..n].to_vec()))
                .await
                .is_err()
            {
                break;
            }
        }
    };
    let write = async {
        while let Some((due, bytes)) = queue.recv().await {
            pause(due.saturating_duration_since(Instant::now())).await;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        _ = async { tokio::join!(read, write) } => {}
        _ = fault.wait_for(|fault| *fault == Fault::HalfClosed(leg)) => {}
    }
    // The reader of the other side sees an end of file; the opposite direction goes on.
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> Result<u16> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (mut read, mut write) = socket.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut read, &mut write).await });
            }
        });
        Ok(port)
    }

    /// Sends a letter and reads up to its echo; one before it may have been swallowed or not.
    async fn echoed(socket: &mut TcpStream, letter: u8) -> Result<()> {
        socket.write_all(&[letter]).await?;
        while heard(socket, LONG).await?? != letter {}
        Ok(())
    }

    /// An answer that is to come, on a busy machine.
    const LONG: Duration = Duration::from_secs(30);

    /// What comes first: a byte, or the end.
    async fn heard(
        socket: &mut TcpStream,
        within: Duration,
    ) -> Result<std::io::Result<u8>, tokio::time::error::Elapsed> {
        tokio::time::timeout(within, socket.read_u8()).await
    }

    #[tokio::test]
    async fn each_fault_does_what_it_says() -> Result<()> {
        let relay = Relay::start(echo().await?).await?;
        let mut socket = TcpStream::connect(("127.0.0.1", relay.port())).await?;
        echoed(&mut socket, b'a').await?;

        relay.delay(Duration::from_millis(30));
        let begin = Instant::now();
        echoed(&mut socket, b'b').await?;
        assert!(
            begin.elapsed() >= Duration::from_millis(60),
            "once in each direction"
        );

        relay.black_hole();
        socket.write_all(b"c").await?;
        let silence = heard(&mut socket, Duration::from_millis(200)).await;
        assert!(silence.is_err(), "nothing passes");

        relay.heal();
        echoed(&mut socket, b'd').await?;
        relay.half_close(Leg::Back);
        let end = heard(&mut socket, LONG).await?;
        assert_eq!(
            end.expect_err("the answer's direction has ended").kind(),
            std::io::ErrorKind::UnexpectedEof
        );

        relay.heal();
        let mut socket = TcpStream::connect(("127.0.0.1", relay.port())).await?;
        echoed(&mut socket, b'e').await?;
        relay.cut();
        assert!(heard(&mut socket, LONG).await?.is_err());
        Ok(())
    }
}
