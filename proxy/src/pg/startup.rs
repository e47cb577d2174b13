//! What a client says before its first statement: SSL and GSS requests, cancel, startup packet.
//!
//! Each request is allowed once and in PostgreSQL's order; lengths are checked before anything is
//! read, and nothing is read beyond a message. Who encrypts the connection is `negotiate`.
//! (PostgreSQL 18, 54.2.1 "Start-up" and 54.7.)

use std::time::Duration;

use bytes::BytesMut;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::startup::NegotiateProtocolVersion;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::cstr;

const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;

/// PostgreSQL's own limit for a startup packet (MAX_STARTUP_PACKET_LENGTH).
const MAX_STARTUP: u32 = 10_000;

/// First byte of a TLS record: the client speaks TLS without having asked.
pub(super) const TLS_HANDSHAKE: u8 = 0x16;

/// Terminate, read as the length of a startup packet: a client that was told to leave before it had
/// begun (node-postgres does so). PostgreSQL closes without a word.
const FAREWELL: u32 = u32::from_be_bytes(*b"X\0\0\0");

/// What a connection turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    Session(Startup),
    Cancel {
        id: u32,
        secret: Vec<u8>,
    },
    /// It connected and left; load balancers do that to see whether somebody listens, and drivers
    /// where the application closes before the connection is there.
    Nothing,
}

/// A startup packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Startup {
    /// Protocol minor version asked for.
    pub(crate) minor: u16,
    /// Parameters in order, without protocol options.
    pub(crate) params: Vec<(String, String)>,
    /// Protocol options (`_pq_.…`) that are not known here.
    pub(crate) options: Vec<String>,
}

/// The newest minor version spoken, in full as PostgreSQL's own servers name it: libpq refuses a
/// bare minor version.
const NEWEST: u16 = 2;

impl Startup {
    /// The minor version that is spoken with this client.
    pub(crate) fn spoken(&self) -> u16 {
        self.minor.min(NEWEST)
    }

    /// What a client has to hear before anything else if it asked for what is not spoken here: the
    /// version that is, and the options that are not known.
    pub(crate) fn negotiation(&self) -> Option<Vec<u8>> {
        if self.minor <= NEWEST && self.options.is_empty() {
            return None;
        }
        let version = (3 << 16) | i32::from(self.spoken());
        let message = NegotiateProtocolVersion::new(version, self.options.clone());
        let mut out = BytesMut::new();
        PgWireBackendMessage::NegotiateProtocolVersion(message)
            .encode(&mut out)
            .ok()?;
        Some(out.to_vec())
    }

    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// A name that comes twice has its last value, as it has on a server. Passed on twice, whoever is
    /// let in here by the first could be somebody else there.
    fn say(&mut self, name: String, value: String) {
        match self.params.iter_mut().find(|(n, _)| *n == name) {
            Some((_, before)) => *before = value,
            None => self.params.push((name, value)),
        }
    }
}

/// Why a connection is not taken.
#[derive(Debug, Error)]
pub(crate) enum HelloError {
    #[error("reading or writing failed")]
    Io(#[from] std::io::Error),
    #[error("no startup packet within {0:?}")]
    Slow(Duration),
    #[error("the first message is {0} bytes long; between 8 and {MAX_STARTUP} are accepted")]
    Length(u32),
    #[error("this looks like TLS; this listener speaks plain text (sslmode=disable or prefer)")]
    Tls,
    #[error("this looks like TLS, after the request for it was settled or before it was answered")]
    TlsLate,
    #[error("TLS without a request for it has to name the protocol (ALPN \"postgresql\")")]
    NoAlpn,
    #[error("plain bytes were sent behind the request for TLS and before it was answered")]
    Early,
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
    #[error("this listener takes encrypted connections only")]
    MustEncrypt,
    #[error("{0} was asked for twice")]
    Twice(&'static str),
    #[error("protocol version {0}.{1} is not spoken; 3.x is")]
    Version(u16, u16),
    #[error("the startup packet is malformed: {0}")]
    Malformed(&'static str),
}

/// What was asked for on a connection so far.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(super) ssl: bool,
    gss: bool,
}

/// What a client says up to the point where somebody else has to act.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Hello(Hello),
    /// It asks for TLS, and there is TLS; nothing is answered yet.
    Encrypt,
}

/// Reads what the client wants, answering "no" to GSS requests, and to those for TLS where
/// there is none to have.
pub(crate) async fn read_hello<S>(
    stream: &mut S,
    asked: &mut Asked,
    tls: bool,
) -> Result<Heard, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let mut length = [0; 4];
        if stream.read(length.get_mut(..1).unwrap_or_default()).await? == 0 {
            return Ok(Heard::Hello(Hello::Nothing));
        }
        if length.first() == Some(&TLS_HANDSHAKE) {
            return Err(if tls || asked.ssl {
                HelloError::TlsLate
            } else {
                HelloError::Tls
            });
        }
        stream
            .read_exact(length.get_mut(1..).unwrap_or_default())
            .await?;
        let length = u32::from_be_bytes(length);
        if length == FAREWELL {
            return Ok(Heard::Hello(Hello::Nothing));
        }
        if !(8..=MAX_STARTUP).contains(&length) {
            return Err(HelloError::Length(length));
        }
        let mut rest = vec![0; length as usize - 4];
        stream.read_exact(&mut rest).await?;
        let (code, body) = rest
            .split_first_chunk::<4>()
            .ok_or(HelloError::Length(length))?;
        match u32::from_be_bytes(*code) {
            SSL if asked.ssl => return Err(HelloError::Twice("SSL")),
            GSSENC if asked.gss => return Err(HelloError::Twice("GSS encryption")),
            SSL if tls => {
                asked.ssl = true;
                return Ok(Heard::Encrypt);
            }
            code @ (SSL | GSSENC) => {
                asked.ssl |= code == SSL;
                asked.gss |= code == GSSENC;
                stream.write_all(b"N").await?;
                stream.flush().await?;
            }
            CANCEL => return cancel(body).map(Heard::Hello),
            version => return startup(version, body).map(Hello::Session).map(Heard::Hello),
        }
    }
}

