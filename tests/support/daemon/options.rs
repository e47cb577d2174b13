//! The configuration a test's daemon is started with.

use std::fmt::Write;
use std::path::Path;

use crate::postgres::{Cluster, SUPERUSER};

/// What differs from test to test; the rest is as a user's first configuration.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// Regions by name, with the port of each one's server.
    pub regions: Vec<(String, u16)>,
    /// Regions that have an HTTP origin, with its port.
    pub http: Vec<(String, u16)>,
    /// The region that is primary at the first start.
    pub primary: String,
    /// `hold` or `reject`.
    pub answer: String,
    /// What a BEGIN meets: `auto`, `defer` or `hold`.
    pub begin: String,
    /// What is fenced: `writes` or `all`.
    pub scope: String,
    /// How long a held write may wait.
    pub hold: String,
    /// How long open transactions may go on as they are.
    pub grace: String,
    /// When a drain gives up.
    pub deadline: String,
    /// When a switchover rolls back.
    pub budget: String,
    /// Login of the daemon's own observer.
    pub observer: String,
    /// The HTTP listener, if there is one.
    pub front: Option<HttpOptions>,
    /// TOML of each region, beside its address.
    pub region: String,
    /// TOML of the listener, beside its address.
    pub listen: String,
    /// TOML that is appended.
    pub extra: String,
}

/// An HTTP listener and what is behind it.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    /// Where clients connect.
    pub port: u16,
    /// Keys of each region, in the order of the regions.
    pub regions: Vec<String>,
    /// Keys of the listener, and its routes.
    pub keys: String,
}

impl HttpOptions {
    /// A listener with the defaults, before servers on these ports.
    ///
    /// # Errors
    /// No port is free.
    pub fn new(origins: &[u16]) -> anyhow::Result<Self> {
        let region = |port: &u16| format!("http = \"http://127.0.0.1:{port}\"\n");
        Ok(Self {
            port: crate::ports::free_port()?,
            regions: origins.iter().map(region).collect(),
            keys: String::new(),
        })
    }
}

impl DaemonOptions {
    /// A group over these clusters, the first of which is primary; times are the defaults.
    #[must_use]
    pub fn new(clusters: &[&Cluster]) -> Self {
        let regions: Vec<(String, u16)> = clusters
            .iter()
            .map(|cluster| (cluster.name().to_owned(), cluster.port()))
            .collect();
        Self {
            primary: regions
                .first()
                .map(|region| region.0.clone())
                .unwrap_or_default(),
            regions,
            http: Vec::new(),
            answer: "hold".to_owned(),
            begin: "auto".to_owned(),
            scope: "writes".to_owned(),
            hold: "20s".to_owned(),
            grace: "3s".to_owned(),
            deadline: "8s".to_owned(),
            budget: "15s".to_owned(),
            observer: SUPERUSER.to_owned(),
            front: None,
            region: String::new(),
            listen: "auth = \"trust\"".to_owned(),
            extra: String::new(),
        }
    }

    /// The file's text.
    pub(super) fn config(&self, folder: &Path, port: u16, admin_port: u16) -> String {
        let Self {
            primary,
            answer,
            begin,
            scope,
            hold,
            grace,
            deadline,
            budget,
            observer,
            region,
            listen,
            extra,
            ..
        } = self;
        let folder = folder.display();
        let mut regions = String::new();
        for (at, (name, port)) in self.regions.iter().enumerate() {
            let http = self.front.as_ref().and_then(|front| front.regions.get(at));
            let http = http.map(String::as_str).unwrap_or_default();
            // Writing to a string does not fail.
            let _ = write!(
                regions,
                "[group.main.region.{name}]\npostgres = \"host=127.0.0.1 port={port}\"\n{region}\n{http}"
            );
            if let Some((_, http)) = self.http.iter().find(|(region, _)| region == name) {
                let _ = writeln!(regions, "http = \"http://127.0.0.1:{http}\"");
            }
        }
        let front = self.front.as_ref().map(|http| {
            let HttpOptions { port, keys, .. } = http;
            format!(
                "[[group.main.listen]]\nkind = \"http\"\naddress = \"127.0.0.1:{port}\"\n{keys}\n"
            )
        });
        let front = front.unwrap_or_default();
        format!(
            r#"[admin]
socket = "{folder}/admin.sock"
listen = "127.0.0.1:{admin_port}"
state_dir = "{folder}/state"

[group.main]
primary = "{primary}"
{regions}
[[group.main.listen]]
kind = "postgres"
address = "127.0.0.1:{port}"
{listen}

{front}
[group.main.observer]
user = "{observer}"
[group.main.driver]
kind = "postgres"
[group.main.fence]
answer = "{answer}"
begin = "{begin}"
scope = "{scope}"
hold = "{hold}"
[group.main.drain]
grace = "{grace}"
deadline = "{deadline}"
[group.main.run]
budget = "{budget}"
{extra}
"#
        )
    }
}
