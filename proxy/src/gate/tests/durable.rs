//! Phase changes whose record does not become durable, or not in time.

use super::*;

#[tokio::test]
async fn a_fence_that_is_not_durable_stands_in_memory_and_says_so() {
    let gate = open_gate();
    let store = |_| async { Err("the disk is full") };
    let done = fence_durably(&gate, &Lane::ALL, Answer::Hold, plan(), store).await;
    assert!(matches!(
        done,
        Err(DurableError::NotStored {
            source: "the disk is full",
            ..
        })
    ));
    assert_eq!(
        gate.look(Lane::Sql),
        look(8, Phase::Fenced(Answer::Hold), false)
    );
}

#[tokio::test]
async fn an_open_that_is_not_durable_stays_fenced() {
    let gate = holding_gate();
    let done = open_durably(&gate, |_| async { Err("the disk is full") }).await;
    assert!(matches!(
        done,
        Err(DurableError::NotStored {
            phase: Phase::Open,
            ..
        })
    ));
    assert_eq!(
        gate.look(Lane::Sql),
        look(8, Phase::Fenced(Answer::Hold), false)
    );
}

#[tokio::test]
async fn an_open_overtaken_by_a_fence_does_not_open() {
    let gate = holding_gate();
    let overtaking = |_| async {
        gate.fence(&Lane::ALL, Answer::Reject, plan());
        Ok::<_, &str>(())
    };
    let done = open_durably(&gate, overtaking).await;
    let (epoch, found) = (Epoch::new(9), Epoch::new(9));
    assert!(
        matches!(done, Err(DurableError::Overtaken { epoch: e, found: f }) if (e, f) == (epoch, found))
    );
    assert_eq!(gate.look(Lane::Sql).phase, Phase::Fenced(Answer::Reject));
}

#[tokio::test]
async fn the_record_has_the_epoch_that_the_gate_then_has() {
    let gate = open_gate();
    let mut records = Vec::new();
    for _ in 0..2 {
        let store = |record| {
            records.push(record);
            async { Ok::<_, &str>(()) }
        };
        let epoch = fence_durably(&gate, &Lane::ALL, Answer::Hold, plan(), store)
            .await
            .expect("the store works");
        assert_eq!(epoch, gate.look(Lane::Sql).epoch);
        let store = |record| {
            records.push(record);
            async { Ok::<_, &str>(()) }
        };
        assert_eq!(
            open_durably(&gate, store).await.expect("the store works"),
            gate.look(Lane::Sql).epoch
        );
    }
    let epochs: Vec<_> = records.iter().map(|record| record.epoch.value()).collect();
    assert_eq!(epochs, [8, 9, 10, 11]);
}
