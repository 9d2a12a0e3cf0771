//! What the routing table costs: a look-up, a delta, a merge, and memory, with a thousand names and with a
//! million.
//!
//! Look-ups are timed one by one, in random order, so that most miss the caches; what reading the clock
//! costs is measured in the same way and taken off.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use ferrypost_proto::routing::v1::change::Change as Kind;
use ferrypost_proto::routing::v1::{AccountEntry, Change, Delta, SnapshotChunk, TablePosition};
use ferrypost_proto::{Name, Phase, v1};
use ferrypost_routing::{Assembly, Resolution, RoutingTable, Rule};
use ferrypost_runtime::Random;

const LOOKUPS: usize = 1_000_000;
const DELTAS: u64 = 10_000;

/// Accounts in a chunk: about a mebibyte.
const CHUNK: usize = 8192;

/// Domains of the installation; accounts are in fifty of them.
const DOMAINS: u64 = 1000;

/// Times of many like things.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) p50: Duration,
    pub(super) p99: Duration,
}

/// A table of some size.
#[derive(Debug)]
pub(super) struct Routes {
    /// Accounts with a record and one name each.
    pub(super) accounts: u64,
    /// A look-up of a name that has a record.
    pub(super) listed: Times,
    /// A look-up of one that goes where its domain says.
    pub(super) by_domain: Times,
    /// A delta that moves one account: what comes after it is routed by the new table.
    pub(super) delta: Times,
    /// The work beside a table that is in use, after ten thousand deltas.
    pub(super) merge: Duration,
    /// Its end, in which nobody else may change the table.
    pub(super) swap: Duration,
    /// Octets of memory.
    pub(super) memory: u64,
}

/// Measures a small and a large table. Takes one core for some ten seconds.
pub(super) fn measure() -> Vec<Routes> {
    let clock = Times::of((0..LOOKUPS).map(|_| timed(|| ()).1)).p50;
    [1_000, 1_000_000]
        .map(|accounts| routes(accounts, clock))
        .into()
}

fn routes(accounts: u64, clock: Duration) -> Routes {
    let before = resident();
    let table = snapshot(accounts);
    let memory = resident().saturating_sub(before);
    let listed: Vec<Name> = (0..accounts).map(|n| name(&table, &login(n))).collect();
    let strangers: Vec<Name> = (0..1000)
        .map(|n| name(&table, &format!("stranger{n}@example-{n}.org")))
        .collect();
    let listed = look_ups(&table, clock, &listed, Rule::Placement);
    let by_domain = look_ups(&table, clock, &strangers, Rule::Default);
    let (delta, table) = follow(table, accounts);
    let (merged, merge) = timed(|| table.merge());
    let (merged, swap) = timed(|| table.with_merged(merged));
    assert!(merged.is_some(), "nothing came in between");
    Routes {
        accounts,
        listed,
        by_domain,
        delta,
        merge,
        swap,
        memory,
    }
}

fn look_ups(table: &RoutingTable, clock: Duration, names: &[Name], expected: Rule) -> Times {
    let rule = match table.resolve(&names[0]) {
        Resolution::Route(route) => Some(route.rule),
        _ => None,
    };
    assert_eq!(rule, Some(expected), "what is looked up is what is said");
    Times::of((0..LOOKUPS).map(|n| {
        // A login's name was written a moment ago: it is in the cache, the table is not.
        let name = &names[n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % names.len()];
        black_box(name.as_str().bytes().fold(0, u8::wrapping_add));
        let (_, took) = timed(|| black_box(table.resolve(black_box(name))));
        took.saturating_sub(clock)
    }))
}

/// Moves accounts one by one, as deltas come.
fn follow(mut table: RoutingTable, accounts: u64) -> (Times, RoutingTable) {
    let mut times = Vec::new();
    for (revision, n) in (1..).zip(0..DELTAS) {
        let delta = Delta {
            from: Some(at(revision)),
            to: Some(position(revision + 1)),
            changes: vec![Change {
                change: Some(Kind::Account(entry(n % accounts, "target", revision + 1))),
            }],
        };
        let (applied, took) = timed(|| table.apply(delta).expect("the delta follows"));
        times.push(took);
        table = applied.table;
    }
    (Times::of(times), table)
}

fn snapshot(accounts: u64) -> RoutingTable {
    let random = Random::seeded(1);
    let all: Vec<u64> = (0..accounts).collect();
    let parts = all.chunks(CHUNK);
    let last = parts.len() - 1;
    let mut assembly = None;
    for (index, part) in parts.enumerate() {
        let chunk = SnapshotChunk {
            position: Some(position(1)),
            index: u32::try_from(index).expect("few"),
            last: index == last,
            config: (index == 0).then(config),
            accounts: part.iter().map(|n| entry(*n, "source", 1)).collect(),
            comparison: false,
        };
        match &mut assembly {
            None => assembly = Some(Assembly::begin(chunk, None, &random).expect("a good chunk")),
            Some(assembly) => assembly.push(chunk).expect("a good chunk"),
        }
    }
    let assembly = assembly.expect("at least one chunk");
    assembly.finish(None).expect("a good snapshot")
}

fn login(n: u64) -> String {
    format!("firstname.lastname{n}@example-{}.org", n % 50)
}

fn name(table: &RoutingTable, login: &str) -> Name {
    let policy = table.config().names();
    policy.canonicalise(login).expect("a name")
}

fn entry(n: u64, home: &str, epoch: u64) -> AccountEntry {
    // Real ids are random, and so are their places in the table.
    let spread = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    AccountEntry {
        account_id: format!("acct-{:026}", spread % 10_u128.pow(26)),
        names: vec![login(n)],
        home: home.to_owned(),
        phase: v1::Phase::from(Phase::Settled).into(),
        epoch: Some(at(epoch)),
        ..Default::default()
    }
}

fn config() -> v1::RoutingConfig {
    let destination = |id: &str| v1::Destination {
        id: id.to_owned(),
        without: Vec::new(),
        endpoints: vec![v1::Endpoint {
            protocol: v1::Protocol::Imap.into(),
            host: "mail.example".to_owned(),
            port: 993,
            tls: Some(v1::EndpointTls {
                mode: v1::endpoint_tls::Mode::Implicit.into(),
                ..Default::default()
            }),
            announcement: v1::Announcement::ProxyV2.into(),
            ..Default::default()
        }],
    };
    v1::RoutingConfig {
        schema: 1,
        destinations: vec![destination("source"), destination("target")],
        default_destination: "source".to_owned(),
        domains: (0..DOMAINS)
            .map(|n| v1::Domain {
                name: format!("example-{n}.org"),
                unlisted: None,
            })
            .collect(),
        names: Some(v1::NamePolicy {
            bare_names: Some(v1::name_policy::BareNames::Refuse(v1::BareNamesRefuse {})),
            ..Default::default()
        }),
        ..v1::RoutingConfig::default()
    }
}

fn at(store: u64) -> v1::Revision {
    v1::Revision { base: 0, store }
}

fn position(store: u64) -> TablePosition {
    TablePosition {
        revision: Some(at(store)),
        head: None,
    }
}

impl Times {
    fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.into_iter().collect();
        times.sort_unstable();
        let [p50, p99] = [50, 99].map(|percent| times[times.len() * percent / 100]);
        Self { p50, p99 }
    }
}

fn timed<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}

/// Octets of this process in memory.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_u64) * 4096
}
