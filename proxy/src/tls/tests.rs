//! Handshakes between our two sides, with certificates made for each test.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use ring::digest::{SHA256, SHA384, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::watched::Refresh;

struct Ca {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "test ca");
        let key = KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca.pem"), cert.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Files `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str, hosts: &[&str], days: (i32, i32)) {
        let hosts: Vec<_> = hosts.iter().map(|&h| h.to_owned()).collect();
        let mut params = CertificateParams::new(hosts).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(days.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(days.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.path(&format!("{name}.pem")), cert.pem()).unwrap();
        fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn server(&self, name: &str, client_must: bool) -> ServerTls {
        let from = ServerFiles {
            cert: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            client_ca: Some(self.path("ca.pem")),
            client_must,
            alpn: vec![b"postgresql".to_vec()],
        };
        ServerTls::load("test".into(), from).unwrap()
    }

    fn client(&self, level: Level, identity: Option<&str>) -> ClientTls {
        let identity = identity.map(|name| {
            let file = |end| self.path(&format!("{name}.{end}"));
            (file("pem"), file("key"))
        });
        let from = ClientFiles {
            level,
            ca: Some(self.path("ca.pem")),
            identity,
            alpn: vec![b"postgresql".to_vec()],
        };
        ClientTls::load("test".into(), from).unwrap()
    }
}

const GOOD: (i32, i32) = (2000, 2200);

/// One conversation of four bytes; both ends, or the client's error.
async fn talk(
    server: &ServerTls,
    client: &ClientTls,
    host: &str,
) -> Result<(Stream, Stream), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let material = server.current();
    let serving = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut stream = Stream::accept(socket, &material).await?;
        stream.write_all(b"ping").await?;
        stream.flush().await?;
        Ok::<_, std::io::Error>(stream)
    });
    let socket = TcpStream::connect(address).await.unwrap();
    let mut stream = client
        .connect(socket, host)
        .await
        .map_err(|e| e.to_string())?;
    let mut got = [0; 4];
    stream
        .read_exact(&mut got)
        .await
        .map_err(|e| e.to_string())?;
    assert_eq!(&got, b"ping");
    Ok((serving.await.unwrap().unwrap(), stream))
}

