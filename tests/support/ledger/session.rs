//! One client's session, whatever its shape: connect, and run operations.

use std::fmt;
use std::time::Instant;

use super::api::Api;
use super::driver::Driver;
use super::op::Failure;
use super::raw;
use super::shape::Shape;
use super::wire::Wire;

/// Where and as whom clients log in; always on loopback.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The proxy's port, or a server's.
    pub port: u16,
    /// The HTTP front's port, for shapes that speak HTTP.
    pub api: Option<u16>,
    /// Login.
    pub user: String,
    /// Database.
    pub database: String,
}

/// One client.
#[derive(Debug, Clone)]
pub(super) struct Who {
    /// Which load; keeps the ids of several loads on one table apart.
    pub(super) run: i32,
    pub(super) shape: Shape,
    pub(super) client: i16,
}

impl Who {
    /// Its INSERT, with sequence number and part as parameters.
    pub(super) fn insert(&self) -> String {
        let (run, shape, client) = (self.run, self.shape.code(), self.client);
        format!("INSERT INTO ledger VALUES ({run}, {shape}, {client}, $1, $2)")
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ledger {} {}", self.shape, self.client)
    }
}

/// An operation and how it ended.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) seq: i32,
    pub(super) start: Instant,
    pub(super) end: Instant,
    pub(super) result: Result<(), Failure>,
}

/// A logged-in client.
#[derive(Debug)]
pub(super) enum Session {
    Driver(Box<Driver>),
    Raw(Wire),
    Api(Api),
}

impl Session {
    pub(super) async fn connect(endpoint: &Endpoint, who: &Who) -> Result<Self, Failure> {
        if let (Shape::ApiWrite | Shape::ApiSteps | Shape::ApiRead, Some(port)) =
            (who.shape, endpoint.api)
        {
            return Api::connect(port).await.map(Self::Api);
        }
        if matches!(who.shape, Shape::Pipelined | Shape::Copy | Shape::Unnamed) {
            let name = who.to_string();
            let params = [
                ("user", endpoint.user.as_str()),
                ("database", &endpoint.database),
                ("application_name", &name),
            ];
            let mut wire = Wire::connect(endpoint.port, &params).await?;
            if who.shape == Shape::Unnamed {
                raw::parse_unnamed(&mut wire, who).await?;
            }
            return Ok(Self::Raw(wire));
        }
        Driver::connect(endpoint, who)
            .await
            .map(|driver| Self::Driver(Box::new(driver)))
    }

    /// One operation, numbered `seq`; a pipelining client runs some more in the same breath.
    pub(super) async fn run(&mut self, who: &Who, seq: i32) -> Vec<Step> {
        let start = Instant::now();
        let result = match self {
            Self::Raw(wire) if who.shape == Shape::Pipelined => {
                return raw::pipelined(wire, who, seq).await;
            }
            Self::Raw(wire) if who.shape == Shape::Unnamed => raw::execute_unnamed(wire, seq).await,
            Self::Raw(wire) => raw::copy(wire, who, seq).await,
            Self::Driver(driver) => driver.run(who, seq).await,
            Self::Api(api) => api.run(who, seq).await,
        };
        vec![Step {
            seq,
            start,
            end: Instant::now(),
            result,
        }]
    }
}
