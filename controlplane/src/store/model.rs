//! Both stores against one reference model: a map in memory that remembers every revision.
//!
//! proptest makes up histories of operations; each is performed on a store and on the model, and
//! every answer must be the one that the model gives. A history that fails is shrunk to the
//! shortest one that still does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

use super::conformance::{LIMIT, events_up_to, next};
use super::embedded::{EmbeddedConfig, EmbeddedStore};
use super::testing::EtcdServer;
use super::{
    Event, Guard, KeyValue, LeaseError, LeaseId, Rev, Store, StoreError, Txn, TxnOutcome,
    WatchError, Write,
};

/// Few keys, so that histories meet themselves, with prefixes of each other among them.
const KEYS: [&[u8]; 7] = [b"a", b"a/", b"a/1", b"a/2", b"b", b"\0", b"\xff\xff"];

const PREFIXES: [&[u8]; 6] = [b"", b"a", b"a/", b"b", b"c", b"\xff"];

/// Histories for each store: some seconds of them. More find no more once the shape is right.
const CASES: u32 = 32;

/// Operations in one history.
const LENGTH: usize = 40;

#[derive(Clone, Debug)]
enum Op {
    Transact {
        guards: Vec<(usize, Expectation)>,
        writes: Vec<(usize, Change)>,
    },
    Get(usize),
    Range {
        prefix: usize,
        pin: Option<u64>,
    },
    Watch {
        back: u64,
    },
    Compact {
        back: u64,
    },
    Grant,
    KeepAlive(usize),
    Revoke(usize),
    Reopen,
}

/// What a guard demands of its key.
#[derive(Clone, Debug)]
enum Expectation {
    AsItIs,
    Absent,
    Exists,
    /// A revision this far below the present one of the store.
    Back(u64),
}

#[derive(Clone, Debug)]
enum Change {
    Put(u8),
    /// A put with one of the leases that were granted, if there is one.
    PutLeased(u8, usize),
    Delete,
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..KEYS.len();
    let expectation = prop_oneof![
        4 => Just(Expectation::AsItIs),
        1 => Just(Expectation::Absent),
        1 => Just(Expectation::Exists),
        1 => (0..6_u64).prop_map(Expectation::Back),
    ];
    let change = prop_oneof![
        4 => any::<u8>().prop_map(Change::Put),
        1 => (any::<u8>(), 0..4_usize).prop_map(|(value, lease)| Change::PutLeased(value, lease)),
        2 => Just(Change::Delete),
    ];
    let transact = (
        vec((key.clone(), expectation), 0..3),
        vec((key.clone(), change), 0..4),
    )
        .prop_map(|(guards, writes)| Op::Transact { guards, writes });
    let pin = proptest::option::of(0..12_u64);
    prop_oneof![
        16 => transact,
        4 => key.prop_map(Op::Get),
        4 => (0..PREFIXES.len(), pin).prop_map(|(prefix, pin)| Op::Range { prefix, pin }),
        2 => (0..12_u64).prop_map(|back| Op::Watch { back }),
        1 => (0..12_u64).prop_map(|back| Op::Compact { back }),
        1 => Just(Op::Grant),
        1 => (0..4_usize).prop_map(Op::KeepAlive),
        1 => (0..4_usize).prop_map(Op::Revoke),
        1 => Just(Op::Reopen),
    ]
}

type State = BTreeMap<Vec<u8>, KeyValue>;

/// The truth.
struct Model {
    revision: Rev,
    floor: Rev,
    /// The state after each change, and at the beginning.
    states: BTreeMap<Rev, State>,
    log: Vec<Event>,
    leases: Vec<(LeaseId, bool)>,
    leased: BTreeMap<Vec<u8>, LeaseId>,
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Conflict,
    LeaseLost,
    Unchanged,
    Changed,
}

impl Model {
    fn new(revision: Rev) -> Self {
        Self {
            revision,
            floor: revision,
            states: BTreeMap::from([(revision, State::new())]),
            log: Vec::new(),
            leases: Vec::new(),
            leased: BTreeMap::new(),
        }
    }

