//! What is left of it after a restart, an interrupted write, and damage.

use ferrypost_proto::routing::v1::{
    AccountEntry, Change, Head, TablePosition as WirePosition, change::Change as Kind,
};

use super::{
    frame::{HEADER, body_length},
    *,
};

fn position(store: u64) -> WirePosition {
    WirePosition {
        revision: Some(ferrypost_proto::v1::Revision { base: 0, store }),
        head: Some(Head {
            store,
            nonce: vec![7; 16].into(),
        }),
    }
}

fn entry(account: &str, home: &str) -> AccountEntry {
    AccountEntry {
        account_id: account.into(),
        home: home.into(),
        ..AccountEntry::default()
    }
}

fn chunk(index: u32, last: bool, accounts: Vec<AccountEntry>) -> SnapshotChunk {
    SnapshotChunk {
        position: Some(position(5)),
        index,
        last,
        accounts,
        ..SnapshotChunk::default()
    }
}

fn delta(to: u64, entry: AccountEntry) -> Delta {
    Delta {
        from: None,
        to: Some(position(to)),
        changes: vec![Change {
            change: Some(Kind::Account(entry)),
        }],
    }
}

/// With a snapshot at 5 and a delta to 9.
fn witness(directory: &Path) -> Witness {
    let mut witness = Witness::open(directory).unwrap();
    witness
        .chunk(&chunk(0, false, vec![entry("a", "old")]))
        .unwrap();
    witness
        .chunk(&chunk(1, true, vec![entry("b", "old")]))
        .unwrap();
    witness.complete(position(5).into()).unwrap();
    witness.delta(&delta(9, entry("a", "new"))).unwrap();
    witness
}

fn homes(witness: &Witness) -> Vec<(String, String)> {
    let all = witness.read().unwrap().unwrap();
    let accounts = all.accounts.into_values();
    accounts
        .map(|entry| (entry.account_id, entry.home))
        .collect()
}

fn expected() -> Vec<(String, String)> {
    [("a", "new"), ("b", "old")]
        .map(|(a, b)| (a.into(), b.into()))
        .to_vec()
}

#[test]
fn what_was_acknowledged_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Witness::open(dir.path()).unwrap().position(), None);
    drop(witness(dir.path()));
    let again = Witness::open(dir.path()).unwrap();
    assert_eq!(again.position(), Some(&position(9).into()));
    assert!(again.is_current());
    assert_eq!(homes(&again), expected());
}

#[test]
fn an_interrupted_write_was_never_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    drop(witness(dir.path()));
    let path = dir.path().join(WITNESS);
    let whole = fs::read(&path).unwrap();
    let next = frame::of(&delta(12, entry("b", "new")));
    for cut in 0..next.len() {
        fs::write(&path, [&whole[..], &next[..cut]].concat()).unwrap();
        let mut again = Witness::open(dir.path()).unwrap();
        assert_eq!(again.position(), Some(&position(9).into()), "{cut} octets");
        // And it goes on behind what was whole.
        again.delta(&delta(13, entry("c", "new"))).unwrap();
        let again = Witness::open(dir.path()).unwrap();
        assert_eq!(again.position(), Some(&position(13).into()), "{cut} octets");
    }
    fs::write(&path, [&whole[..], &vec![0; next.len()]].concat()).unwrap();
    let again = Witness::open(dir.path()).unwrap();
    assert_eq!(again.position(), Some(&position(9).into()));
}

#[test]
fn damage_is_an_error_and_never_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(witness(dir.path()));
    let path = dir.path().join(WITNESS);
    let whole = fs::read(&path).unwrap();
    let first = HEADER + body_length(whole[..HEADER].try_into().unwrap()).unwrap();
    for at in 0..first {
        let mut wrong = whole.clone();
        wrong[at] ^= 0x40;
        fs::write(&path, &wrong).unwrap();
        let error = Witness::open(dir.path()).unwrap_err();
        assert!(
            matches!(error, StateDirError::Damaged { .. }),
            "{at}: {error}"
        );
    }
    // A file that ends before its snapshot does was never put in place.
    for cut in [0, 3, first] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(Witness::open(dir.path()).is_err(), "{cut}");
    }
}

#[test]
fn whoever_left_may_have_missed_moves_until_the_next_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    witness(dir.path()).leave().unwrap();
    let mut again = Witness::open(dir.path()).unwrap();
    assert!(!again.is_current());
    assert_eq!(
        again.position(),
        Some(&position(9).into()),
        "it proves a restore all the same"
    );
    again.chunk(&chunk(0, true, vec![])).unwrap();
    again.complete(position(20).into()).unwrap();
    assert!(Witness::open(dir.path()).unwrap().is_current());
}

#[test]
fn a_snapshot_behind_the_goodbye_does_not_make_it_current() {
    let dir = tempfile::tempdir().unwrap();
    let mut leaving = witness(dir.path());
    leaving.chunk(&chunk(0, true, vec![])).unwrap();
    leaving.leave().unwrap();
    leaving.complete(position(20).into()).unwrap();
    assert!(!leaving.is_current());
    assert!(!Witness::open(dir.path()).unwrap().is_current());
}

#[test]
fn deltas_that_outweigh_the_snapshot_are_folded_into_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut witness = witness(dir.path());
    let heavy = AccountEntry {
        traceparent: "x".repeat(1 << 20),
        ..entry("c", "old")
    };
    for to in 10..16 {
        witness.delta(&delta(to, heavy.clone())).unwrap();
    }
    let length = fs::metadata(dir.path().join(WITNESS)).unwrap().len();
    assert!(length < 4 << 20, "{length}");
    let again = Witness::open(dir.path()).unwrap();
    assert_eq!(again.position(), Some(&position(15).into()));
    assert_eq!(homes(&again).len(), 3);
}
