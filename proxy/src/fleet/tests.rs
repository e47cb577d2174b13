//! What a directory says after each kind of stop, loss and damage.

use std::fs;
use std::path::Path;

use super::backends::left_open;
use super::*;

fn groups() -> Vec<String> {
    vec!["main".to_owned()]
}

fn open(dir: &Path) -> (LocalStore, Start) {
    LocalStore::open(dir, &groups()).unwrap()
}

fn record(epoch: u64, phase: StoredPhase) -> GateRecord {
    GateRecord {
        version: VERSION,
        group: "main".to_owned(),
        epoch,
        phase,
        primary: "a".to_owned(),
        identity: None,
        run: None,
        at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

#[tokio::test]
async fn a_phase_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    assert!(matches!(store.load("main"), Found::FirstStart(None)));
    store.put(record(3, StoredPhase::Fenced)).await.unwrap();
    drop(store);
    let (store, start) = open(dir.path());
    assert!(!start.clean, "nobody said that the stop was clean");
    let Found::Record(found) = store.load("main") else {
        panic!("no record")
    };
    assert_eq!(found, record(3, StoredPhase::Fenced));
}

#[test]
fn a_second_daemon_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let second = LocalStore::open(dir.path(), &groups());
    assert!(
        matches!(second, Err(StoreError::Locked { .. })),
        "{second:?}"
    );
}

#[tokio::test]
async fn an_undecided_first_start_is_one_again() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.put(record(2, StoredPhase::New)).await.unwrap();
    drop(store);
    assert!(matches!(
        open(dir.path()).0.load("main"),
        Found::FirstStart(Some(2))
    ));
}

#[test]
fn a_fresh_volume_is_a_first_start() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    assert!(matches!(
        open(dir.path()).0.load("main"),
        Found::FirstStart(None)
    ));
}

#[tokio::test]
async fn a_lost_or_torn_phase_is_not_a_first_start() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.put(record(3, StoredPhase::Open)).await.unwrap();
    drop(store);
    let path = dir.path().join("gate/main.json");
    let text = fs::read_to_string(&path).unwrap();

    for torn in [
        "",
        "{",
        &text[..text.len() / 2],
        &text.replace("main", "other"),
    ] {
        fs::write(&path, torn).unwrap();
        let Found::Lost(why) = open(dir.path()).0.load("main") else {
            panic!("{torn:?}")
        };
        assert!(why.contains("main.json"), "{why}");
    }
    fs::remove_file(&path).unwrap();
    let Found::Lost(why) = open(dir.path()).0.load("main") else {
        panic!("gone")
    };
    assert!(why.contains("is gone"), "{why}");
}

#[test]
fn a_lost_instance_file_keeps_all_groups_fenced() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::remove_file(dir.path().join("instance")).unwrap();
    assert!(matches!(open(dir.path()).0.load("main"), Found::Lost(_)));
}

#[test]
fn a_group_added_later_is_a_first_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let both = ["main".to_owned(), "extra".to_owned()];
    let (store, _) = LocalStore::open(dir.path(), &both).unwrap();
    assert!(matches!(store.load("extra"), Found::FirstStart(None)));
    assert!(
        matches!(store.load("main"), Found::Lost(_)),
        "its file was never written"
    );
}

#[tokio::test]
async fn the_epoch_only_grows() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store.put(record(5, StoredPhase::Open)).await.unwrap();
    let late = store.put(record(5, StoredPhase::Fenced)).await;
    assert!(
        matches!(
            late,
            Err(StoreError::Conflict {
                offered: 5,
                stored: 5
            })
        ),
        "{late:?}"
    );
}

#[tokio::test]
async fn a_torn_journal_line_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    store
        .append("r1", "{\"a\":1}".to_owned(), Durability::Sync)
        .await
        .unwrap();
    drop(store);
    let path = dir.path().join("runs/r1.jsonl");
    fs::write(&path, "{\"a\":1}\n{\"b\":").unwrap();
    let (store, _) = open(dir.path());
    assert_eq!(
        store.journals().unwrap(),
        [("r1".to_owned(), vec!["{\"a\":1}".to_owned()])]
    );
    store
        .append("r1", "{\"c\":3}".to_owned(), Durability::Lazy)
        .await
        .unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"c\":3}\n");
}

#[tokio::test]
async fn a_failed_write_names_the_path_and_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    // A directory in the file's place fails for every user, root too.
    fs::create_dir_all(dir.path().join("gate/main.new")).unwrap();
    let error = store.put(record(1, StoredPhase::Fenced)).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("gate/main.new") && text.contains("state_dir"),
        "{text}"
    );
}

#[test]
fn a_clean_stop_leaves_no_predecessor() {
    let dir = tempfile::tempdir().unwrap();
    let (store, start) = open(dir.path());
    let (log, left) = store.incarnation("main", &start).unwrap();
    assert_eq!(left, Predecessor::None);
    log.opened("a", 7);
    assert!(!log.is_settled());
    log.closed("a", 7);
    assert!(log.is_settled());
    store.stopped_clean().unwrap();
    drop(store);
    let (store, start) = open(dir.path());
    assert!(start.clean);
    assert_eq!(
        store.incarnation("main", &start).unwrap().1,
        Predecessor::None
    );
}

#[test]
fn an_unclean_stop_names_what_was_open_until_it_is_proved_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, start) = open(dir.path());
    let (log, _) = store.incarnation("main", &start).unwrap();
    log.opened("a", 7);
    log.opened("a", 8);
    log.closed("a", 7);
    drop((store, log));
    let left = Predecessor::Listed(vec![Backend {
        region: "a".to_owned(),
        pid: 8,
    }]);
    for _ in 0..2 {
        let (store, start) = open(dir.path());
        assert_eq!(store.incarnation("main", &start).unwrap().1, left);
    }
}

#[test]
fn a_lost_or_foreign_log_asks_about_every_older_session() {
    let dir = tempfile::tempdir().unwrap();
    let (store, start) = open(dir.path());
    let _log = store.incarnation("main", &start).unwrap();
    drop(store);
    fs::remove_file(dir.path().join("backends/main")).unwrap();
    let (store, start) = open(dir.path());
    assert_eq!(
        store.incarnation("main", &start).unwrap().1,
        Predecessor::Unlisted
    );
    assert_eq!(left_open("what is this\n"), Predecessor::Unlisted);
    assert_eq!(left_open("+1 a\n-1 a\n+2"), Predecessor::None);
}

#[tokio::test]
async fn memory_store_fails_when_told() {
    let store = MemoryStore::new();
    store.fail_after(1);
    store.put(record(1, StoredPhase::Open)).await.unwrap();
    assert!(store.put(record(2, StoredPhase::Fenced)).await.is_err());
    store.heal();
    store.put(record(2, StoredPhase::Fenced)).await.unwrap();
    assert_eq!(store.written().len(), 2);
}
