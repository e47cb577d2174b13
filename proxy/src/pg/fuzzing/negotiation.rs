//! The first exchange of a connection over real sockets and real TLS, for the fuzz targets.
//!
//! Bytes as they are, in pieces; an honest handshake, asked for or at once, with the bytes behind it;
//! and a handshake whose records are bent on their way. What must hold stands in `check`.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;

use super::super::door::Door;
use super::super::negotiate::{ALPN, Line, hello};
use super::super::startup::{Hello, HelloError};
use crate::tls::{ServerFiles, ServerTls, Stream};

const SSL: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

/// Sent where the handshake is what is bent.
const STARTUP: &[u8] = b"\0\0\0\x13\0\x03\0\0user\0fuzz\0\0";

/// Nobody keeps anybody waiting but in a bent handshake, where a record may promise more than comes.
const LONG: Duration = Duration::from_secs(5);
const BENT: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Raw,
    Asked,
    Direct,
    Bent,
}

/// What an input begins with.
#[derive(Clone, Copy, Debug)]
struct Plan {
    way: Way,
    /// The listener takes encrypted sessions only.
    must: bool,
    /// Which protocol the client names in its handshake: ours, none, another.
    names: usize,
    /// Plain bytes right behind the request for TLS.
    early: bool,
}

impl Plan {
    fn of(byte: u8) -> Self {
        let way = match byte & 3 {
            0 => Way::Raw,
            1 => Way::Asked,
            2 => Way::Direct,
            _ => Way::Bent,
        };
        Self {
            way,
            must: byte & 4 != 0,
            names: usize::from(byte >> 3) % 3,
            early: byte & 128 != 0,
        }
    }
}

/// Made once for all inputs.
pub struct Negotiation {
    runtime: Runtime,
    listener: TcpListener,
    doors: [Door; 2],
    clients: Vec<TlsConnector>,
}

impl Negotiation {
    /// With a certificate for `localhost`, which is its own CA.
    ///
    /// # Panics
    /// There are no sockets, or the certificate cannot be used.
    pub fn new(cert: &Path, key: &Path) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0)));
        let tls = ServerTls::load(
            "fuzzing".to_owned(),
            ServerFiles {
                cert: cert.to_owned(),
                key: key.to_owned(),
                client_ca: None,
                client_must: false,
                alpn: vec![ALPN.to_vec()],
            },
        );
        let tls = Arc::new(tls.expect("a certificate"));
        let doors = [false, true].map(|must_encrypt| Door {
            tls: Some(Arc::clone(&tls)),
            must_encrypt,
            ..Door::trusting()
        });
        let names = [vec![ALPN.to_vec()], vec![], vec![b"http/1.1".to_vec()]];
        Self {
            runtime,
            listener: listener.expect("a socket"),
            doors,
            clients: names.map(|alpn| client(cert, alpn)).into(),
        }
    }

    /// One input.
    ///
    /// # Panics
    /// Somebody came in who must not, or was kept waiting.
    pub fn run(&self, data: &[u8]) {
        let Some((&first, rest)) = data.split_first() else {
            return;
        };
        let plan = Plan::of(first);
        self.runtime.block_on(self.meet(plan, rest));
    }

    async fn meet(&self, plan: Plan, rest: &[u8]) {
        let address = self.listener.local_addr().expect("bound");
        let near = TcpStream::connect(address).await.expect("loopback");
        let (far, _) = self.listener.accept().await.expect("loopback");
        for socket in [&near, &far] {
            // Thousands of ports a second would wait for late packets otherwise.
            socket.set_zero_linger().expect("a live socket");
        }
        let within = if plan.way == Way::Bent { BENT } else { LONG };
        let server = async {
            let mut line = Line {
                stream: Some(Stream::Plain(far)),
                end_point: None,
            };
            let heard = hello(&mut line, &self.doors[usize::from(plan.must)], within).await;
            check(plan, &heard, line.stream.as_ref());
        };
        // What the client makes of it does not matter; that the server comes to an end does.
        let (_, _) = tokio::join!(server, self.client(plan, near, rest));
    }

    async fn client(&self, plan: Plan, mut socket: TcpStream, rest: &[u8]) -> io::Result<()> {
        if plan.way == Way::Raw {
            pieces(&mut socket, rest).await?;
            return until_closed(socket).await;
        }
        if plan.way != Way::Direct {
            let early: &[u8] = if plan.early { STARTUP } else { &[] };
            socket.write_all(&[SSL, early].concat()).await?;
            if socket.read_u8().await? != b'S' {
                return Ok(());
            }
        }
        let bent = plan.way == Way::Bent;
        let bends = if bent { rest } else { &[] };
        let line = Bending::new(socket, bends);
        let connector = self.clients.get(plan.names).expect("one of three");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut line = connector.connect(name, line).await?;
        if bent {
            line.write_all(STARTUP).await?;
            line.flush().await?;
        } else {
            pieces(&mut line, rest).await?;
        }
        until_closed(line).await
    }
}

