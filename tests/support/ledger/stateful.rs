//! Clients that rest on what their session has, played by the driver.
//!
//! Each writes through its state, so that a session that lost it writes nothing; that is a failure
//! of its own, with a code that no server gives.

use std::time::Duration;

use tokio_postgres::{Client, Error};

use super::driver::rolled_back;
use super::op::{Failure, Sent};
use super::session::Who;
use super::shape::Shape;
use crate::eventually::pause;

/// Pause inside a transaction, twice: a drain waits for it, well below the grace of a fence.
const INSIDE: Duration = Duration::from_millis(40);

/// Between two operations: the other clients fill the time.
const BETWEEN: Duration = Duration::from_millis(15);

/// A write did not take place because the session is not what its client made of it.
const STATE_LOST: &str = "state lost";

/// What a client of this shape does to its session, once.
pub(super) fn setup(shape: Shape, who: &Who) -> Option<String> {
    let (run, code, client) = (who.run, shape.code(), who.client);
    match shape {
        Shape::Settings => Some(format!(
            "SET search_path = pg_catalog, public; SET TIME ZONE INTERVAL '-03:30' HOUR TO MINUTE; \
             SET app.who = '{who}'; SELECT set_config('app.run', '{run}', false); SET ROLE {}",
            super::WRITER
        )),
        Shape::SqlPrepared => Some(format!(
            "PREPARE note (int4) AS INSERT INTO ledger VALUES ({run}, {code}, {client}, $1, 0)"
        )),
        Shape::Listener => Some("LISTEN ledger".to_owned()),
        _ => None,
    }
}

/// One operation.
pub(super) async fn run(client: &Client, who: &Who, seq: i32) -> Result<(), Failure> {
    pause(BETWEEN).await;
    let (run, shape, number) = (who.run, who.shape.code(), who.client);
    let insert =
        |part| format!("INSERT INTO ledger SELECT {run}, {shape}, {number}, {seq}, {part}");
    match who.shape {
        Shape::Settings => {
            let sql = format!(
                "{} WHERE current_setting('search_path') = 'pg_catalog, public' \
                 AND current_setting('TimeZone') = '<-03:30>+03:30' \
                 AND current_setting('app.who') = '{who}' AND current_setting('app.run') = '{run}' \
                 AND current_user = '{}'",
                insert(0),
                super::WRITER
            );
            written(client, &sql).await
        }
        Shape::SqlPrepared => written(client, &format!("EXECUTE note({seq})")).await,
        Shape::Listener => {
            let sql = format!(
                "{} FROM pg_listening_channels() AS c WHERE c = 'ledger'",
                insert(0)
            );
            written(client, &sql).await
        }
        Shape::Paused => {
            let steps = ["SELECT 1".to_owned(), insert(0), insert(1)];
            transaction(client, &steps, INSIDE).await
        }
        _ => {
            let steps = [
                "DECLARE page CURSOR FOR SELECT body FROM ledger_page ORDER BY id".to_owned(),
                "FETCH 3 FROM page".to_owned(),
                insert(0),
                "FETCH 3 FROM page".to_owned(),
            ];
            transaction(client, &steps, Duration::ZERO).await
        }
    }
}

/// A statement that has to write one row.
async fn written(client: &Client, sql: &str) -> Result<(), Failure> {
    use tokio_postgres::SimpleQueryMessage::CommandComplete;
    let maybe = |error: Error| Failure::of(&error, Sent::Maybe);
    let answers = client.simple_query(sql).await.map_err(maybe)?;
    if answers.iter().any(|a| matches!(a, CommandComplete(1))) {
        return Ok(());
    }
    Err(Failure {
        sqlstate: Some(STATE_LOST.to_owned()),
        lost: false,
        sent: Sent::No,
        not_executed: false,
    })
}

/// Until COMMIT is sent, the loss of the connection is a definite no.
async fn transaction(client: &Client, steps: &[String], inside: Duration) -> Result<(), Failure> {
    let work = async {
        client.batch_execute("BEGIN").await?;
        for step in steps {
            client.batch_execute(step).await?;
            pause(inside).await;
        }
        Ok(())
    };
    match work.await {
        Err(error) => Err(rolled_back(client, &error).await),
        Ok(()) => {
            let maybe = |error: Error| Failure::of(&error, Sent::Maybe);
            client.batch_execute("COMMIT").await.map_err(maybe)
        }
    }
}
