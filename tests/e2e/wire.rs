//! A client of single messages, for what drivers hide: the unnamed statement between two groups,
//! and messages that nobody asked for.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No answer in these tests takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A message: its tag and body.
pub(crate) type Message = (u8, Vec<u8>);

/// One connection.
pub(crate) struct Wire {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Wire {
    /// Logs in; what came up to ReadyForQuery is given back too.
    pub(crate) async fn login(port: u16, params: &[(&str, &str)]) -> Result<(Self, Vec<Message>)> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        // Or a message would wait for the answer to the one before.
        stream.set_nodelay(true)?;
        let mut wire = Self {
            stream,
            got: Vec::new(),
        };
        let mut body = 196_608u32.to_be_bytes().to_vec();
        let own = [("user", "postgres"), ("database", "postgres")];
        for (name, value) in own.iter().chain(params) {
            body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4)?;
        wire.stream.write_all(&length.to_be_bytes()).await?;
        wire.stream.write_all(&body).await?;
        let greeting = wire.until_ready().await?;
        Ok((wire, greeting))
    }

    /// Sends one message.
    pub(crate) async fn put(&mut self, tag: u8, parts: &[&[u8]]) -> Result<()> {
        let body = parts.concat();
        let mut message = vec![tag];
        message.extend_from_slice(&u32::try_from(body.len() + 4)?.to_be_bytes());
        message.extend_from_slice(&body);
        Ok(self.stream.write_all(&message).await?)
    }

    /// Parses the unnamed statement and syncs.
    pub(crate) async fn parse(&mut self, sql: &str) -> Result<Vec<Message>> {
        self.put(b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"]).await?;
        self.put(b'S', &[]).await?;
        self.until_ready().await
    }

    /// Executes the unnamed statement, which has no parameters, and syncs.
    pub(crate) async fn execute(&mut self) -> Result<Vec<Message>> {
        self.put(b'B', &[b"\0\0", &[0; 6]]).await?;
        self.put(b'E', &[b"\0", &[0; 4]]).await?;
        self.put(b'S', &[]).await?;
        self.until_ready().await
    }

    /// Sends a simple query and does not wait.
    pub(crate) async fn send(&mut self, sql: &str) -> Result<()> {
        self.put(b'Q', &[sql.as_bytes(), b"\0"]).await
    }

    /// A simple query.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<Message>> {
        self.send(sql).await?;
        self.until_ready().await
    }

    /// Everything up to ReadyForQuery; an error on the way is an error here.
    pub(crate) async fn until_ready(&mut self) -> Result<Vec<Message>> {
        let mut all = Vec::new();
        loop {
            let message = self.message().await?;
            let last = message.0 == b'Z';
            ensure!(message.0 != b'E', "refused: {}", words(&message.1));
            all.push(message);
            if last {
                return Ok(all);
            }
        }
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> Result<Message> {
        loop {
            if let Some(length) = self.got.get(1..5) {
                let total = 1 + u32::from_be_bytes(length.try_into()?) as usize;
                if self.got.len() >= total {
                    let rest = self.got.split_off(total);
                    let message = std::mem::replace(&mut self.got, rest);
                    return Ok((message[0], message[5..].to_vec()));
                }
            }
            let read = self.stream.read_buf(&mut self.got);
            match tokio::time::timeout(PATIENCE, read).await {
                Ok(Ok(0)) => bail!("the connection was closed"),
                Ok(read) => drop(read?),
                Err(_) => bail!("no message within {PATIENCE:?}"),
            }
        }
    }
}

/// A body's bytes as a person can read them.
pub(crate) fn words(body: &[u8]) -> String {
    String::from_utf8_lossy(body).replace('\0', " ")
}

/// Names of the parameters told in these messages.
pub(crate) fn parameters(messages: &[Message]) -> Vec<String> {
    let told = messages.iter().filter(|(tag, _)| *tag == b'S');
    let name = |body: &[u8]| {
        body.split(|b| *b == 0)
            .next()
            .map(words)
            .unwrap_or_default()
    };
    told.map(|(_, body)| name(body)).collect()
}

/// The only value in these messages, as text.
pub(crate) fn value(messages: &[Message]) -> String {
    let row = messages.iter().find(|(tag, _)| *tag == b'D');
    row.map(|(_, body)| words(body.get(6..).unwrap_or_default()))
        .unwrap_or_default()
}