/// Bytes of a cancel key's secret: four in protocol 3.0, up to 256 since 3.2.
const SECRET: std::ops::RangeInclusive<usize> = 4..=256;

fn cancel(body: &[u8]) -> Result<Hello, HelloError> {
    match body.split_first_chunk::<4>() {
        Some((id, secret)) if SECRET.contains(&secret.len()) => Ok(Hello::Cancel {
            id: u32::from_be_bytes(*id),
            secret: secret.to_vec(),
        }),
        Some(_) | None => Err(HelloError::Malformed(
            "a cancel key has 4 to 256 bytes behind its number",
        )),
    }
}

fn startup(version: u32, body: &[u8]) -> Result<Startup, HelloError> {
    let [a, b, c, d] = version.to_be_bytes();
    let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    if major != 3 {
        return Err(HelloError::Version(major, minor));
    }
    let mut found = Startup {
        minor,
        params: Vec::new(),
        options: Vec::new(),
    };
    let mut rest = body;
    loop {
        let (name, after) = cstr(rest).ok_or(HelloError::Malformed("a name does not end"))?;
        if name.is_empty() && !after.is_empty() {
            return Err(HelloError::Malformed("something follows its end"));
        }
        if name.is_empty() {
            break;
        }
        let (value, after) = cstr(after).ok_or(HelloError::Malformed("a value does not end"))?;
        let text = |b: &[u8]| String::from_utf8(b.to_vec());
        let (Ok(name), Ok(value)) = (text(name), text(value)) else {
            return Err(HelloError::Malformed("a name or value is not UTF-8"));
        };
        if name.starts_with("_pq_.") {
            found.options.push(name);
        } else {
            found.say(name, value);
        }
        rest = after;
    }
    if found.param("user").is_none_or(str::is_empty) {
        return Err(HelloError::Malformed("it names no user"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_startup_packet_gives_its_parameters_in_order() {
        let body = b"user\0ann\0database\0shop\0_pq_.x\x001\0\0";
        let found = startup(0x0003_0002, body).expect("valid");
        assert_eq!((found.minor, found.param("database")), (2, Some("shop")));
        assert_eq!(found.options, ["_pq_.x"]);
    }

    #[test]
    fn a_client_is_told_the_newest_version_when_it_asks_for_a_newer_one_or_unknown_options() {
        let ask = |minor: u32, body: &[u8]| {
            let found = startup(0x0003_0000 | minor, body).expect("valid");
            (found.spoken(), found.negotiation())
        };
        let plain = b"user\0ann\0\0";
        assert_eq!(ask(0, plain), (0, None));
        assert_eq!(ask(2, plain), (2, None));
        let grease = b"user\0ann\0_pq_.test_protocol_negotiation\0\0\0";
        let (spoken, told) = ask(9999, grease);
        let mut expected = b"v\0\0\0\x2d\0\x03\0\x02\0\0\0\x01".to_vec();
        expected.extend_from_slice(b"_pq_.test_protocol_negotiation\0");
        expected[4] = u8::try_from(expected.len() - 1).expect("short");
        assert_eq!((spoken, told), (2, Some(expected)));
        let (spoken, told) = ask(0, grease);
        assert_eq!(spoken, 0);
        assert!(told.expect("an unknown option").get(5..9) == Some(&[0, 3, 0, 0]));
    }

    #[test]
    fn a_name_that_comes_twice_has_its_last_value_and_goes_on_once() {
        let body = b"user\0ann\0database\0shop\0user\0root\0database\0vault\0\0";
        let found = startup(0x0003_0000, body).expect("valid");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            found.params,
            [pair("user", "root"), pair("database", "vault")]
        );
    }

    #[test]
    fn garbage_is_named_and_never_panics() {
        for body in [
            &b""[..],
            b"user",
            b"user\0",
            b"user\0ann",
            b"\0",
            b"\xff\0\xff\0\0",
            b"user\0ann\0\0user\0root\0\0",
        ] {
            assert!(
                matches!(startup(0x0003_0000, body), Err(HelloError::Malformed(_))),
                "{body:?}"
            );
        }
        assert!(matches!(
            startup(0x0002_0000, b"\0"),
            Err(HelloError::Version(2, 0))
        ));
        for length in [0, 7, 261] {
            assert!(matches!(
                cancel(&vec![7; length]),
                Err(HelloError::Malformed(_))
            ));
        }
        for length in [8, 36, 260] {
            assert!(matches!(cancel(&vec![7; length]), Ok(Hello::Cancel { .. })));
        }
    }
}
