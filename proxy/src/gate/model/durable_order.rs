//! The order of phase change and record, by stateright: fences and opens in any order, whose store
//! succeeds, fails, or is where the daemon dies before or after the record reached the disk, and
//! restarts.
//!
//! Each step runs the real functions on a real gate. The store is a probe as well: when it is
//! called, and again when the record is on disk, it tries to write through the gate. Whatever
//! passes was answered to a client and must be allowed by the disk as it is then.

use std::{
    cell::{Cell, RefCell},
    future::{Future, pending},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use stateright::{Checker, Model, Property};

use super::{Limits, gate, plan};
use crate::gate::{
    Answer, Epoch, Gate, Lane, Phase, Record, fence_durably, open_durably,
    seam::{Mutant, Seam},
};

/// Epochs explored: enough for three commands with a restart between any two.
const LAST: Epoch = Epoch::new(9);

/// What becomes of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Fate {
    Stored,
    Failed,
    /// The daemon dies, the old record stands.
    DiesBefore,
    /// The daemon dies, the new record stands.
    DiesAfter,
}

const FATES: [Fate; 4] = [
    Fate::Stored,
    Fate::Failed,
    Fate::DiesBefore,
    Fate::DiesAfter,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Fence(Fate),
    Open(Fate),
    Restart(Fate),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    disk: Record,
    /// The gate of the running daemon; none after it died.
    memory: Option<Record>,
    /// What the operator was last told.
    told: Record,
    /// A write passed that the disk did not allow at that instant.
    leaked: bool,
}

struct Proof {
    planted: Option<Mutant>,
}

/// The disk, and the writes that try the gate around each store.
struct Disk<'a> {
    gate: &'a Arc<Gate>,
    record: Cell<Record>,
    leaked: Cell<bool>,
}

impl Disk<'_> {
    /// A client writes. What passes under an epoch that is not durably open is a leak: the next
    /// start would not know of it.
    fn try_write(&self) {
        if let Ok(permit) = self.gate.admit(Lane::Sql) {
            let disk = self.record.get();
            let allowed = disk.phase == Phase::Open && disk.epoch >= permit.epoch();
            self.leaked.set(self.leaked.get() || !allowed);
        }
    }

    async fn store(&self, record: Record, fate: Fate) -> Result<(), &'static str> {
        self.try_write();
        match fate {
            Fate::Failed => return Err("the disk is full"),
            Fate::DiesBefore => pending().await,
            Fate::Stored | Fate::DiesAfter => self.record.set(record),
        }
        self.try_write();
        if fate == Fate::DiesAfter {
            pending::<()>().await;
        }
        Ok(())
    }
}

impl Proof {
    /// The gate as it stands in `memory`.
    fn gate(&self, memory: Record) -> Arc<Gate> {
        let limits = Limits {
            held: 1,
            held_bytes: 1,
            release_burst: 1,
        };
        let before = Epoch::new(memory.epoch.value() - 1);
        let gate = Gate::with_seam(limits, before, Seam::with(self.planted));
        match memory.phase {
            Phase::Open => gate.open(),
            Phase::Fenced(answer) => gate.fence(&Lane::ALL, answer, plan()),
        };
        gate
    }

    fn run(&self, world: &World, gate: &Arc<Gate>, open: bool, fate: Fate) -> World {
        let disk = Disk {
            gate,
            record: Cell::new(world.disk),
            leaked: Cell::new(world.leaked),
        };
        let told = RefCell::new(world.told);
        let dead = {
            let store = |record| disk.store(record, fate);
            let command = async {
                let answer = Answer::Hold;
                let (phase, done) = match open {
                    true => (Phase::Open, open_durably(gate, store).await),
                    false => {
                        let done = fence_durably(gate, &Lane::ALL, answer, plan(), store).await;
                        (Phase::Fenced(answer), done)
                    }
                };
                if let Ok(epoch) = done {
                    told.replace(Record { phase, epoch });
                }
            };
            poll_once(command).is_pending()
        };
        disk.try_write();
        let look = gate.look(Lane::Sql);
        let memory = (!dead).then_some(Record {
            phase: look.phase,
            epoch: look.epoch,
        });
        let (disk, leaked) = (disk.record.get(), disk.leaked.get());
        World {
            disk,
            memory,
            told: told.into_inner(),
            leaked,
        }
    }

