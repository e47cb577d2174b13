//! Which addresses are listened on, and how that changes while the daemon runs.
//!
//! A reload binds everything new before it lets go of anything: if one address or file cannot be used,
//! nothing is applied. A listener that is taken away accepts no more; what it has accepted goes on until
//! it ends by itself or the daemon does. The regions behind a new one are those that are running: a
//! region's servers change with a restart. A listener that stays keeps its keys until then.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::{TcpListener, TcpSocket};
use writefence_config::{self as config, Config, Listener};

use crate::error::StartError;
use crate::gate::{Lane, Phase};
use crate::group::Group;
use crate::http::classify::Rules;
use crate::http::{self, Front};
use crate::material::{self, Ask, Parts};
use crate::pg::door::Door;
use crate::pg::listener;
use crate::shutdown::{Shutdown, Stopper, Tasks, pair};
use crate::tcp;
use crate::upstream::Endpoint;
use crate::watched::{Files, Refresh};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 1024;

/// Whether the group opens is decided in milliseconds where its servers answer; connections wait
/// that long in the socket's queue, so that no first write is refused for being early.
const FIRST_WORD: std::time::Duration = std::time::Duration::from_secs(1);

/// How a listener's `auth_query` logs in, by the group's observer.
pub type Asks = Box<dyn Fn(&config::Observer) -> Ask + Send + Sync>;

/// See the module.
pub struct Listeners {
    tasks: Tasks,
    stop: Shutdown,
    files: Arc<Files>,
    mock: [u8; 32],
    asks: Asks,
    running: Mutex<Vec<Running>>,
}

struct Running {
    address: SocketAddr,
    /// Dropped or told, the listener accepts no more.
    stopper: Stopper,
}

/// A listener that is bound and has all its files, and serves nobody yet.
pub struct Bound {
    group: Arc<Group>,
    address: SocketAddr,
    rules: Option<Arc<Rules>>,
    parts: Parts,
    serve: Box<dyn FnOnce(Shutdown) + Send>,
}

/// A PostgreSQL listener's rules with the files they rest on.
pub type Loaded = (Arc<Door>, Parts);

impl Listeners {
    /// None yet.
    pub fn new(
        tasks: Tasks,
        stop: Shutdown,
        files: Arc<Files>,
        mock: [u8; 32],
        asks: Asks,
    ) -> Self {
        Self {
            tasks,
            stop,
            files,
            mock,
            asks,
            running: Mutex::default(),
        }
    }

    /// Reads the files of a PostgreSQL listener.
    ///
    /// # Errors
    /// One cannot be used.
    pub fn load(
        &self,
        section: &config::Group,
        listener: &config::PgListener,
    ) -> Result<Loaded, StartError> {
        let mut parts = Parts::new();
        let ask = (self.asks)(&section.observer);
        let door = material::door(&section.name, listener, self.mock, ask, &mut parts)?;
        Ok((Arc::new(door), parts))
    }

