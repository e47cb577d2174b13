//! TLS on both legs: what a listener demands of clients, and how a server is checked.
//!
//! The words are those that operators know: PgBouncer's `client_tls_sslmode` on a listener, libpq's
//! `sslmode` towards a server. Whether the files can be read is checked here, what is in them where
//! they are used, since they change while the daemon runs.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::error::ProblemKind;
use crate::raw::{Findings, Section};
use crate::value::{self, Word, Wrong};

const PUBLIC: &str = "a PEM file of certificates";
const PRIVATE: &str =
    "a PEM file with a private key that is closed to other users (mode 0640 or less)";

/// What a listener asks of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// TLS is not spoken.
    Disable,
    /// Clients may use TLS.
    Allow,
    /// Clients must use TLS.
    Require,
    /// Clients must use TLS and have a certificate of `client_ca`.
    VerifyCa,
}

/// `tls.*` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// What is asked of clients.
    pub mode: Demand,
    /// Our certificate, then those that link it to its CA.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// CAs of client certificates; given, clients are asked for theirs.
    pub client_ca: Option<PathBuf>,
}

/// How far a server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// TLS is not spoken.
    Disable,
    /// TLS where the server has it, whoever the server is.
    Prefer,
    /// TLS, whoever the server is.
    Require,
    /// A certificate of the CA.
    VerifyCa,
    /// A certificate of the CA for the host's name.
    VerifyFull,
}

/// `tls.*` of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionTls {
    /// How far the server is checked.
    pub mode: Verify,
    /// Its CAs; none: those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate with its private key, for servers that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ServerTls {
    /// Reads `tls.*` of a listener; `None` without TLS or with a problem.
    pub(crate) fn read(
        listener: &Section<'_>,
        default: Demand,
        found: &mut Findings<'_>,
    ) -> Option<Self> {
        if !listener.is_given("tls") {
            return None;
        }
        let section = listener.section("tls");
        let mode = section.word("mode", default, found);
        let client_ca = section.read("client_ca", found, public);
        if mode == Demand::Disable {
            return None;
        }
        if mode == Demand::VerifyCa && !section.is_given("client_ca") {
            missing(
                &section,
                "client_ca",
                "the CAs of the clients' certificates",
                found,
            );
        }
        let cert = section.require("cert", found, PUBLIC, public);
        let key = section.require("key", found, PRIVATE, private);
        Some(Self {
            mode,
            cert: cert?,
            key: key?,
            client_ca,
        })
    }
}

impl RegionTls {
    pub(crate) fn read(region: &Section<'_>, found: &mut Findings<'_>) -> Self {
        let section = region.section("tls");
        let ca = section.read("ca", found, public);
        let default = match section.is_given("ca") {
            true => Verify::VerifyFull,
            false => Verify::Prefer,
        };
        let mode = section.word("mode", default, found);
        if mode == Verify::VerifyCa && !section.is_given("ca") {
            // With the system's CAs every owner of any certificate would pass.
            missing(
                &section,
                "ca",
                "the CA of the server, or mode = \"verify-full\"",
                found,
            );
        }
        if matches!(mode, Verify::Disable | Verify::Prefer | Verify::Require)
            && section.is_given("ca")
        {
            let wrong = Wrong::value(
                "is not looked at under this mode",
                "mode = \"verify-full\" or \"verify-ca\", or no ca",
            );
            found.problem(
                section.at("ca"),
                section.path("ca"),
                ProblemKind::Conflict,
                wrong,
            );
        }
        let cert = section.read("cert", found, public);
        let key = section.read("key", found, private);
        for (one, other) in [("cert", "key"), ("key", "cert")] {
            if section.is_given(one) && !section.is_given(other) {
                missing(&section, other, "certificate and key together", found);
            }
        }
        Self {
            mode,
            ca,
            identity: cert.zip(key),
        }
    }
}

fn missing(section: &Section<'_>, key: &str, accepted: &str, found: &mut Findings<'_>) {
    let wrong = Wrong::value("must be given", accepted);
    found.problem(
        section.start(),
        section.path(key),
        ProblemKind::Missing,
        wrong,
    );
}

fn public(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(value::text(PUBLIC)(value)?);
    readable(&path, PUBLIC)?;
    Ok(path)
}

fn private(value: &DeValue<'_>) -> Result<PathBuf, Wrong> {
    let path = PathBuf::from(value::text(PRIVATE)(value)?);
    closed(&path, PRIVATE)?;
    Ok(path)
}

fn readable(path: &Path, accepted: &str) -> Result<u32, Wrong> {
    let unreadable = |e: std::io::Error| Wrong::value(format!("cannot be read: {e}"), accepted);
    let metadata = File::open(path)
        .and_then(|file| file.metadata())
        .map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(Wrong::value("is not a plain file", accepted));
    }
    Ok(metadata.permissions().mode() & 0o777)
}

/// A file with secrets: a group may read it, since that is how orchestrators hand it over.
pub(crate) fn closed(path: &Path, accepted: &str) -> Result<(), Wrong> {
    let mode = readable(path, accepted)?;
    if mode & 0o007 != 0 {
        let what = format!("has mode {mode:04o}, so every user may read it");
        return Err(Wrong::value(what, accepted));
    }
    Ok(())
}

impl Word for Demand {
    // The second words for one thing are PgBouncer's.
    const WORDS: &'static [(&'static str, Self)] = &[
        ("disable", Self::Disable),
        ("allow", Self::Allow),
        ("prefer", Self::Allow),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyCa),
    ];
}

impl Word for Verify {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("disable", Self::Disable),
        ("prefer", Self::Prefer),
        ("require", Self::Require),
        ("verify-ca", Self::VerifyCa),
        ("verify-full", Self::VerifyFull),
    ];
}
