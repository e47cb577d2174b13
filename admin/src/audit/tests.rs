//! Known answers, and every kind of damage to an audit of ten thousand records.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use super::*;
use crate::api::Verb;

const RECORDS: u64 = 10_000;

fn entry(n: u64) -> Entry {
    let mut entry = Entry::new(Event::Verb, "accepted").fact("n", n);
    entry.group = Some("main".to_owned());
    entry.verb = Some(Verb::Switchover);
    entry.reason = Some("a ticket, \"quoted\"\n\u{1f}\u{e9}".to_owned());
    entry
}

fn open(state: &Path) -> Log {
    Log::open(
        &state.join("audit"),
        &state.join("audit.key"),
        "writefence/test",
        || 7,
    )
    .unwrap()
}

/// Ten thousand records in three segments, with three checkpoints inside and one at the end.
fn whole() -> &'static (tempfile::TempDir, VerifierKey) {
    static WHOLE: OnceLock<(tempfile::TempDir, VerifierKey)> = OnceLock::new();
    WHOLE.get_or_init(|| {
        let state = tempfile::tempdir().unwrap();
        let log = open(state.path());
        for n in 1..=RECORDS {
            log.append(entry(n));
            if n % 2500 == 0 {
                log.sync().unwrap();
            }
        }
        let key = log.verifier();
        (state, key)
    })
}

/// A copy of the whole audit for a test to damage.
fn copy() -> (tempfile::TempDir, PathBuf) {
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().join("audit");
    fs::create_dir(&dir).unwrap();
    for file in fs::read_dir(whole().0.path().join("audit")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), dir.join(file.file_name())).unwrap();
    }
    (state, dir)
}

/// Rewrites the lines of the segment that holds record `seq`.
fn rewrite(dir: &Path, seq: u64, change: impl FnOnce(&mut Vec<String>, usize)) {
    let path = dir.join(segment_name(seq));
    let text = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = usize::try_from((seq - 1) % RECORDS_PER_SEGMENT).unwrap();
    change(&mut lines, at);
    fs::write(&path, lines.join("\n") + "\n").unwrap();
}

fn found(dir: &Path) -> Vec<(String, Option<u64>)> {
    let verdict = verify_dir(dir, Some(&whole().1), &[]).unwrap();
    let pairs = verdict.damage.into_iter();
    pairs.map(|d| (d.kind, d.record)).collect()
}

fn first(dir: &Path) -> (String, Option<u64>) {
    found(dir).into_iter().next().expect("damage")
}

#[test]
fn the_tree_has_the_roots_of_rfc_6962() {
    // The leaves and roots that implementations of the RFC publish as their test vectors.
    let leaves: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let hex = |hash: Hash| {
        hash.0
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    };
    let mut tree = Tree::default();
    assert_eq!(tree.root(), EMPTY_ROOT);
    let mut roots = Vec::new();
    for leaf in leaves {
        tree.push(leaf_hash(leaf));
        roots.push(hex(tree.root()));
    }
    assert_eq!(
        roots[0],
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    );
    assert_eq!(
        roots[1],
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"
    );
    assert_eq!(
        roots[4],
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"
    );
    assert_eq!(
        roots[7],
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    );
}

#[test]
fn a_note_has_the_signature_that_go_would_write() {
    // RFC 8032, section 7.1, test 1: the seed and its public key.
    let seed = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c,
        0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae,
        0x7f, 0x60,
    ];
    let key = SigningKey::from_seed("example.com/log", seed).unwrap();
    let vkey = key.verifier().to_string();
    assert!(
        vkey.ends_with("+AddamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"),
        "{vkey}"
    );
    assert_eq!(VerifierKey::parse(&vkey).unwrap(), key.verifier());
    let again = SigningKey::parse(&key.to_text()).unwrap();
    assert_eq!(again.verifier(), key.verifier());
    let note = key.sign("example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n");
    assert!(Checkpoint::open(&note, &key.verifier()).is_ok());
    let other = note.replace("\n0\n", "\n1\n");
    assert!(matches!(
        Checkpoint::open(&other, &key.verifier()),
        Err(CheckpointError::Note(NoteError::BadSignature(_)))
    ));
    let stranger = SigningKey::from_seed("example.com/log", [1; 32]).unwrap();
    assert!(matches!(
        Checkpoint::open(&note, &stranger.verifier()),
        Err(CheckpointError::Note(NoteError::OtherKey(_)))
    ));
}

#[test]
fn ten_thousand_records_hold() {
    let began = Instant::now();
    let verdict = verify_dir(&whole().0.path().join("audit"), Some(&whole().1), &[]).unwrap();
    eprintln!("{RECORDS} records checked in {:?}", began.elapsed());
    assert_eq!(verdict.damage, []);
    assert_eq!((verdict.records, verdict.segments), (RECORDS, 3));
    assert_eq!(verdict.signed_size, Some(RECORDS));
    assert!(verdict.result().is_ok());
}