fn check(plan: Plan, heard: &Result<Hello, HelloError>, stream: Option<&Stream>) {
    let tls = stream.is_some_and(Stream::is_tls);
    let bent = plan.way == Way::Bent;
    if matches!(heard, Err(HelloError::Slow(_))) {
        assert!(bent, "{plan:?}: it waits for nobody");
    }
    let Ok(heard) = heard else { return };
    assert!(plan.way != Way::Raw || !tls, "nobody shook hands");
    // Whoever closes at once has said nothing at all.
    assert!(
        !(plan.early && matches!(plan.way, Way::Asked | Way::Bent)),
        "plain bytes before the answer: {heard:?}"
    );
    if plan.way == Way::Direct {
        assert!(
            tls && plan.names == 0,
            "direct TLS has to name the protocol"
        );
    }
    if let Hello::Session(startup) = heard {
        assert!(tls || !plan.must, "a session in plain text");
        let user = startup.param("user");
        assert!(user.is_some_and(|user| !user.is_empty()));
        assert!(!bent || user == Some("fuzz"), "bent, and believed");
    }
}

/// Each piece behind its length, as a write of its own.
async fn pieces(to: &mut (impl AsyncWrite + Unpin), mut data: &[u8]) -> io::Result<()> {
    while let Some((&length, rest)) = data.split_first() {
        let (piece, rest) = rest.split_at(usize::from(length).min(rest.len()));
        to.write_all(piece).await?;
        to.flush().await?;
        // The server's turn.
        tokio::task::yield_now().await;
        data = rest;
    }
    Ok(())
}

/// Says that no more comes, and waits for the server to have had enough.
async fn until_closed(mut line: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
    line.shutdown().await?;
    let mut rest = [0; 256];
    while line.read(&mut rest).await? > 0 {}
    Ok(())
}

fn client(cert: &Path, alpn: Vec<Vec<u8>>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let cert = CertificateDer::from_pem_file(cert).expect("a certificate");
    roots.add(cert).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn;
    TlsConnector::from(Arc::new(config))
}

/// A socket on which some of the bytes written are changed: how many pass, then what is done to one.
struct Bending {
    socket: TcpStream,
    bends: std::vec::IntoIter<[u8; 3]>,
    next: Option<(usize, u8)>,
    /// Changed, and not taken by the socket yet.
    owed: Vec<u8>,
}

impl Bending {
    fn new(socket: TcpStream, bends: &[u8]) -> Self {
        let (all, _) = bends.as_chunks::<3>();
        let mut bending = Self {
            socket,
            bends: all.to_vec().into_iter(),
            next: None,
            owed: Vec::new(),
        };
        bending.turn();
        bending
    }

    fn turn(&mut self) {
        self.next = self.bends.next().map(|[high, low, with]| {
            // Nearly all of a handshake is in its first kilobyte.
            let pass = usize::from(u16::from_be_bytes([high, low]) & 0x3ff);
            (pass, with)
        });
    }

    fn poll_owed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.owed.is_empty() {
            let n = ready!(Pin::new(&mut self.socket).poll_write(cx, &self.owed))?;
            self.owed.drain(..n);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Bending {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Bending {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_owed(cx))?;
        for &byte in data {
            let byte = match &mut self.next {
                Some((0, with)) => {
                    let bent = byte ^ *with;
                    self.turn();
                    bent
                }
                Some((pass, _)) => {
                    *pass -= 1;
                    byte
                }
                None => byte,
            };
            self.owed.push(byte);
        }
        let _ = self.poll_owed(cx)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_owed(cx))?;
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_owed(cx))?;
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
