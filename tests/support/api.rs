//! A small API on PostgreSQL, as an application behind the HTTP front would be one.
//!
//! It reaches its database through the PostgreSQL front, on connections that it keeps. It knows
//! nothing of fences: what PostgreSQL refuses it answers with 500.
//!
//! * `POST /orders/RUN/SHAPE/CLIENT/SEQ` inserts one row of the ledger.
//! * `POST /steps/RUN/SHAPE/CLIENT/SEQ` inserts three, each by itself, 200 ms apart.
//! * `GET /orders/N` reads a page.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_postgres::{Client, Config, NoTls};

use crate::eventually::pause;
use crate::ledger::Endpoint;

/// Between two of the three writes.
const STEP: Duration = Duration::from_millis(200);

/// Connections kept for the next request; beyond, they are closed after their own.
const KEPT: usize = 32;

/// A running instance. Dropping it stops it, whatever it is doing.
#[derive(Debug)]
pub struct Api {
    port: u16,
    runtime: Option<tokio::runtime::Runtime>,
}

/// What requests share.
struct Shop {
    database: Endpoint,
    /// Shown in each answer, so that a client sees who served it.
    name: String,
    kept: Mutex<Vec<Client>>,
}

impl Api {
    /// Starts an instance of this name over a database.
    ///
    /// # Errors
    /// Nothing can be listened on.
    pub fn start(name: &str, port: u16, database: Endpoint) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("api")
            .enable_all()
            .build()?;
        // Bound here and not there, since a test's own runtime does not let us wait.
        let listener =
            std::net::TcpListener::bind(("127.0.0.1", port)).context("listen for the API")?;
        listener.set_nonblocking(true)?;
        let shop = Arc::new(Shop {
            database,
            name: name.to_owned(),
            kept: Mutex::default(),
        });
        runtime.spawn(async move {
            if let Ok(listener) = TcpListener::from_std(listener) {
                serve(listener, shop).await;
            }
        });
        Ok(Self {
            port,
            runtime: Some(runtime),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not from within another runtime's task, which may not block.
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, shop: Arc<Shop>) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let shop = Arc::clone(&shop);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let shop = Arc::clone(&shop);
                async move { Ok::<_, Infallible>(shop.answer(request).await) }
            });
            // A connection that breaks is its client's trouble.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}

impl Shop {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let done = match body.collect().await {
            Ok(_) => self.run(&head.method, &path).await,
            Err(error) => Err((400, error.to_string())),
        };
        let (status, text) = match done {
            Ok(found) => found,
            Err(found) => found,
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or_default();
        if let Ok(name) = self.name.parse() {
            response.headers_mut().insert("served-by", name);
        }
        response
    }

    async fn run(&self, method: &Method, path: &str) -> Result<(u16, String), (u16, String)> {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let client = self
            .client()
            .await
            .map_err(|error| (500, error.to_string()))?;
        let done = match (method.as_str(), &parts[..]) {
            ("POST", ["orders", id @ ..]) => insert(&client, id, 0).await,
            ("POST", ["steps", id @ ..]) => steps(&client, id).await,
            ("GET", ["orders", page]) => read(&client, page).await,
            _ => return Err((404, "no such thing".to_owned())),
        };
        self.keep(client);
        done.map_err(|error| (500, format!("{error:#}")))
    }

    async fn client(&self) -> Result<Client> {
        if let Some(client) = self.kept().pop().filter(|client| !client.is_closed()) {
            return Ok(client);
        }
        let (client, connection) = Config::new()
            .host("127.0.0.1")
            .port(self.database.port)
            .user(&self.database.user)
            .dbname(&self.database.database)
            .application_name(format!("api {}", self.name))
            .connect(NoTls)
            .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    fn keep(&self, client: Client) {
        let mut kept = self.kept();
        if !client.is_closed() && kept.len() < KEPT {
            kept.push(client);
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn insert(client: &Client, id: &[&str], part: i16) -> Result<(u16, String)> {
    let [run, shape, number, seq] = id else {
        anyhow::bail!("four numbers make an order: {id:?}")
    };
    let (run, shape): (i32, i16) = (run.parse()?, shape.parse()?);
    let (number, seq): (i16, i32) = (number.parse()?, seq.parse()?);
    let sql = format!("INSERT INTO ledger VALUES ({run}, {shape}, {number}, {seq}, {part})");
    client.batch_execute(&sql).await?;
    Ok((201, format!("{{\"order\":{seq}}}")))
}

async fn steps(client: &Client, id: &[&str]) -> Result<(u16, String)> {
    let mut last = insert(client, id, 0).await?;
    for part in 1..3 {
        pause(STEP).await;
        last = insert(client, id, part).await?;
    }
    Ok(last)
}

async fn read(client: &Client, page: &str) -> Result<(u16, String)> {
    let page: i32 = page.parse()?;
    let row = client
        .query_typed(
            "SELECT body FROM ledger_page WHERE id = $1",
            &[(&(page % 10), tokio_postgres::types::Type::INT4)],
        )
        .await?;
    let body: &str = row.first().context("no such page")?.try_get(0)?;
    Ok((200, body.to_owned()))
}
