//! Sessions of the shapes that tokio-postgres can play.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Config, Error, NoTls, Statement};

use super::op::{Failure, Sent};
use super::session::{Endpoint, Who};
use super::shape::Shape;
use super::stateful;

/// A login that takes longer is as good as refused.
const CONNECT: Duration = Duration::from_secs(10);

/// The driver's client with what its shape keeps per connection.
#[derive(Debug)]
pub(super) struct Driver {
    client: Client,
    prepared: Option<Statement>,
    /// Ends with the connection; its error is the server's last word.
    connection: JoinHandle<Option<String>>,
}

/// Ends a transaction that failed before its COMMIT.
pub(super) async fn rolled_back(client: &Client, error: &Error) -> Failure {
    let mut failure = Failure::of(error, Sent::No);
    if !failure.lost {
        failure.lost = client.batch_execute("ROLLBACK").await.is_err();
    }
    failure
}

impl Driver {
    pub(super) async fn connect(endpoint: &Endpoint, who: &Who) -> Result<Self, Failure> {
        let never = |error| Failure::of(&error, Sent::No);
        let (client, connection) = Config::new()
            .host("127.0.0.1")
            .port(endpoint.port)
            .user(&endpoint.user)
            .dbname(&endpoint.database)
            .application_name(who.to_string())
            .connect_timeout(CONNECT)
            .connect(NoTls)
            .await
            .map_err(never)?;
        let connection = tokio::spawn(async move {
            let error = connection.await.err()?;
            error.code().map(|code| code.code().to_owned())
        });
        let mut driver = Self {
            client,
            prepared: None,
            connection,
        };
        match who.shape {
            Shape::Prepared => {
                driver.prepared = Some(driver.client.prepare(&who.insert()).await.map_err(never)?);
            }
            Shape::AsyncCommit => {
                driver
                    .client
                    .batch_execute("SET synchronous_commit = off")
                    .await
                    .map_err(never)?;
            }
            shape => {
                if let Some(sql) = stateful::setup(shape, who) {
                    driver.client.batch_execute(&sql).await.map_err(never)?;
                }
            }
        }
        Ok(driver)
    }

    /// One operation.
    pub(super) async fn run(&mut self, who: &Who, seq: i32) -> Result<(), Failure> {
        if self.client.is_closed() {
            return Err(Failure::lost(self.last_word().await, Sent::No));
        }
        let result = match who.shape {
            Shape::Transaction => self.transaction(who, seq).await,
            Shape::ReadOnlyTransaction => self.read_only(seq).await,
            Shape::Paused
            | Shape::Settings
            | Shape::SqlPrepared
            | Shape::Listener
            | Shape::Cursor => stateful::run(&self.client, who, seq).await,
            _ => self
                .statement(who, seq)
                .await
                .map_err(|error| Failure::of(&error, Sent::Maybe)),
        };
        match result {
            Err(failure) if failure.lost && failure.sqlstate.is_none() => Err(Failure {
                sqlstate: self.last_word().await,
                ..failure
            }),
            result => result,
        }
    }

    async fn statement(&self, who: &Who, seq: i32) -> Result<(), Error> {
        match (&self.prepared, who.shape) {
            (Some(statement), _) => self
                .client
                .execute(statement, &[&seq, &0i16])
                .await
                .map(|_| ()),
            (None, Shape::Extended) => self.insert(who, seq, 0).await,
            (None, Shape::Read) => self.select(seq).await,
            (None, _) => {
                let (run, shape, client) = (who.run, who.shape.code(), who.client);
                let sql = format!("INSERT INTO ledger VALUES ({run}, {shape}, {client}, {seq}, 0)");
                self.client.batch_execute(&sql).await
            }
        }
    }

    async fn insert(&self, who: &Who, seq: i32, part: i16) -> Result<(), Error> {
        let params: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
            [(&seq, Type::INT4), (&part, Type::INT2)];
        self.client
            .execute_typed(&who.insert(), &params)
            .await
            .map(|_| ())
    }

    async fn select(&self, seq: i32) -> Result<(), Error> {
        let sql = "SELECT body FROM ledger_page WHERE id = $1";
        self.client
            .query_typed(sql, &[(&(seq % 10), Type::INT4)])
            .await
            .map(|_| ())
    }

    /// Until COMMIT is sent, the loss of the connection is a definite no.
    async fn transaction(&self, who: &Who, seq: i32) -> Result<(), Failure> {
        let result = async {
            self.client.batch_execute("BEGIN").await?;
            for part in 0..Shape::Transaction.rows() {
                self.insert(who, seq, part).await?;
            }
            Ok(())
        };
        match result.await {
            Err(error) => Err(self.rolled_back(&error).await),
            Ok(()) => match self.client.batch_execute("COMMIT").await {
                // A COMMIT that fails on a living connection has ended the transaction.
                Err(error) => Err(Failure::of(&error, Sent::Maybe)),
                Ok(()) => Ok(()),
            },
        }
    }

    async fn read_only(&self, seq: i32) -> Result<(), Failure> {
        let result = async {
            self.client
                .batch_execute("BEGIN TRANSACTION READ ONLY")
                .await?;
            self.select(seq).await?;
            self.client.batch_execute("COMMIT").await
        };
        match result.await {
            Err(error) => Err(self.rolled_back(&error).await),
            Ok(()) => Ok(()),
        }
    }

    async fn rolled_back(&self, error: &Error) -> Failure {
        rolled_back(&self.client, error).await
    }

    /// The code with which the server ended the connection.
    async fn last_word(&mut self) -> Option<String> {
        if !self.client.is_closed() {
            return None;
        }
        // Closed means that the connection's task is past its last read.
        (&mut self.connection).await.ok().flatten()
    }
}