    fn state(&self, at: Rev) -> &State {
        self.states
            .range(..=at)
            .next_back()
            .expect("it begins before every pin")
            .1
    }

    fn present(&self) -> &State {
        self.state(self.revision)
    }

    fn mod_revision(&self, key: &[u8]) -> Rev {
        self.present()
            .get(key)
            .map_or(0, |entry| entry.mod_revision)
    }

    fn is_alive(&self, lease: LeaseId) -> bool {
        self.leases.contains(&(lease, true))
    }

    fn judge(&self, txn: &Txn) -> Verdict {
        let holds = |guard: &Guard| match guard {
            Guard::Revision { key, is } => self.mod_revision(key) == *is,
            Guard::Exists { key } => self.mod_revision(key) > 0,
        };
        let is_lost = |write: &Write| match write {
            Write::Put {
                lease: Some(lease), ..
            } => !self.is_alive(*lease),
            _ => false,
        };
        let changes = |write: &Write| match write {
            Write::Put { .. } => true,
            Write::Delete { key } => self.mod_revision(key) > 0,
        };
        if !txn.guards.iter().all(holds) {
            Verdict::Conflict
        } else if txn.writes.iter().any(is_lost) {
            Verdict::LeaseLost
        } else if txn.writes.iter().any(changes) {
            Verdict::Changed
        } else {
            Verdict::Unchanged
        }
    }

    fn apply(&mut self, writes: &[Write], revision: Rev) {
        assert!(
            revision > self.revision,
            "{revision} does not rise above {}",
            self.revision
        );
        let mut state = self.present().clone();
        for write in writes {
            let key = write.key().to_vec();
            match write {
                Write::Put { value, lease, .. } => {
                    let elder = state.get(&key);
                    let entry = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        mod_revision: revision,
                        create_revision: elder.map_or(revision, |elder| elder.create_revision),
                    };
                    self.log.push(Event::Put(entry.clone()));
                    state.insert(key.clone(), entry);
                    self.leased.remove(&key);
                    self.leased.extend(lease.map(|lease| (key, lease)));
                }
                Write::Delete { .. } => {
                    if state.remove(&key).is_some() {
                        self.log.push(Event::Delete {
                            key: key.clone(),
                            mod_revision: revision,
                        });
                    }
                    self.leased.remove(&key);
                }
            }
        }
        self.states.insert(revision, state);
        self.revision = revision;
    }

    /// What the end of leases deletes.
    fn deletions(&self, ended: impl Fn(LeaseId) -> bool) -> Vec<Write> {
        let keys = self.leased.iter().filter(|(_, lease)| ended(**lease));
        keys.map(|(key, _)| Write::Delete { key: key.clone() })
            .collect()
    }

    fn events(&self, from: Rev) -> Vec<Event> {
        let mut events: Vec<_> = self
            .log
            .iter()
            .filter(|event| event.mod_revision() >= from)
            .cloned()
            .collect();
        sort(&mut events);
        events
    }
}

/// The order of events within a revision is not promised.
fn sort(events: &mut [Event]) {
    events.sort_by(|a, b| (a.mod_revision(), a.key()).cmp(&(b.mod_revision(), b.key())));
}

/// A store and its truth.
struct Run<B> {
    bench: B,
    store: Arc<dyn Store>,
    model: Model,
}

/// Where stores of one kind come from.
trait Bench {
    async fn fresh(&mut self) -> Arc<dyn Store>;

    /// The same store through a new handle, and whether its leases outlive the old one.
    async fn reopen(&mut self) -> (Arc<dyn Store>, bool);
}

impl<B: Bench> Run<B> {
    async fn start(mut bench: B) -> Self {
        let store = bench.fresh().await;
        let revision = store.revision().await.unwrap();
        store.compact(revision).await.unwrap();
        Self {
            bench,
            store,
            model: Model::new(revision),
        }
    }

