//! SCRAM with a client: its messages read with a bound, ours written, the outcome.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::super::door::Door;
use super::super::frame::put;
use super::secrets::User;
use super::{Denied, Peer};
use crate::scram::{Binding, Server, Verifier};
use crate::upstream::Targets;
use crate::upstream::wire::Proof;

/// The longest answer of a client, in bytes. A SCRAM message has some hundred.
const ANSWER: u32 = 8 * 1024;

/// AuthenticationSASL, -SASLContinue, -SASLFinal.
const SASL: [u8; 4] = [0, 0, 0, 10];
const CONTINUE: [u8; 4] = [0, 0, 0, 11];
const FINAL: [u8; 4] = [0, 0, 0, 12];

/// Verifies the client; gives what can log in upstream in its stead.
pub(super) async fn scram<S>(
    door: &Door,
    targets: &Targets,
    stream: &mut S,
    peer: Peer<'_>,
    user: &str,
    listed: bool,
) -> Result<Proof, Denied>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let from = peer.address.ip();
    let throttled = |wait| Denied::Throttled {
        user: user.to_owned(),
        from,
        wait,
    };
    door.throttle.look(from, user).map_err(throttled)?;
    // Asked for also where the user may not log in here: the time it takes must not tell.
    let found = find(door, targets, user).await?.filter(|_| listed);
    let (verifier, found) = verifier(door, user, found).await;
    let binding = peer.end_point.map_or(Binding::None, Binding::EndPoint);
    let mut offer = SASL.to_vec();
    for name in Server::offer(binding) {
        offer.extend_from_slice(name.as_bytes());
        offer.push(0);
    }
    offer.push(0);
    say(stream, &[&offer]).await?;
    let first = answer(stream).await?;
    let (mechanism, first) = initial(&first).ok_or(Denied::Offence("a malformed SASL response"))?;
    let (server, reply) = Server::first(mechanism, first, binding, verifier)?;
    say(stream, &[&CONTINUE, reply.as_bytes()]).await?;
    let last = answer(stream).await?;
    let guess = door.throttle.pay(from, user).map_err(throttled)?;
    let proven = match server.last(&last) {
        Ok(proven) => proven,
        Err(offence) => {
            guess.was_none();
            return Err(offence.into());
        }
    };
    // The mock verifier fits nobody; that it is asked at all is what looks alike.
    let (Some(proven), Some(found)) = (proven, found) else {
        if let Some(query) = &door.query {
            query.doubt(user);
        }
        return Err(Denied::Password(user.to_owned()));
    };
    guess.was_right();
    say(stream, &[&FINAL, proven.last.as_bytes()]).await?;
    Ok(match found.password() {
        Proof::None => Proof::Keys(Arc::new(proven.keys)),
        password => password,
    })
}

async fn find(door: &Door, targets: &Targets, user: &str) -> Result<Option<Arc<User>>, Denied> {
    let listed = door
        .secrets
        .as_ref()
        .and_then(|all| all.current().get(user));
    match (listed, &door.query) {
        (Some(user), _) => Ok(Some(user)),
        (None, Some(query)) => query.find(targets, user).await.map_err(Denied::NoLookup),
        (None, None) => Ok(None),
    }
}

/// What the exchange is checked against: for an unknown user something nobody fits.
async fn verifier(
    door: &Door,
    user: &str,
    found: Option<Arc<User>>,
) -> (Verifier, Option<Arc<User>>) {
    if let Some(found) = found {
        let known = Arc::clone(&found);
        let made = match known.made() {
            Some(made) => Some(made.clone()),
            // Milliseconds of hashing, once for each password of a file.
            None => tokio::task::spawn_blocking(move || known.verifier().cloned())
                .await
                .unwrap_or_default(),
        };
        if let Some(made) = made {
            return (made, Some(found));
        }
    }
    let usual = door.secrets.as_ref().map(|all| all.current().iterations());
    let asked = door.query.as_ref().and_then(|query| query.iterations());
    let iterations = asked.or(usual).unwrap_or(super::secrets::ITERATIONS);
    (Verifier::mock(&door.mock, user, iterations), None)
}

/// Mechanism and first message of a SASLInitialResponse.
pub(in super::super) fn initial(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = body.iter().position(|b| *b == 0)?;
    let (mechanism, rest) = body.split_at_checked(end)?;
    let (length, message) = rest.get(1..)?.split_first_chunk::<4>()?;
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    (message.len() == length).then_some((mechanism, message))
}

async fn say<S: AsyncWrite + Unpin>(stream: &mut S, parts: &[&[u8]]) -> Result<(), Denied> {
    let mut out = Vec::new();
    put(&mut out, b'R', parts);
    stream.write_all(&out).await?;
    Ok(stream.flush().await?)
}

/// One password message, and not a byte more.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Denied> {
    if stream.read_u8().await? != b'p' {
        return Err(Denied::Offence(
            "an answer to the request for authentication is expected",
        ));
    }
    let length = stream.read_u32().await?;
    if !(4..=ANSWER).contains(&length) {
        return Err(Denied::Offence(
            "the answer to a request for authentication is too long",
        ));
    }
    let mut body = vec![0; length as usize - 4];
    stream.read_exact(&mut body).await?;
    Ok(body)
}
