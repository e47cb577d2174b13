//! From configuration to what stands in files: certificates, users, maps.
//!
//! Loaded before anything is listened on, so that a file that cannot be used keeps the daemon from
//! starting and not a client from logging in; `check` goes the same way and starts nothing. Each
//! part that may change on disk is collected for `watched`.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use writefence_config::{
    self as config, Auth, CertMap, Config, Demand, Listener, Method, PgListener, Verify,
};

use crate::error::StartError;
use crate::pg::auth::{AuthQuery, Users};
use crate::pg::door::Door;
use crate::pg::negotiate::ALPN;
use crate::tls::{ClientFiles, ClientTls, Level, ServerFiles, ServerTls};
use crate::upstream::wire::Login;
use crate::upstream::{Link, Methods, Security, Target};
use crate::watched::{Refresh, Watched};

/// What the mock secrets of unknown users are made of; see [`mock_secret`].
const MOCK_FILE: &str = "auth.secret";

/// What may change on disk.
pub type Parts = Vec<Arc<dyn Refresh>>;

/// How a login is made that asks for secrets.
pub type Ask = Box<dyn Fn(&Target) -> Login + Send + Sync>;

/// How a region's server is spoken to.
///
/// # Errors
/// A file that cannot be used.
pub fn link(group: &str, region: &config::Region, parts: &mut Parts) -> Result<Link, StartError> {
    let key = format!("group.{group}.region.{}.tls", region.name);
    let level = match region.tls.mode {
        Verify::Disable | Verify::Prefer | Verify::Require => Level::Any,
        Verify::VerifyCa => Level::Ca,
        Verify::VerifyFull => Level::Full,
    };
    let tls = || {
        let from = ClientFiles {
            level,
            ca: region.tls.ca.clone(),
            identity: region.tls.identity.clone(),
            alpn: vec![ALPN.to_vec()],
        };
        let made = ClientTls::load(key.clone(), from);
        made.map(Arc::new).map_err(|source| unusable(&key, source))
    };
    let security = match region.tls.mode {
        Verify::Disable => Security::Plain,
        Verify::Prefer => Security::Prefer(tls()?),
        Verify::Require | Verify::VerifyCa | Verify::VerifyFull => Security::Require(tls()?),
    };
    if let Security::Prefer(tls) | Security::Require(tls) = &security {
        parts.push(Arc::clone(tls) as Arc<dyn Refresh>);
    }
    Ok(Link {
        security,
        methods: Methods {
            md5: region.password_methods.contains(&Method::Md5),
            cleartext: region.password_methods.contains(&Method::Cleartext),
        },
    })
}

/// A listener's rules. `ask` is the login for its `auth_query`.
///
/// # Errors
/// A file that cannot be used.
pub fn door(
    group: &str,
    listener: &PgListener,
    mock: [u8; 32],
    ask: Ask,
    parts: &mut Parts,
) -> Result<Door, StartError> {
    let key = |name| format!("group.{group}.listen[{}].{name}", listener.address);
    let mut door = Door {
        auth: listener.auth,
        users: listener.users.clone().map(|all| all.into_iter().collect()),
        databases: listener
            .databases
            .clone()
            .map(|all| all.into_iter().collect()),
        mock,
        ..Door::trusting()
    };
    if let Some(tls) = &listener.tls {
        let made = Arc::new(server_tls(key("tls"), tls, vec![ALPN.to_vec()])?);
        parts.push(Arc::clone(&made) as Arc<dyn Refresh>);
        door.tls = Some(made);
        door.must_encrypt = tls.mode != Demand::Allow;
    }
    if let Some(path) = listener.users_file.clone() {
        let load = {
            let path = path.clone();
            move || Users::load(&path)
        };
        let made = Watched::new(key("users_file"), vec![path], load);
        let made =
            Arc::new(made.map_err(|what| unusable(&key("users_file"), io::Error::other(what)))?);
        parts.push(Arc::clone(&made) as Arc<dyn Refresh>);
        door.secrets = Some(made);
    }
    if let Some(path) = listener.cert_map.clone() {
        let load = {
            let path = path.clone();
            move || CertMap::load(&path)
        };
        let made = Watched::new(key("cert_map"), vec![path], load);
        let made =
            Arc::new(made.map_err(|what| unusable(&key("cert_map"), io::Error::other(what)))?);
        parts.push(Arc::clone(&made) as Arc<dyn Refresh>);
        door.cert_map = Some(made);
    }
    door.query = listener
        .auth_query
        .clone()
        .filter(|_| listener.auth == Auth::Scram)
        .map(|sql| AuthQuery::new(sql, ask));
    Ok(door)
}

/// A listener's certificates, for any front; `key` is where the configuration has them.
///
/// # Errors
/// A file that cannot be used.
pub fn server_tls(
    key: String,
    tls: &config::ServerTls,
    alpn: Vec<Vec<u8>>,
) -> Result<ServerTls, StartError> {
    let from = ServerFiles {
        cert: tls.cert.clone(),
        key: tls.key.clone(),
        client_ca: tls.client_ca.clone(),
        client_must: tls.mode == Demand::VerifyCa,
        alpn,
    };
    ServerTls::load(key.clone(), from).map_err(|source| unusable(&key, source))
}

/// Everything that `check` has to see before somebody believes in a file.
pub fn problems(config: &Config) -> Vec<StartError> {
    let mut found = Vec::new();
    let mut parts = Vec::new();
    for group in &config.groups {
        for region in &group.regions {
            found.extend(link(&group.name, region, &mut parts).err());
        }
        for listener in group.listeners.iter().filter_map(Listener::postgres) {
            let ask: Ask = Box::new(|_| Login {
                params: Vec::new(),
                proof: Default::default(),
                timeout: std::time::Duration::ZERO,
            });
            found.extend(door(&group.name, listener, [0; 32], ask, &mut parts).err());
        }
    }
    found
}

fn unusable(key: &str, source: impl std::error::Error + Send + Sync + 'static) -> StartError {
    StartError::Material {
        key: key.to_owned(),
        source: Box::new(source),
    }
}

/// The secret that unknown users' salts are made of. It is kept, since a salt that changes with a
/// restart tells that there is no such user.
///
/// # Errors
/// It can neither be read nor made.
pub fn mock_secret(state_dir: &Path) -> io::Result<[u8; 32]> {
    let path = state_dir.join(MOCK_FILE);
    if let Ok(known) = fs::read(&path)
        && let Ok(known) = <[u8; 32]>::try_from(known)
    {
        return Ok(known);
    }
    let made: [u8; 32] = rand::random();
    let new = state_dir.join(format!("{MOCK_FILE}.new"));
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&made)?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    Ok(made)
}