    /// A start: fenced, two epochs on, then opened if that was durable.
    fn start(&self, world: &World, fate: Fate) -> World {
        let epoch = world.disk.epoch.next().next();
        let fenced = Record {
            phase: Phase::Fenced(Answer::Reject),
            epoch,
        };
        let gate = self.gate(fenced);
        match world.disk.phase {
            Phase::Open => self.run(world, &gate, true, fate),
            Phase::Fenced(_) => World {
                memory: Some(fenced),
                ..world.clone()
            },
        }
    }
}

fn poll_once(future: impl Future<Output = ()>) -> Poll<()> {
    pin!(future)
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

impl Model for Proof {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        let record = Record {
            phase: Phase::Open,
            epoch: gate(None).look(Lane::Sql).epoch.next(),
        };
        vec![World {
            disk: record,
            memory: Some(record),
            told: record,
            leaked: false,
        }]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        match world.memory {
            Some(_) => events.extend(
                FATES
                    .into_iter()
                    .flat_map(|f| [Event::Fence(f), Event::Open(f)]),
            ),
            None => events.extend(FATES.map(Event::Restart)),
        }
    }

    fn next_state(&self, world: &World, event: Event) -> Option<World> {
        match (event, world.memory) {
            (Event::Fence(fate), Some(memory)) => {
                Some(self.run(world, &self.gate(memory), false, fate))
            }
            (Event::Open(fate), Some(memory)) => {
                Some(self.run(world, &self.gate(memory), true, fate))
            }
            (Event::Restart(fate), None) => Some(self.start(world, fate)),
            (Event::Fence(_) | Event::Open(_), None) | (Event::Restart(_), Some(_)) => None,
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(LEAK, |_, world: &World| !world.leaked),
            Property::always(OPEN, |_, world: &World| {
                let Some(memory) = world.memory else {
                    return true;
                };
                memory.phase != Phase::Open || world.disk == memory
            }),
            Property::always(TOLD, |_, world: &World| {
                // A later record may stand of a command that died before it could answer.
                world.disk == world.told || world.disk.epoch > world.told.epoch
            }),
            Property::always(GROWS, |_, world: &World| {
                world
                    .memory
                    .is_none_or(|memory| memory.epoch >= world.told.epoch)
            }),
            Property::sometimes("a restart opens again", |_, world: &World| {
                world
                    .memory
                    .is_some_and(|memory| memory.phase == Phase::Open)
                    && world.disk.epoch >= Epoch::new(6)
            }),
        ]
    }

    fn within_boundary(&self, world: &World) -> bool {
        let memory = world.memory.map_or(world.disk.epoch, |memory| memory.epoch);
        memory.max(world.disk.epoch) <= LAST
    }
}

const LEAK: &str = "a write passes only while the disk says open under its epoch";
const OPEN: &str = "memory is never more open than the disk";
const TOLD: &str = "what was answered is on disk";
const GROWS: &str = "no epoch that was answered comes again";

fn broken(planted: Mutant, property: &'static str) -> bool {
    let checker = Proof {
        planted: Some(planted),
    }
    .checker()
    .spawn_bfs()
    .join();
    checker.discovery(property).is_some()
}

#[test]
fn memory_is_never_more_open_than_the_disk() {
    Proof { planted: None }
        .checker()
        .spawn_bfs()
        .join()
        .assert_properties();
}

#[test]
fn the_proof_notices_an_open_answered_before_fsync() {
    for property in [LEAK, OPEN, TOLD] {
        assert!(
            broken(Mutant::OpenAnsweredBeforeFsync, property),
            "{property}"
        );
    }
}

#[test]
fn the_proof_notices_a_fence_made_durable_before_the_gate_closes() {
    assert!(broken(Mutant::FsyncBeforeFence, LEAK));
}