    async fn perform(&mut self, op: Op) {
        match op {
            Op::Transact { guards, writes } => self.transact(&guards, &writes).await,
            Op::Get(key) => {
                let expected = self.model.present().get(KEYS[key]).cloned();
                let answer = self.store.get(KEYS[key]).await.unwrap();
                assert_eq!(answer, (expected, self.model.revision));
            }
            Op::Range { prefix, pin } => self.range(PREFIXES[prefix], pin).await,
            Op::Watch { back } => self.watch(self.model.revision.saturating_sub(back)).await,
            Op::Compact { back } => {
                let to = self.model.revision.saturating_sub(back);
                self.store.compact(to).await.unwrap();
                self.model.floor = self.model.floor.max(to);
            }
            Op::Grant => {
                let lease = self.store.grant(LIMIT * 60).await.unwrap();
                assert!(self.model.leases.iter().all(|(other, _)| *other != lease));
                self.model.leases.push((lease, true));
            }
            Op::KeepAlive(lease) => {
                let Some(&(lease, alive)) = self.model.leases.get(lease) else {
                    return;
                };
                let expected = if alive { Ok(()) } else { Err(LeaseError::Lost) };
                assert_eq!(self.store.keep_alive(lease).await, expected);
            }
            Op::Revoke(lease) => self.revoke(lease).await,
            Op::Reopen => self.reopen().await,
        }
    }

    async fn transact(&mut self, guards: &[(usize, Expectation)], writes: &[(usize, Change)]) {
        let txn = self.txn(guards, writes);
        let verdict = self.model.judge(&txn);
        let outcome = self.store.transact(txn.clone()).await;
        let expected = match verdict {
            Verdict::Conflict => Ok(TxnOutcome::Conflict {
                revision: self.model.revision,
            }),
            Verdict::LeaseLost => Err(StoreError::LeaseLost),
            Verdict::Unchanged => Ok(TxnOutcome::Committed(self.model.revision)),
            Verdict::Changed => {
                let revision = outcome
                    .expect("it changes something")
                    .committed()
                    .expect("{txn:?}");
                return self.model.apply(&txn.writes, revision);
            }
        };
        assert_eq!(outcome, expected, "{txn:?}");
    }

    fn txn(&self, guards: &[(usize, Expectation)], writes: &[(usize, Change)]) -> Txn {
        let mut txn = Txn::new();
        for (key, expectation) in guards {
            let key = KEYS[*key];
            txn = match expectation {
                Expectation::AsItIs => txn.at(key, self.model.mod_revision(key)),
                Expectation::Absent => txn.absent(key),
                Expectation::Exists => txn.exists(key),
                Expectation::Back(back) => txn.at(key, self.model.revision.saturating_sub(*back)),
            };
        }
        let mut written = BTreeSet::new();
        for (key, change) in writes {
            if !written.insert(key) {
                continue;
            }
            let key = KEYS[*key];
            txn = match change {
                Change::Put(value) => txn.put(key, Bytes::from(vec![*value; 3])),
                Change::PutLeased(value, lease) => match self.model.leases.get(*lease) {
                    Some((lease, _)) => txn.put_leased(key, Bytes::from(vec![*value]), *lease),
                    None => txn.put(key, Bytes::from(vec![*value])),
                },
                Change::Delete => txn.delete(key),
            };
        }
        txn
    }

    async fn range(&self, prefix: &[u8], pin: Option<u64>) {
        let at = pin.map(|back| (self.model.revision + 2).saturating_sub(back));
        let answer = self.store.range(prefix, at).await;
        let revision = at.unwrap_or(self.model.revision);
        if revision < self.model.floor {
            assert!(
                matches!(answer, Err(StoreError::Compacted { .. })),
                "{at:?}: {answer:?}"
            );
        } else if revision > self.model.revision {
            assert_eq!(answer, Err(StoreError::Future));
        } else {
            let range = answer.unwrap();
            let state = self.model.state(revision).values();
            let expected: Vec<_> = state
                .filter(|entry| entry.key.starts_with(prefix))
                .cloned()
                .collect();
            assert_eq!((range.entries, range.revision), (expected, revision));
        }
    }

