//! Unknown outcomes, by stateright: whatever happens to a few writes in whatever order, a drain
//! never says `drained` while one of them runs or its outcome is unknown.
//!
//! A state is what is true about the writes and what the operator did; each state is checked by
//! building a real gate in it and asking a real drain.

use stateright::{Checker, Model, Property};

use super::{far, gate, plan};
use crate::gate::{Answer, Gate, Lane, Lost, Outcome, Permit, seam::Mutant};

const WRITES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Write {
    Running,
    Unknown,
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    writes: [Write; WRITES],
    accepted: bool,
    said: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Ends(usize),
    IsLost(usize),
    IsResolved(usize),
    LossAccepted,
}

struct Proof {
    planted: Option<Mutant>,
}

/// What the gate handed out for one write.
enum Handle {
    Permit(Permit),
    #[expect(dead_code, reason = "kept as a session keeps it, not used")]
    Lost(Lost),
    Nothing,
}

impl Proof {
    fn ask(&self, writes: [Write; WRITES], accepted: bool) -> Option<Outcome> {
        let gate = gate(self.planted);
        gate.open();
        let permits = [(); WRITES].map(|()| gate.admit(Lane::Sql).expect("the gate is open"));
        gate.fence(&Lane::ALL, Answer::Hold, plan());
        let drain = gate.start_drain(None, far());
        let mut handles = permits.map(Handle::Permit);
        for (handle, write) in handles.iter_mut().zip(writes) {
            let taken = std::mem::replace(handle, Handle::Nothing);
            *handle = brought_to(write, taken);
        }
        if accepted {
            drain.accept_unknown();
        }
        assert_eq!(
            counted(&gate),
            truly_open(writes),
            "the gate counts what is true"
        );
        drain.outcome()
    }
}

fn brought_to(write: Write, handle: Handle) -> Handle {
    match (write, handle) {
        (Write::Unknown, Handle::Permit(permit)) => Handle::Lost(permit.lose()),
        (Write::Running, handle) => handle,
        (Write::Ended, _) | (Write::Unknown, _) => Handle::Nothing,
    }
}

fn counted(gate: &Gate) -> u64 {
    gate.in_flight(Lane::Sql) + gate.unknown()
}

fn truly_open(writes: [Write; WRITES]) -> u64 {
    writes
        .iter()
        .filter(|write| **write != Write::Ended)
        .count() as u64
}

impl Model for Proof {
    type State = World;
    type Action = Event;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            writes: [Write::Running; WRITES],
            accepted: false,
            said: None,
        }]
    }

    fn actions(&self, world: &World, events: &mut Vec<Event>) {
        for (number, write) in world.writes.iter().enumerate() {
            match write {
                Write::Running => events.extend([Event::Ends(number), Event::IsLost(number)]),
                Write::Unknown => events.push(Event::IsResolved(number)),
                Write::Ended => {}
            }
        }
        events.push(Event::LossAccepted);
    }

    fn next_state(&self, before: &World, event: Event) -> Option<World> {
        let mut world = before.clone();
        match event {
            Event::Ends(number) | Event::IsResolved(number) => world.writes[number] = Write::Ended,
            Event::IsLost(number) => world.writes[number] = Write::Unknown,
            Event::LossAccepted => world.accepted = true,
        }
        world.said = self.ask(world.writes, world.accepted);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(DRAINED, |_, world: &World| {
                let ended = world.writes.iter().all(|write| *write == Write::Ended);
                world.said != Some(Outcome::Drained) || ended
            }),
            Property::always(ACCEPTED, |_, world: &World| {
                let running = world.writes.contains(&Write::Running);
                world.said != Some(Outcome::DrainedWithUnknown) || (world.accepted && !running)
            }),
            Property::sometimes("a drain ends", |_, world: &World| {
                world.said == Some(Outcome::Drained)
            }),
            Property::sometimes("a drain ends with accepted loss", |_, world: &World| {
                world.said == Some(Outcome::DrainedWithUnknown)
            }),
        ]
    }
}

const DRAINED: &str = "drained says that every outcome is known";
const ACCEPTED: &str = "unknown outcomes are left only where the operator accepted them";

#[test]
fn a_drain_never_says_drained_while_an_outcome_is_unknown() {
    Proof { planted: None }
        .checker()
        .spawn_bfs()
        .join()
        .assert_properties();
}

#[test]
fn the_proof_notices_a_drain_that_ignores_unknown() {
    let planted = Some(Mutant::DrainedIgnoresUnknown);
    let checker = Proof { planted }.checker().spawn_bfs().join();
    assert!(checker.discovery(DRAINED).is_some());
}
