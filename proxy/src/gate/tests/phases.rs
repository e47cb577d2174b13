//! Phases, epochs and plans: the table of moves and what a look shows.

use super::*;

fn check_move(from: (Phase, bool), step: Move, to: Option<(u64, Phase, bool)>) {
    let from = look(7, from.0, from.1);
    let to = to.map(|(epoch, phase, releasing)| look(epoch, phase, releasing));
    assert_eq!(from.after(step), to, "{step:?} from {from:?}");
}

#[test]
fn the_table_of_moves_is_whole() {
    let open = (Phase::Open, false);
    let releasing = (Phase::Open, true);
    let hold = (Phase::Fenced(Answer::Hold), false);
    let reject = (Phase::Fenced(Answer::Reject), false);
    for from in [open, releasing, hold, reject] {
        for answer in [Answer::Hold, Answer::Reject] {
            check_move(
                from,
                Move::Fence(answer),
                Some((8, Phase::Fenced(answer), false)),
            );
        }
        check_move(from, Move::Open, Some((8, Phase::Open, false)));
        check_move(from, Move::OpenReleasing, Some((8, Phase::Open, true)));
        check_move(from, Move::Stand, Some((8, from.0, from.1)));
    }
    check_move(releasing, Move::Released, Some((7, Phase::Open, false)));
    for from in [open, hold, reject] {
        check_move(from, Move::Released, None);
    }
}

#[test]
fn a_gate_comes_up_fenced_and_rejecting() {
    let gate = Gate::new(limits(), Epoch::new(3));
    for lane in Lane::ALL {
        assert_eq!(
            gate.look(lane),
            look(3, Phase::Fenced(Answer::Reject), false)
        );
        assert_eq!(gate.admit(lane).err(), Some(gate.look(lane)));
    }
}

#[test]
fn a_lane_fenced_later_keeps_the_first_one_fenced_under_one_epoch() {
    let gate = open_gate();
    assert_eq!(
        gate.fence(&[Lane::Http], Answer::Hold, plan()),
        Epoch::new(8)
    );
    assert_eq!(gate.look(Lane::Sql), look(8, Phase::Open, false));
    drop(permit(&gate));
    assert_eq!(
        gate.fence(&[Lane::Sql], Answer::Reject, plan()),
        Epoch::new(9)
    );
    assert_eq!(
        gate.look(Lane::Http),
        look(9, Phase::Fenced(Answer::Hold), false)
    );
    assert_eq!(
        gate.look(Lane::Sql),
        look(9, Phase::Fenced(Answer::Reject), false)
    );
}

#[test]
fn the_epoch_only_grows() {
    let gate = open_gate();
    gate.set_epoch_at_least(Epoch::new(2));
    assert_eq!(gate.look(Lane::Sql).epoch, Epoch::new(7));
    gate.set_epoch_at_least(Epoch::new(20));
    assert_eq!(gate.look(Lane::Http), look(20, Phase::Open, false));
    assert_eq!(gate.open(), Epoch::new(21));
}

#[test]
fn a_damaged_epoch_never_becomes_a_smaller_one() {
    assert_eq!(Epoch::new(u64::MAX), Epoch::MAX);
    assert_eq!(Epoch::MAX.next(), Epoch::MAX);
    let gate = Gate::new(limits(), Epoch::new(u64::MAX));
    assert_eq!(gate.look(Lane::Sql).epoch, Epoch::MAX);
}

#[test]
fn the_plan_lives_as_long_as_the_fence() {
    let gate = Gate::new(limits(), Epoch::new(1));
    gate.extend(plan());
    assert!(gate.plan().is_none(), "there is no fence to extend");
    gate.fence(&Lane::ALL, Answer::Hold, plan());
    let epoch = gate.look(Lane::Sql).epoch;
    let longer = Plan {
        deadline: soon(),
        ..plan()
    };
    gate.extend(longer.clone());
    assert_eq!(gate.plan().as_deref(), Some(&longer));
    assert_eq!(gate.look(Lane::Sql).epoch, epoch);
    gate.open();
    assert!(gate.plan().is_none());
}
