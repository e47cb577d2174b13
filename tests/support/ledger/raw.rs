//! Sessions of the shapes that need the wire itself: pipelined, COPY, and the unnamed statement.

use std::time::Instant;

use bytes::BufMut;

use super::op::{Failure, Sent};
use super::session::{Step, Who};
use super::shape::Shape;
use super::wire::{Wire, error, put_text};

/// Syncs sent before the first answer is read.
const GROUPS: i32 = 3;

/// The INSERT of these clients; its parameters come as text.
fn insert(who: &Who) -> String {
    let (run, shape, client) = (who.run, who.shape.code(), who.client);
    format!("INSERT INTO ledger VALUES ({run}, {shape}, {client}, $1::int4, $2::int2)")
}

fn parse(wire: &mut Wire, sql: &str) {
    wire.put(b'P', |body| {
        body.put_u8(0); // the unnamed statement
        put_text(body, sql);
        body.put_i16(0);
    });
}

/// Parses the unnamed statement, once for the connection.
pub(super) async fn parse_unnamed(wire: &mut Wire, who: &Who) -> Result<(), Failure> {
    parse(wire, &insert(who));
    wire.put(b'S', |_| {});
    let gone = |_| Failure::lost(None, Sent::No);
    wire.send().await.map_err(gone)?;
    wire.until_ready().await
}

/// Executes the statement that was parsed at the beginning.
pub(super) async fn execute_unnamed(wire: &mut Wire, seq: i32) -> Result<(), Failure> {
    bind_and_execute(wire, [seq.to_string(), "0".to_owned()]);
    wire.put(b'S', |_| {});
    let gone = |_| Failure::lost(None, Sent::Maybe);
    wire.send().await.map_err(gone)?;
    wire.until_ready().await
}

/// Sends some groups of Parse, several Bind and Execute, and Sync in one go, then reads the
/// answers. Each group is a transaction of its own, hence an operation of its own.
pub(super) async fn pipelined(wire: &mut Wire, who: &Who, seq: i32) -> Vec<Step> {
    let sql = insert(who);
    let seqs: Vec<i32> = (seq..seq + GROUPS).collect();
    for seq in &seqs {
        parse(wire, &sql);
        for part in 0..Shape::Pipelined.rows() {
            bind_and_execute(wire, [seq.to_string(), part.to_string()]);
        }
        wire.put(b'S', |_| {});
    }
    let start = Instant::now();
    let mut result = wire
        .send()
        .await
        .map_err(|_| Failure::lost(None, Sent::Maybe));
    let mut steps = Vec::new();
    for seq in seqs {
        // Once the connection is gone, the rest is as unknown as the one that noticed.
        if result.as_ref().err().is_none_or(|failure| !failure.lost) {
            result = wire.until_ready().await;
        }
        steps.push(Step {
            seq,
            start,
            end: Instant::now(),
            result: result.clone(),
        });
    }
    steps
}

fn bind_and_execute(wire: &mut Wire, values: [String; 2]) {
    wire.put(b'B', |body| {
        body.put_slice(&[0, 0]); // unnamed portal, unnamed statement
        body.put_i16(0); // all parameters as text
        body.put_i16(2);
        for value in values {
            let len = i32::try_from(value.len()).expect("a number is short");
            body.put_i32(len);
            body.put_slice(value.as_bytes());
        }
        body.put_i16(0);
    });
    wire.put(b'E', |body| {
        body.put_u8(0);
        body.put_i32(0); // no limit of rows
    });
}

/// One COPY of a few rows. The data follow only after the server asked for them.
pub(super) async fn copy(wire: &mut Wire, who: &Who, seq: i32) -> Result<(), Failure> {
    wire.put(b'Q', |body| put_text(body, "COPY ledger FROM STDIN"));
    let gone = |sent| move |_| Failure::lost(None, sent);
    wire.send().await.map_err(gone(Sent::No))?;
    loop {
        match wire.message().await.map_err(gone(Sent::No))? {
            (b'G', _) => break,
            (b'E', body) => {
                let refusal = Failure {
                    sent: Sent::No,
                    ..error(&body)
                };
                // What follows is only ReadyForQuery, or the end of the connection.
                let after = wire.until_ready().await;
                return Err(Failure {
                    lost: refusal.lost || after.is_err(),
                    ..refusal
                });
            }
            _ => {}
        }
    }
    for part in 0..Shape::Copy.rows() {
        let row = format!(
            "{}\t{}\t{}\t{seq}\t{part}\n",
            who.run,
            who.shape.code(),
            who.client
        );
        wire.put(b'd', |body| body.put_slice(row.as_bytes()));
    }
    wire.put(b'c', |_| {});
    wire.send().await.map_err(gone(Sent::Maybe))?;
    wire.until_ready().await
}