#[tokio::test]
async fn each_level_checks_what_its_word_says() {
    let (ca, other) = (Ca::new(), Ca::new());
    ca.issue("server", &["db.test"], GOOD);
    ca.issue("expired", &["db.test"], (2000, 2001));
    let server = ca.server("server", false);
    for level in [Level::Any, Level::Ca, Level::Full] {
        let (_, ours) = talk(&server, &ca.client(level, None), "db.test")
            .await
            .unwrap();
        assert_eq!(ours.alpn(), Some(&b"postgresql"[..]));
    }
    let said = talk(&server, &ca.client(Level::Full, None), "db2.test").await;
    assert!(said.unwrap_err().contains("not valid for name"));
    assert!(
        talk(&server, &ca.client(Level::Ca, None), "db2.test")
            .await
            .is_ok()
    );
    let said = talk(&server, &other.client(Level::Ca, None), "db.test").await;
    assert!(said.unwrap_err().contains("UnknownIssuer"));
    assert!(
        talk(&server, &other.client(Level::Any, None), "db.test")
            .await
            .is_ok()
    );
    let expired = ca.server("expired", false);
    let said = talk(&expired, &ca.client(Level::Ca, None), "db.test").await;
    assert!(said.unwrap_err().contains("expired"));
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_where_it_is_the_ca_itself() {
    let ca = Ca::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    // As `openssl req -x509` makes them: a CA of its own, and no alternative name.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "db.test");
    let cert = params.self_signed(&key).unwrap();
    fs::write(ca.path("ca.pem"), cert.pem()).unwrap();
    fs::write(ca.path("own.pem"), cert.pem()).unwrap();
    fs::write(ca.path("own.key"), key.serialize_pem()).unwrap();
    let server = ca.server("own", false);
    talk(&server, &ca.client(Level::Full, None), "db.test")
        .await
        .unwrap();
    let said = talk(&server, &ca.client(Level::Full, None), "other.test").await;
    assert!(said.unwrap_err().contains("not valid for name"));
}

#[tokio::test]
async fn a_client_certificate_is_demanded_and_shown() {
    let ca = Ca::new();
    ca.issue("server", &["db.test"], GOOD);
    ca.issue("ann", &[], GOOD);
    let must = ca.server("server", true);
    assert!(
        talk(&must, &ca.client(Level::Full, None), "db.test")
            .await
            .is_err()
    );
    let (theirs, _) = talk(&must, &ca.client(Level::Full, Some("ann")), "db.test")
        .await
        .unwrap();
    let shown = theirs.peer_certificate().and_then(|cert| common_name(cert));
    assert_eq!(shown.as_deref(), Some("ann"));
}

#[tokio::test]
async fn a_changed_certificate_is_shown_to_newcomers_and_touches_nobody_else() {
    let ca = Ca::new();
    ca.issue("server", &["db.test"], GOOD);
    let server = ca.server("server", false);
    let client = ca.client(Level::Full, None);
    let (mut theirs, mut ours) = talk(&server, &client, "db.test").await.unwrap();
    let before = ours.peer_end_point();
    assert_eq!(before.as_deref(), server.current().end_point.as_deref());
    ca.issue("server", &["db.test"], GOOD);
    server.refresh();
    let (_, newer) = talk(&server, &client, "db.test").await.unwrap();
    assert_ne!(newer.peer_end_point(), before);
    // A certificate without its key is no reason to stop serving.
    ca.issue("stray", &["db.test"], GOOD);
    fs::copy(ca.path("stray.pem"), ca.path("server.pem")).unwrap();
    server.refresh();
    let (_, still) = talk(&server, &client, "db.test").await.unwrap();
    assert_eq!(still.peer_end_point(), newer.peer_end_point());
    theirs.write_all(b"more").await.unwrap();
    theirs.flush().await.unwrap();
    let mut got = [0; 4];
    ours.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"more");
}

fn der(path: &Path) -> Vec<u8> {
    CertificateDer::from_pem_file(path).unwrap().to_vec()
}

#[test]
fn the_hash_for_channel_binding_is_that_of_the_signature() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cert.pem");
    let made = |algorithm| {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let cert = CertificateParams::default().self_signed(&key).unwrap();
        fs::write(&path, cert.pem()).unwrap();
        der(&path)
    };
    let p256 = made(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert_eq!(end_point(&p256).unwrap(), digest(&SHA256, &p256).as_ref());
    let p384 = made(&rcgen::PKCS_ECDSA_P384_SHA384);
    assert_eq!(end_point(&p384).unwrap(), digest(&SHA384, &p384).as_ref());
    // RFC 5929 defines none where the signature has no hash of its own.
    assert_eq!(end_point(&made(&rcgen::PKCS_ED25519)), None);
    assert_eq!(end_point(b"no certificate"), None);
}

#[test]
fn what_cannot_be_used_is_named_with_its_file() {
    let ca = Ca::new();
    ca.issue("a", &[], GOOD);
    ca.issue("b", &[], GOOD);
    let load = |cert: &str, key: &str| {
        let from = ServerFiles {
            cert: ca.path(cert),
            key: ca.path(key),
            client_ca: None,
            client_must: false,
            alpn: Vec::new(),
        };
        ServerTls::load("test".into(), from).unwrap_err()
    };
    assert!(
        matches!(load("a.pem", "b.key"), TlsError::Mismatch { key, .. } if key == ca.path("b.key"))
    );
    assert!(matches!(
        load("a.key", "a.key"),
        TlsError::Lacks {
            wanted: "certificate",
            ..
        }
    ));
    assert!(
        matches!(load("a.pem", "a.pem"), TlsError::Lacks { path, .. } if path == ca.path("a.pem"))
    );
    assert!(
        matches!(load("none", "a.key"), TlsError::Unreadable { path, .. } if path == ca.path("none"))
    );
}
