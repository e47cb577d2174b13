//! Certificates for tests: a CA in a folder that everybody may look into, and what it issues.
//!
//! Keys belong to the account that the servers and libpq's programs run under, since both refuse
//! keys that others may read; the daemon, which starts them, reads them as well.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::postgres::Programs;

/// A CA.
#[derive(Debug)]
pub struct Pki {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
    programs: Programs,
}

/// Until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Valid {
    /// For years to come.
    Long,
    /// It was, years ago.
    Expired,
}

impl Pki {
    /// A CA of its own, in `ca.pem`.
    ///
    /// # Errors
    /// The files can't be written.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("writefence-pki-")
            .tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let name = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        fs::write(folder.path().join("ca.pem"), cert.pem())?;
        let issuer = Issuer::new(params, key);
        let programs = Programs::find()?;
        Ok(Self {
            folder,
            issuer,
            programs,
        })
    }

    /// A file in its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Issues `NAME.pem` and `NAME.key` for a common name and hosts.
    ///
    /// # Errors
    /// The files can't be written.
    pub fn issue(&self, name: &str, common: &str, hosts: &[&str], valid: Valid) -> Result<()> {
        let hosts: Vec<String> = hosts.iter().map(|&host| host.to_owned()).collect();
        let mut params = CertificateParams::new(hosts)?;
        params.distinguished_name.push(DnType::CommonName, common);
        let (from, to) = match valid {
            Valid::Long => (2000, 2200),
            Valid::Expired => (2000, 2001),
        };
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        // The key first: who looks in between finds a pair that does not fit and keeps the old one.
        self.secret(&format!("{name}.key"), &key.serialize_pem())?;
        fs::write(self.path(&format!("{name}.pem")), cert.pem())?;
        Ok(())
    }

    /// A file that only its owner may read.
    ///
    /// # Errors
    /// It can't be written.
    pub fn secret(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        self.programs.own(&path)?;
        Ok(path)
    }

    /// Settings with which a cluster speaks TLS with a certificate of this CA.
    #[must_use]
    pub fn server(&self, name: &str) -> Vec<(String, String)> {
        let file = |end| self.path(&format!("{name}.{end}")).display().to_string();
        vec![
            ("ssl".to_owned(), "on".to_owned()),
            ("ssl_cert_file".to_owned(), file("pem")),
            ("ssl_key_file".to_owned(), file("key")),
        ]
    }
}