#[test]
fn an_edited_record_is_named() {
    let (_state, dir) = copy();
    rewrite(&dir, 6000, |lines, at| {
        lines[at] = lines[at].replace("accepted", "refused!");
    });
    assert_eq!(first(&dir), ("edited".to_owned(), Some(6000)));
}

#[test]
fn a_record_written_in_another_way_is_named() {
    let (_state, dir) = copy();
    rewrite(&dir, 77, |lines, at| {
        lines[at] = lines[at].replace("\":", "\": ")
    });
    assert_eq!(first(&dir), ("edited".to_owned(), Some(77)));
}

#[test]
fn an_edited_last_record_is_named_by_the_checkpoint() {
    let (_state, dir) = copy();
    rewrite(&dir, RECORDS, |lines, at| {
        lines[at] = lines[at].replace("accepted", "refused!");
    });
    let (kind, record) = first(&dir);
    assert_eq!(kind, "replaced");
    // Behind the last checkpoint that holds; no record follows that would name it.
    assert_eq!(record, Some(7501));
}

#[test]
fn a_missing_record_is_named() {
    let (_state, dir) = copy();
    rewrite(&dir, 4242, |lines, at| drop(lines.remove(at)));
    assert_eq!(first(&dir), ("missing".to_owned(), Some(4242)));
}

#[test]
fn a_missing_segment_is_named_by_its_first_record() {
    let (_state, dir) = copy();
    fs::remove_file(dir.join(segment_name(5000))).unwrap();
    assert_eq!(
        first(&dir),
        ("missing".to_owned(), Some(RECORDS_PER_SEGMENT + 1))
    );
}

#[test]
fn two_records_that_changed_places_are_named() {
    let (_state, dir) = copy();
    rewrite(&dir, 8000, |lines, at| lines.swap(at, at + 1));
    let found = found(&dir);
    assert_eq!(found[0], ("reordered".to_owned(), Some(8001)));
    assert_eq!(found[1], ("reordered".to_owned(), Some(8000)));
}

#[test]
fn a_torn_record_is_named() {
    let (_state, dir) = copy();
    let path = dir.join(segment_name(RECORDS));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    assert_eq!(first(&dir), ("torn".to_owned(), Some(RECORDS)));
}

#[test]
fn a_tail_that_was_cut_off_is_named() {
    let (_state, dir) = copy();
    rewrite(&dir, 9990, |lines, at| lines.truncate(at));
    assert_eq!(first(&dir), ("rolled_back".to_owned(), Some(9990)));
}

#[test]
fn a_tail_that_was_cut_off_with_its_checkpoints_shows_against_one_kept_elsewhere() {
    let (_state, dir) = copy();
    let kept = Log::open(
        &whole().0.path().join("audit"),
        &whole().0.path().join("audit.key"),
        "x",
        || 0,
    );
    let kept = kept.unwrap().sync().unwrap().checkpoint;
    rewrite(&dir, 9990, |lines, at| lines.truncate(at));
    let notes = dir.join(notes_name(&segment_name(9990)));
    let text = fs::read_to_string(&notes).unwrap();
    // Of the notes of that segment the one at 10,000 goes.
    let left: Vec<&str> = text.split_inclusive('\n').take(0).collect();
    fs::write(&notes, left.concat()).unwrap();
    assert_eq!(found(&dir), []);
    let verdict = verify_dir(&dir, Some(&whole().1), &[kept]).unwrap();
    assert_eq!(verdict.damage[0].kind, "rolled_back");
    assert_eq!(verdict.damage[0].record, Some(9990));
    let error = verdict.result().unwrap_err();
    assert_eq!(error.code.exit(), crate::api::Exit::VerifyFailed);
}

#[test]
fn a_chain_that_was_written_anew_is_found_between_two_checkpoints() {
    let (_state, dir) = copy();
    // From record 6000 on everything is written again, each with the right hash of the one before.
    let mut prev = None;
    for seq in [6000, RECORDS_PER_SEGMENT * 2 + 1] {
        rewrite(&dir, seq, |lines, at| {
            for line in &mut lines[at..] {
                let mut record = Line::decode(line.as_bytes()).unwrap();
                if record.seq == 6000 {
                    record.entry.outcome = "refused".to_owned();
                }
                record.prev = prev.unwrap_or(record.prev);
                prev = Some(record.hash());
                *line = String::from_utf8(record.encode()).unwrap();
            }
        });
    }
    assert_eq!(found(&dir), [("replaced".to_owned(), Some(5001))]);
}

