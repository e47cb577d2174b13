//! The configuration a test's daemon is started with.

use std::fmt::Write;
use std::path::Path;

use crate::postgres::{Cluster, SUPERUSER};

/// What differs from test to test; the rest is as a user's first configuration.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// Regions by name, with the port of each one's server.
    pub regions: Vec<(String, u16)>,
    /// The name or address of all of them.
    pub host: String,
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
    /// How long a server may be silent before it counts as away. More than the default: the machine
    /// of the tests is a busy one, and a server that is gone says so at once there.
    pub silence: String,
    /// How long a fence waits for requests before it fences their SQL.
    pub http_deadline: String,
    /// The driver's section.
    pub driver: String,
    /// The HTTP listener, if there is one.
    pub front: Option<HttpOptions>,
    /// The whole of the group's sections in place of what is above: regions, listeners, observer. The
    /// group is `main` and its times are as above.
    pub group: Option<String>,
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
    /// A group without a database: its regions and listeners as TOML, the first region primary.
    #[must_use]
    pub fn without_database(primary: &str, group: &str) -> Self {
        Self {
            primary: primary.to_owned(),
            group: Some(group.to_owned()),
            driver: String::new(),
            ..Self::new(&[])
        }
    }

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
            host: "127.0.0.1".to_owned(),
            answer: "hold".to_owned(),
            begin: "auto".to_owned(),
            scope: "writes".to_owned(),
            hold: "20s".to_owned(),
            grace: "3s".to_owned(),
            deadline: "8s".to_owned(),
            budget: "15s".to_owned(),
            observer: SUPERUSER.to_owned(),
            silence: "10s".to_owned(),
            http_deadline: "5s".to_owned(),
            driver: "kind = \"postgres\"".to_owned(),
            front: None,
            group: None,
            region: String::new(),
            listen: "auth = \"trust\"".to_owned(),
            extra: String::new(),
        }
    }

    /// Times that are not over on a machine which stands still for seconds: for tests that nothing
    /// ends by.
    pub fn be_patient(&mut self) {
        "10s".clone_into(&mut self.grace);
        "20s".clone_into(&mut self.deadline);
        "40s".clone_into(&mut self.budget);
        "60s".clone_into(&mut self.hold);
    }

    /// The file's text.
    pub(super) fn config(&self, folder: &Path, port: u16, admin_port: u16) -> String {
        let Self {
            primary,
            host,
            answer,
            begin,
            scope,
            hold,
            grace,
            deadline,
            budget,
            observer,
            silence,
            http_deadline,
            driver,
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
                "[group.main.region.{name}]\npostgres = \"host={host} port={port}\"\n{http}{region}\n"
            );
        }
        let front = self.front.as_ref().map(|http| {
            let HttpOptions { port, keys, .. } = http;
            format!(
                "[[group.main.listen]]\nkind = \"http\"\naddress = \"127.0.0.1:{port}\"\n{keys}\n"
            )
        });
        let front = front.unwrap_or_default();
        let group = self.group.clone().unwrap_or_else(|| {
            format!(
                "{regions}\n[[group.main.listen]]\nkind = \"postgres\"\n\
                 address = \"127.0.0.1:{port}\"\n{listen}\n\n{front}\n\
                 [group.main.observer]\nuser = \"{observer}\"\ntimeout = \"{silence}\"\n"
            )
        });
        format!(
            r#"[admin]
socket = "{folder}/admin.sock"
listen = "127.0.0.1:{admin_port}"
state_dir = "{folder}/state"

[group.main]
primary = "{primary}"
{group}
[group.main.driver]
{driver}
[group.main.fence]
answer = "{answer}"
begin = "{begin}"
scope = "{scope}"
hold = "{hold}"
http_deadline = "{http_deadline}"
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
