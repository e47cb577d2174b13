//! Watches: every change wakes, none is missed.

use super::*;

#[tokio::test(start_paused = true)]
async fn every_change_wakes_every_watch() {
    let changes: [fn(&Arc<Gate>); 5] = [
        |gate| {
            gate.fence(&[Lane::Http], Answer::Hold, plan());
        },
        |gate| gate.extend(plan()),
        |gate| {
            gate.open();
        },
        |gate| gate.set_epoch_at_least(Epoch::new(50)),
        |gate| gate.wake_all(),
    ];
    let gate = open_gate();
    let mut watches = [gate.watch(), gate.watch()];
    for change in changes {
        for watch in &mut watches {
            assert!(
                timeout(MS, watch.changed()).await.is_err(),
                "nothing changed yet"
            );
        }
        change(&gate);
        for watch in &mut watches {
            watch.changed().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_between_two_waits_is_not_missed() {
    let gate = open_gate();
    let mut watch = gate.watch();
    gate.wake_all();
    gate.wake_all();
    watch.changed().await;
    assert!(
        timeout(MS, watch.changed()).await.is_err(),
        "two changes, one look"
    );
}