#[test]
fn a_checkpoint_signed_by_another_key_is_found() {
    let (_state, dir) = copy();
    let other = SigningKey::from_seed("writefence/test", [3; 32]).unwrap();
    let verdict = verify_dir(&dir, Some(&other.verifier()), &[]).unwrap();
    assert_eq!(verdict.damage[0].kind, "checkpoint");
    // Without a key the chain and the roots are compared all the same, and the verdict says so.
    let verdict = verify_dir(&dir, None, &[]).unwrap();
    assert!(!verdict.signatures_checked && verdict.damage.is_empty());
}

#[test]
fn a_restart_goes_on_behind_the_last_record() {
    let state = tempfile::tempdir().unwrap();
    for n in 0..3 {
        let log = open(state.path());
        log.append(entry(n));
        assert_eq!(log.sync().unwrap().size, n + 1);
    }
    let key = open(state.path()).verifier();
    let verdict = verify_dir(&state.path().join("audit"), Some(&key), &[]).unwrap();
    assert_eq!((verdict.records, verdict.damage), (3, vec![]));
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(state.path().join("audit.key")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_torn_end_is_cut_at_the_start_and_a_record_says_so() {
    let state = tempfile::tempdir().unwrap();
    let log = open(state.path());
    log.append(entry(1));
    log.sync().unwrap();
    log.append(entry(2));
    drop(log);
    let path = state.path().join("audit").join(segment_name(1));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
    let log = open(state.path());
    log.sync().unwrap();
    let page = log.read(1, 10).unwrap();
    assert_eq!(page.lines.len(), 1);
    assert!(page.lines[0].contains("\"outcome\":\"torn\""), "{page:?}");
    let key = log.verifier();
    let verdict = verify_dir(&state.path().join("audit"), Some(&key), &[]).unwrap();
    assert_eq!(verdict.damage, []);
}

#[test]
fn a_damaged_audit_is_put_aside_as_it_is_and_the_new_one_says_so() {
    let (state, dir) = copy();
    fs::copy(
        whole().0.path().join("audit.key"),
        state.path().join("audit.key"),
    )
    .unwrap();
    rewrite(&dir, 9990, |lines, at| lines.truncate(at));
    let log = open(state.path());
    log.sync().unwrap();
    let page = log.read(0, 10).unwrap();
    assert!(page.lines[0].contains("the end was cut off"), "{page:?}");
    let aside = fs::read_dir(state.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.to_string_lossy().contains("audit-damaged-"))
        .unwrap();
    assert_eq!(first(&aside), ("rolled_back".to_owned(), Some(9990)));
}

#[test]
fn what_the_disk_does_not_take_is_written_when_it_does_again() {
    let state = tempfile::tempdir().unwrap();
    let log = open(state.path());
    log.append(entry(1));
    log.sync().unwrap();
    // A directory stands where the second segment's file should be: nothing can be written there.
    for n in 2..=RECORDS_PER_SEGMENT {
        log.append(entry(n));
    }
    let next = state
        .path()
        .join("audit")
        .join(segment_name(RECORDS_PER_SEGMENT + 1));
    fs::create_dir(&next).unwrap();
    log.append(entry(RECORDS_PER_SEGMENT + 1));
    assert!(log.broken().unwrap().contains("1 records wait"));
    assert!(log.sync().is_err());
    for n in 0..2000 {
        log.append(entry(n));
    }
    fs::remove_dir(&next).unwrap();
    log.append(entry(9));
    let size = log.sync().unwrap().size;
    assert_eq!(log.broken(), None);
    // In their order: what was left out, then what came when there was room again.
    let page = log.read(size - 2, 5).unwrap();
    assert!(page.lines[0].contains("found no place"), "{page:?}");
    assert!(page.lines[1].contains("\"n\":\"9\""), "{page:?}");
    let key = log.verifier();
    let verdict = verify_dir(&state.path().join("audit"), Some(&key), &[]).unwrap();
    assert_eq!(verdict.damage, []);
}

#[test]
fn a_record_of_any_length_is_written_so_that_it_can_be_read() {
    let line = |text: String| {
        let mut entry = Entry::new(Event::Verb, "accepted").fact("text", &text);
        entry.reason = Some(text);
        Line {
            seq: 1,
            prev: EMPTY_ROOT,
            entry,
        }
    };
    for n in [10, 4095, 4096, 4097, 5000] {
        for letter in ["a", "\u{e9}", "\u{20ac}", "\u{1f600}"] {
            let bytes = line(letter.repeat(n)).encode();
            assert!(Line::decode(&bytes).is_ok(), "{n} {letter}");
        }
    }
    assert_eq!(Line::decode(&vec![b'x'; 70_000]), Err(LineError::TooLong));
}
