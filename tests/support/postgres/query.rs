//! Talking to a cluster: one connection per question, results as text.
//!
//! Like psql: the simple protocol, so that any statement works and nothing has a type.

use anyhow::{Context, Result};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::Cluster;

/// Rows as text; none is NULL.
pub type Rows = Vec<Vec<Option<String>>>;

impl Cluster {
    /// A connection of its own to `database` as `user`.
    ///
    /// # Errors
    /// The server doesn't answer or refuses the login.
    pub async fn connect(&self, user: &str, database: &str) -> Result<Client> {
        connect(self.port(), user, database)
            .await
            .with_context(|| format!("log in to cluster {}", self.name()))
    }

    /// Runs `sql` as the owner and gives the rows of all its statements.
    ///
    /// # Errors
    /// No connection, or the server's error.
    pub async fn query(&self, sql: &str) -> Result<Rows> {
        let client = self.connect(super::SUPERUSER, "postgres").await?;
        rows(&client, sql)
            .await
            .with_context(|| format!("on cluster {}: {sql}", self.name()))
    }

    /// The first column of the first row.
    ///
    /// # Errors
    /// As [`Cluster::query`], or there was no row, or it was NULL.
    pub async fn value(&self, sql: &str) -> Result<String> {
        let first = self
            .query(sql)
            .await?
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().next());
        first
            .flatten()
            .with_context(|| format!("no value from {sql}"))
    }

    /// Whether the server is a standby now.
    ///
    /// # Errors
    /// As [`Cluster::query`].
    pub async fn in_recovery(&self) -> Result<bool> {
        Ok(self.value("SELECT pg_is_in_recovery()").await? == "t")
    }
}

/// Connects to any port on loopback, a cluster's or a proxy's.
///
/// # Errors
/// As tokio-postgres says.
pub async fn connect(
    port: u16,
    user: &str,
    database: &str,
) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = Config::new()
        .host("127.0.0.1")
        .port(port)
        .user(user)
        .dbname(database)
        .application_name("test")
        .connect(NoTls)
        .await?;
    // It ends with its client; an error reaches the client's next call.
    tokio::spawn(connection);
    Ok(client)
}

/// Runs `sql` on a connection.
///
/// # Errors
/// As tokio-postgres says.
pub async fn rows(client: &Client, sql: &str) -> Result<Rows, tokio_postgres::Error> {
    let mut rows = Vec::new();
    for message in client.simple_query(sql).await? {
        if let SimpleQueryMessage::Row(row) = message {
            rows.push(
                (0..row.len())
                    .map(|i| row.get(i).map(str::to_owned))
                    .collect(),
            );
        }
    }
    Ok(rows)
}
