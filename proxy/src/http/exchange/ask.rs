//! The request on its way to the server: on which connection, and how often.
//!
//! A write is sent once. It goes to another connection only if it came back unsent, or could not be
//! sent at all.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::Trouble;
use crate::http::body::UpBody;
use crate::http::debt::Debt;
use crate::http::pool::{Aim, Lease, Need, Pool, Reuse, Unanswered, Wish};

/// How long a connection may take to open while another region could serve the read. One that is away
/// often does not even refuse.
const AWAY: Duration = Duration::from_secs(2);

/// Connections tried before a request that was sent nowhere is refused.
const TRIES: usize = 3;

/// Sends the request and waits for the head of its answer.
pub(super) async fn answer(
    pool: &Pool,
    (mut aim, mut elsewhere): (Aim, Option<Aim>),
    mut request: Request<UpBody>,
    need: Need,
    read_timeout: Duration,
    mut debt: Option<&mut Debt>,
) -> Result<(Lease, Response<Incoming>), Trouble> {
    let is_write = debt.is_some();
    let mut reuse = match is_write {
        true => Reuse::Fresh,
        false => Reuse::Any,
    };
    let mut why = String::new();
    for _ in 0..TRIES {
        let wish = Wish {
            need,
            reuse,
            writes: is_write,
        };
        let opened = async {
            match elsewhere.is_some() {
                true => timeout(AWAY, pool.lease(&aim, wish)).await?,
                false => pool.lease(&aim, wish).await,
            }
        };
        let mut lease = match opened.await {
            Ok(lease) => lease,
            Err(error) => {
                why = format!("cannot connect to region {}: {error}", aim.origin.region);
                reuse = Reuse::Never;
                if let Some(other) = elsewhere.take() {
                    (aim, reuse) = (other, Reuse::Any);
                }
                continue;
            }
        };
        let again = again(&request, is_write);
        if let Some(debt) = debt.as_deref_mut() {
            if !debt.is_valid() {
                return Err(Trouble::Unsent("its permit ran out".to_owned()));
            }
            debt.send_to(&aim.origin.region);
        }
        let sent = match is_write {
            // Bounded by the write's deadline instead.
            true if need != Need::Upgrade => Ok(lease.send(request).await),
            true | false => timeout(read_timeout, lease.send(request)).await,
        };
        match sent {
            Ok(Ok(answer)) => return Ok((lease, answer)),
            Ok(Err(Unanswered::Unsent(back, reason))) => {
                if let Some(debt) = debt.as_deref_mut() {
                    debt.unsent();
                }
                (request, why) = (*back, reason);
            }
            Ok(Err(Unanswered::Refused(reason))) if is_write => {
                if let Some(debt) = debt.as_deref_mut() {
                    debt.unsent();
                }
                return Err(Trouble::Unsent(reason));
            }
            // A connection that had rested may turn out to be dead.
            Ok(Err(Unanswered::Lost(reason))) if !lease.is_reused() => {
                return Err(Trouble::Lost(reason));
            }
            Ok(Err(Unanswered::Lost(reason) | Unanswered::Refused(reason))) => match again {
                Some(copy) => (request, why) = (copy, reason),
                None => return Err(Trouble::Lost(reason)),
            },
            Err(_) => return Err(Trouble::Lost("no answer in time".to_owned())),
        }
        reuse = Reuse::Never;
    }
    Err(Trouble::Unsent(why))
}

/// A read may be sent again if all of it is here.
fn again(request: &Request<UpBody>, is_write: bool) -> Option<Request<UpBody>> {
    if is_write {
        return None;
    }
    let mut copy = Request::new(request.body().copy()?);
    request.method().clone_into(copy.method_mut());
    request.uri().clone_into(copy.uri_mut());
    *copy.version_mut() = request.version();
    request.headers().clone_into(copy.headers_mut());
    request.extensions().clone_into(copy.extensions_mut());
    Some(copy)
}