    /// Binds a listener of a group. `section` has the regions that are running; `loaded` saves reading
    /// the files of a PostgreSQL listener again.
    ///
    /// # Errors
    /// Its address cannot be bound, or a file cannot be used.
    pub fn bound(
        &self,
        config: &Config,
        section: &config::Group,
        listener: &Listener,
        group: &Arc<Group>,
        loaded: Option<Loaded>,
    ) -> Result<Bound, StartError> {
        let address = listener.address();
        let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
        let own = Arc::clone(group);
        let mut rules = None;
        let (parts, serve): (Parts, Box<dyn FnOnce(Shutdown) + Send>) = match listener {
            Listener::Postgres(settings) => {
                let (door, parts) = match loaded {
                    Some(loaded) => loaded,
                    None => self.load(section, settings)?,
                };
                let socket = bind(address)?;
                let serve = move |removed: Shutdown| {
                    tasks.spawn(async move {
                        first_word(&own).await;
                        listener::serve(own, door, socket, removed, stop).await;
                    });
                };
                (parts, Box::new(serve))
            }
            Listener::Tcp(settings) => {
                let front = tcp_front(config, section, settings, group);
                let socket = bind(address)?;
                let serve = move |removed: Shutdown| {
                    let counted = tasks.clone();
                    tasks.spawn(async move {
                        first_word(&own).await;
                        tcp::serve(front, socket, counted, removed, stop).await;
                    });
                };
                (Parts::new(), Box::new(serve))
            }
            Listener::Http(settings) => {
                let judge = Arc::new(Rules::new(settings));
                let made = Front::new(
                    own,
                    settings,
                    Arc::clone(&judge),
                    &section.regions,
                    tasks.clone(),
                );
                let front = made.map_err(|source| StartError::Front { address, source })?;
                let front = Arc::new(front);
                rules = Some(judge);
                let socket = bind(address)?;
                let parts = vec![Arc::clone(&front) as Arc<dyn Refresh>];
                let serve = move |removed| tasks.spawn(http::serve(front, socket, removed, stop));
                (parts, Box::new(serve))
            }
        };
        Ok(Bound {
            group: Arc::clone(group),
            address,
            rules,
            parts,
            serve,
        })
    }

    /// Begins to accept.
    pub fn start(&self, bound: Bound) {
        let (stopper, removed) = pair();
        let (group, address) = (&bound.group, bound.address);
        self.files.add(&bound.parts);
        if let Some(rules) = bound.rules {
            group.set_rules(address, Some(rules));
        }
        tracing::info!(group = %group.name, %address, "listening");
        (bound.serve)(removed);
        self.running().push(Running { address, stopper });
    }

    /// Accepts no more there.
    pub fn stop(&self, group: &Group, address: SocketAddr) {
        self.running().retain(|one| {
            if one.address == address {
                one.stopper.stop();
            }
            one.address != address
        });
        group.set_rules(address, None);
        tracing::info!(group = %group.name, %address, "no longer listening");
    }

    /// Whether an address is listened on.
    pub fn has(&self, address: SocketAddr) -> bool {
        self.running().iter().any(|one| one.address == address)
    }

    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a new listener cannot be served before a restart: what it leads to is not running.
pub fn lacks(section: &config::Group, listener: &Listener) -> Option<String> {
    let name = &section.name;
    let missing = |what: &str, has: &dyn Fn(&config::Region) -> bool| {
        let without = section.regions.iter().find(|region| !has(region))?;
        let region = &without.name;
        Some(format!(
            "it needs group.{name}.region.{region}.{what}, which takes a restart"
        ))
    };
    match listener {
        Listener::Postgres(_) => missing("postgres", &|region| region.postgres.is_some()),
        Listener::Http(_) => missing("http", &|region| region.http.is_some()),
        Listener::Tcp(tcp) => missing(&format!("tcp.{}", tcp.service), &|region| {
            region.service(&tcp.service).is_some()
        }),
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // As every server does: connections of the last life that linger are no obstacle.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().map_err(|source| StartError::Listen { address, source })
}

async fn first_word(group: &Group) {
    let mut watch = group.gate.watch();
    let opened = async {
        while group.gate.look(Lane::Sql).phase != Phase::Open {
            watch.changed().await;
        }
    };
    // Still fenced after that: then clients are to hear it.
    let _ = tokio::time::timeout(FIRST_WORD, opened).await;
}

fn tcp_front(
    config: &Config,
    section: &config::Group,
    front: &config::TcpListener,
    group: &Arc<Group>,
) -> tcp::Front {
    let server = |region: &config::Region| {
        let server = region.service(&front.service)?;
        let endpoint = Endpoint::new(server.host.as_str(), server.port);
        Some((region.name.clone(), endpoint))
    };
    tcp::Front {
        group: Arc::clone(group),
        service: front.service.clone(),
        servers: section.regions.iter().filter_map(server).collect(),
        new: front.new,
        old: front.old,
        connections: front.connections,
        connect_timeout: config.limits.connect_timeout,
    }
}
