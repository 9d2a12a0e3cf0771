//! What the route table costs: a look-up, a delta, a merge, and memory, with a thousand names and with a
//! million. Run it with `cargo bench --bench route_table`; it prints a table and judges nothing.
//!
//! Look-ups are timed one by one, in random order, so that most miss the caches; what reading the clock
//! costs is measured in the same way and taken off.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use ferrypost_dataplane::routing::{Assembly, Resolution, RoutingTable, Rule};
use ferrypost_proto::{
    Name, Phase, Random,
    routing::v1::{
        AccountEntry, Change, Delta, SnapshotChunk, TablePosition, change::Change as Kind,
    },
    v1,
};

const LOOKUPS: usize = 1_000_000;
const DELTAS: u64 = 10_000;
/// Accounts in a chunk: about a mebibyte.
const CHUNK: usize = 8192;

fn main() {
    println!("route table           p50 ns   p99 ns  p99.9 ns");
    let mut nothing: Vec<_> = (0..LOOKUPS).map(|_| timed(|| ()).1).collect();
    let clock = percentiles(&mut nothing);
    for accounts in [1_000, 1_000_000] {
        measure(accounts, clock[0]);
    }
}

fn measure(accounts: u64, clock: Duration) {
    let random = Random::seeded(1);
    let before = resident();
    let (table, built) = timed(|| snapshot(accounts, &random));
    let bytes = resident().saturating_sub(before);
    println!("-- {accounts} accounts with one name: built in {built:.0?}, {bytes} bytes resident");
    let names = names(&table, accounts);
    let pick = |n: usize| &names[n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % names.len()];
    look_up("listed", &table, clock, pick, Some(Rule::Placement));
    let strangers: Vec<_> = (0..1000)
        .map(|n| name(&table, &format!("stranger{n}@example-{n}.org")))
        .collect();
    let pick = |n: usize| &strangers[n % strangers.len()];
    look_up("by the domain", &table, clock, pick, Some(Rule::Default));
    follow(table, accounts);
}

fn look_up<'a>(
    what: &str,
    table: &RoutingTable,
    clock: Duration,
    pick: impl Fn(usize) -> &'a Name,
    expected: Option<Rule>,
) {
    let rule = match table.resolve(pick(1)) {
        Resolution::Route(route) => Some(route.rule),
        _ => None,
    };
    assert_eq!(rule, expected, "the benchmark looks up what it says");
    let mut times: Vec<_> = (0..LOOKUPS)
        .map(|n| {
            // A login's name was written a moment ago: it is in the cache, the table is not.
            let name = pick(n);
            black_box(name.as_str().bytes().fold(0, u8::wrapping_add));
            timed(|| black_box(table.resolve(black_box(name)))).1
        })
        .collect();
    let times = percentiles(&mut times);
    print_times(what, times.map(|time| time.saturating_sub(clock)));
}

/// Moves accounts one by one, as deltas come, and merges what that leaves.
fn follow(mut table: RoutingTable, accounts: u64) {
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
    print_times("delta of one account", percentiles(&mut times));
    let (merge, took) = timed(|| table.merge());
    let (merged, swap) = timed(|| table.with_merged(merge));
    assert!(merged.is_some(), "nothing came in between");
    println!("merge, beside the table: {took:.0?}; its swap: {swap:.0?}");
}

fn snapshot(accounts: u64, random: &Random) -> RoutingTable {
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
        };
        match &mut assembly {
            None => assembly = Some(Assembly::begin(chunk, None, random).expect("a good chunk")),
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

fn names(table: &RoutingTable, accounts: u64) -> Vec<Name> {
    (0..accounts).map(|n| name(table, &login(n))).collect()
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
        schema: ferrypost_proto::SCHEMA,
        destinations: vec![destination("source"), destination("target")],
        default_destination: "source".to_owned(),
        domains: (0..1000)
            .map(|n| v1::Domain {
                name: format!("example-{n}.org"),
                unlisted: None,
            })
            .collect(),
        names: Some(v1::NamePolicy {
            bare_names: Some(v1::name_policy::BareNames::Refuse(v1::BareNamesRefuse {})),
            ..Default::default()
        }),
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

/// p50, p99 and p99.9.
fn percentiles(times: &mut [Duration]) -> [Duration; 3] {
    times.sort_unstable();
    [500, 990, 999].map(|permille| times[times.len() * permille / 1000])
}

fn print_times(what: &str, times: [Duration; 3]) {
    let [p50, p99, p999] = times.map(|time| time.as_nanos());
    println!("{what:20} {p50:>8} {p99:>8} {p999:>9}");
}

#[expect(
    clippy::disallowed_methods,
    reason = "a benchmark measures real time, outside any simulation"
)]
fn timed<R>(work: impl FnOnce() -> R) -> (R, Duration) {
    let began = Instant::now();
    let result = work();
    (result, began.elapsed())
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0_u64) * 4096
}
