//! The HTTP front.
//!
//! Reading order: `classify` (whether a request may write), `request` (what becomes of it), `hold`
//! (the wait at a fence), `exchange` (the server behind, in a task that outlives the client),
//! `listener` and `server` (the client's side). What it promises: a request that is no read by its
//! rule is admitted before its first byte goes upstream, and counts until the server has answered
//! in full, whatever becomes of its client; what is refused was not executed; nothing that may write
//! is sent twice. It changes no phase and reads no other front.

mod body;
pub mod classify;
mod debt;
mod exchange;
mod figures;
mod headers;
mod hold;
mod listener;
mod origin;
mod pool;
mod refuse;
mod request;
mod server;
mod socket;
mod strict;
mod tunnel;

use std::sync::Arc;
use std::time::Duration;

use writefence_config as config;

use crate::gate::{Epoch, Lane};
use crate::group::Group;
use crate::shutdown::{Shutdown, Tasks};
use crate::tls::{ServerFiles, ServerTls, TlsError};
use crate::watched::Refresh;
use classify::Rules;
use origin::Origin;
use pool::{Aim, Pool};
use server::Pace;

pub use figures::{HttpFigures, Total};
pub use origin::{BadOrigin, address};

/// Why an HTTP listener cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// A region's origin cannot be used.
    #[error("a region's http cannot be used")]
    Origin(#[source] BadOrigin),
    /// Certificates cannot be used.
    #[error("the certificates of {what} cannot be used")]
    Tls {
        /// Whose.
        what: String,
        /// The cause.
        #[source]
        source: Box<TlsError>,
    },
}

/// One HTTP listener.
pub struct Front {
    group: Arc<Group>,
    listener: config::HttpListener,
    rules: Arc<Rules>,
    origins: Vec<Arc<Origin>>,
    tls: Option<ServerTls>,
    pool: Arc<Pool>,
    tasks: Tasks,
    figures: Arc<HttpFigures>,
}

/// Certificates are taken anew when their files change.
impl Refresh for Front {
    fn refresh(&self) {
        if let Some(tls) = &self.tls {
            tls.refresh();
        }
    }
}

impl Front {
    /// Makes it of the configuration.
    ///
    /// # Errors
    /// An origin or a certificate cannot be used.
    pub fn new(
        group: Arc<Group>,
        listener: &config::HttpListener,
        rules: Arc<Rules>,
        regions: &[config::Region],
        tasks: Tasks,
    ) -> Result<Self, FrontError> {
        let origins = regions.iter().filter_map(|region| {
            let url = region.http.as_deref()?;
            let origin = Origin::new(
                &region.name,
                url,
                region.http_version,
                region.http_ca.clone(),
            );
            Some(origin.map(Arc::new))
        });
        let origins = origins.collect::<Result<Vec<_>, _>>()?;
        let tls = listener.tls.as_ref().map(|tls| {
            let what = format!("HTTP listener {}", listener.address);
            let files = ServerFiles {
                cert: tls.cert.clone(),
                key: tls.key.clone(),
                client_ca: tls.client_ca.clone(),
                client_must: tls.client_ca.is_some(),
                alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            };
            ServerTls::load(what.clone(), files).map_err(|source| FrontError::Tls {
                what,
                source: Box::new(source),
            })
        });
        let pool = Arc::new(Pool::new(
            tasks.clone(),
            group.settings.load().login_timeout,
        ));
        Ok(Self {
            rules,
            listener: listener.clone(),
            figures: Arc::clone(&group.http),
            tls: tls.transpose()?,
            group,
            origins,
            pool,
            tasks,
        })
    }

    /// Where a request goes now: address and epoch of one moment. A permit keeps both as they are,
    /// since the target moves only when nothing is in flight.
    fn aim(&self) -> Option<Aim> {
        let gate = &self.group.gate;
        let mut epoch = gate.look(Lane::Http).epoch;
        loop {
            let accepted = self.group.targets.accepted();
            let again = gate.look(Lane::Http).epoch;
            if again == epoch {
                let name = accepted.region.as_str();
                let origin = self.origins.iter().find(|origin| origin.region == name)?;
                return Some(Aim {
                    origin: Arc::clone(origin),
                    epoch,
                });
            }
            epoch = again;
        }
    }

    /// Where a read may go while that region cannot be reached.
    fn elsewhere(&self, epoch: Epoch) -> Option<Aim> {
        let region = self.group.nearby.load_full()?;
        let mut origins = self.origins.iter();
        let origin = origins.find(|origin| origin.region == region.as_str())?;
        Some(Aim {
            origin: Arc::clone(origin),
            epoch,
        })
    }

    fn pace(&self) -> Pace {
        Pace {
            head_bytes: self.listener.header_bytes,
            head_time: self.listener.header_timeout,
            piece_time: self.listener.body_timeout,
        }
    }

    /// What a refused client is told to wait.
    fn retry_after(&self) -> u64 {
        refuse::jitter(self.group.settings.load().retry_after)
    }
}

/// Closes connections of epochs that are over, until the end; then whatever rests. What an exchange
/// gives back after that is closed by the pool, so none has to be waited for.
async fn retire(front: Arc<Front>, mut removed: Shutdown, mut stop: Shutdown) {
    let mut watch = front.group.gate.watch();
    let mut is_removed = false;
    // A listener that was taken away goes on for those that it has accepted.
    while !is_removed || Arc::strong_count(&front) > 1 {
        front.pool.retire(front.group.gate.look(Lane::Http).epoch);
        // All arms may be dropped: a change that is not reported stays due, and so do the words.
        tokio::select! {
            () = watch.changed() => {}
            () = removed.stopping(), if !is_removed => is_removed = true,
            () = tokio::time::sleep(LAST), if is_removed => {}
            () = stop.stopping() => break,
        }
    }
    front.pool.close();
}

/// Between two looks whether a listener that was taken away has connections left.
const LAST: Duration = Duration::from_secs(1);

/// Serves a listener until it is taken away or the daemon stops.
pub async fn serve(
    front: Arc<Front>,
    socket: tokio::net::TcpListener,
    removed: Shutdown,
    stop: Shutdown,
) {
    let tasks = front.tasks.clone();
    tasks.spawn(retire(Arc::clone(&front), removed.clone(), stop.clone()));
    listener::serve(front, socket, removed, stop).await;
}