    async fn watch(&self, from: Rev) {
        let mut watch = self.store.watch(from).await.unwrap();
        // The first change of any store has revision 2, so that asking for 1 leaves nothing out.
        if from.max(2) <= self.model.floor {
            let error = next(&mut watch).await.unwrap_err();
            assert!(
                matches!(error, WatchError::Compacted { .. }),
                "{from}: {error:?}"
            );
        } else {
            let mut events = events_up_to(&mut watch, self.model.revision).await;
            sort(&mut events);
            assert_eq!(events, self.model.events(from), "from {from}");
        }
    }

    async fn revoke(&mut self, lease: usize) {
        let Some(entry) = self.model.leases.get_mut(lease) else {
            return;
        };
        entry.1 = false;
        let lease = entry.0;
        self.store.revoke(lease).await.unwrap();
        self.end(|other| other == lease).await;
    }

    async fn reopen(&mut self) {
        let (store, leases_live) = self.bench.reopen().await;
        self.store = store;
        if !leases_live {
            self.model
                .leases
                .iter_mut()
                .for_each(|(_, alive)| *alive = false);
            self.end(|_| true).await;
        }
    }

    async fn end(&mut self, ended: impl Fn(LeaseId) -> bool) {
        let deletions = self.model.deletions(ended);
        if !deletions.is_empty() {
            let revision = self.store.revision().await.unwrap();
            self.model.apply(&deletions, revision);
        }
    }
}

struct EmbeddedBench {
    directory: tempfile::TempDir,
    store: Option<Arc<EmbeddedStore>>,
}

impl EmbeddedBench {
    async fn open(&mut self) -> Arc<dyn Store> {
        let config = EmbeddedConfig::new(self.directory.path().join("store"));
        let store = Arc::new(EmbeddedStore::open(config).await.unwrap());
        self.store = Some(Arc::clone(&store));
        store
    }
}

impl Bench for EmbeddedBench {
    async fn fresh(&mut self) -> Arc<dyn Store> {
        self.open().await
    }

    async fn reopen(&mut self) -> (Arc<dyn Store>, bool) {
        self.store.take().expect("it was opened").close().await;
        (self.open().await, false)
    }
}

/// A prefix of a server that many histories share, one after the other.
struct EtcdBench<'a> {
    server: &'a EtcdServer,
    prefix: String,
}

impl Bench for EtcdBench<'_> {
    async fn fresh(&mut self) -> Arc<dyn Store> {
        Arc::new(self.server.store(&self.prefix).await)
    }

    async fn reopen(&mut self) -> (Arc<dyn Store>, bool) {
        (self.fresh().await, true)
    }
}

fn check(cases: u32, mut perform: impl FnMut(Vec<Op>)) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let perform = std::cell::RefCell::new(&mut perform);
    TestRunner::new(config)
        .run(&vec(op(), 1..LENGTH), |ops| {
            (perform.borrow_mut())(ops);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

async fn run(bench: impl Bench, ops: Vec<Op>) {
    let mut run = Run::start(bench).await;
    for op in ops {
        run.perform(op).await;
    }
    run.range(b"", None).await;
    run.watch(run.model.revision.min(run.model.floor + 1)).await;
}

#[test]
fn the_embedded_store_is_the_model() {
    let runtime = Runtime::new().unwrap();
    check(CASES, |ops| {
        let directory = tempfile::tempdir().unwrap();
        runtime.block_on(run(
            EmbeddedBench {
                directory,
                store: None,
            },
            ops,
        ));
    });
}

#[test]
fn the_etcd_store_is_the_model() {
    let runtime = Runtime::new().unwrap();
    let server = runtime.block_on(EtcdServer::start());
    let mut history = 0;
    check(CASES, |ops| {
        history += 1;
        let prefix = format!("history-{history}");
        runtime.block_on(run(
            EtcdBench {
                server: &server,
                prefix,
            },
            ops,
        ));
    });
}
