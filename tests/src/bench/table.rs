//! What is printed.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use super::churn::Churned;
use super::crowd::Crowd;
use super::deliveries::{self, Deliveries};
use super::handshakes::Handshakes;
use super::lookups::Lookups;
use super::moves::Moves;
use super::protocol::Protocol;
use super::queue::Queue;
use super::relay::{ByKind, Costs, Measured};
use super::routes::{Routes, Times};
use super::telemetry::Exporting;
use super::web;

/// A goal and how it is met.
struct Goal {
    limit: f64,
    reached: f64,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.reached <= self.limit {
            "met"
        } else {
            "MISSED"
        };
        write!(f, "at most {} {verdict}", self.limit)
    }
}

/// Says what goes on, on a terminal or to whoever reads the errors.
pub(super) fn progress(what: &str) {
    let mut errors = std::io::stderr();
    let mark = if errors.is_terminal() { "\x1b[2m" } else { "" };
    let end = if errors.is_terminal() { "\x1b[0m" } else { "" };
    // Nobody is lost without it.
    _ = writeln!(errors, "{mark}... {what}{end}");
}

/// The middle one; of an even number, the upper of the two.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What look-ups and changes of the routing table cost.
pub(super) fn print_routes(tables: &[Routes]) {
    for table in tables {
        println!();
        println!(
            "{:42}{:>9}{:>9}  goal for p99",
            format!("routing table, {} names", table.accounts),
            "p50 us",
            "p99 us"
        );
        let row = |what: &str, times: Times, goal: Option<f64>| {
            let [p50, p99] = [times.p50, times.p99].map(|time| time.as_secs_f64() * 1e6);
            let goal = goal.map_or(String::new(), |limit| {
                Goal {
                    limit,
                    reached: p99,
                }
                .to_string()
            });
            println!("{what:42}{p50:>9.2}{p99:>9.2}  {goal}");
        };
        row("look-up of a name with a record", table.listed, Some(1.0));
        row(
            "look-up of a name by its domain",
            table.by_domain,
            Some(1.0),
        );
        row("applying a delta of one account", table.delta, None);
        println!(
            "{:.1} MiB; a merge takes {:.0?}, and holds up changes for {:.1?} of them",
            mebibytes(table.memory),
            table.merge,
            table.swap
        );
    }
}

/// The costs, and their ratios to HAProxy's and nginx's; ours with TLS behind on a line of its own.
pub(super) fn print_relay(all: &ByKind<Measured>) {
    println!();
    println!(
        "{:36}{:>9}{:>9}{:>11}  {:27}of nginx",
        "", "HAProxy", "nginx", "Ferrypost", "of HAProxy"
    );
    for protocol in Protocol::MAIL {
        let row = Row {
            what: &format!("CPU a login, {}, us", protocol.title()),
            unit: 1e-6,
            digits: 0,
            goals: [Some(0.65), Some(0.5)],
        };
        row.print(all.each_ref().map(|it| it.costs.login[protocol as usize]));
    }
    let row = |what, unit, digits, goal, of: fn(&Costs) -> f64| {
        let goals = [goal, None];
        let row = Row {
            what,
            unit,
            digits,
            goals,
        };
        row.print(all.each_ref().map(|it| of(&it.costs)));
    };
    row("CPU a GiB down, s", 1.0, 2, Some(0.65), |it| {
        it.gibibyte_down
    });
    row("CPU a GiB up, s", 1.0, 2, Some(0.65), |it| it.gibibyte_up);
    row("memory, idle session, KiB", 1024.0, 1, Some(0.4), |it| {
        it.idle_session
    });
    row("NOOP p50, us", 1e-6, 0, None, |it| it.noop);
    println!();
    let agreed: BTreeSet<_> = all.iter().map(|it| it.agreed.as_str()).collect();
    println!(
        "In front of all of them: {}.",
        Vec::from_iter(agreed).join("; ")
    );
}

/// What HTTP costs, and the ratios as of sessions.
pub(super) fn print_web(all: &ByKind<web::Costs>) {
    println!();
    println!(
        "{:36}{:>9}{:>9}{:>11}  {:27}of nginx",
        "", "HAProxy", "nginx", "Ferrypost", "of HAProxy"
    );
    for figure in web::Figure::ALL {
        let row = Row {
            what: figure.title(),
            unit: figure.unit(),
            digits: figure.digits(),
            goals: [figure.goal(), None],
        };
        row.print(all.each_ref().map(|it| it.of(figure)));
    }
}

/// What is known of a figure.
struct Row<'a> {
    what: &'a str,
    unit: f64,
    digits: usize,
    /// For the ratio to HAProxy's, and to nginx's.
    goals: [Option<f64>; 2],
}

impl Row<'_> {
    fn print(&self, figures: ByKind<f64>) {
        let digits = self.digits;
        let [haproxy, nginx, in_clear, under_tls] = figures.map(|it| it / self.unit);
        let ratio = |ours: f64, theirs: f64, goal: Option<f64>| {
            let reached = ours / theirs;
            match goal {
                Some(limit) => format!("{reached:.2} {}", Goal { limit, reached }),
                None => format!("{reached:.2}"),
            }
        };
        println!(
            "{:36}{haproxy:>9.digits$}{nginx:>9.digits$}{in_clear:>11.digits$}  {:27}{}",
            self.what,
            ratio(in_clear, haproxy, self.goals[0]),
            ratio(in_clear, nginx, self.goals[1]),
        );
        println!(
            "{:54}{under_tls:>11.digits$}  {:27}{}",
            "  with TLS behind",
            ratio(under_tls, haproxy, None),
            ratio(under_tls, nginx, None),
        );
    }
}

/// What passing on a delivery costs, and its ratios to the others'.
pub(super) fn print_deliveries(deliveries: &Deliveries) {
    println!();
    let [postfix, dovecot, ferrypost] = deliveries::NAMES;
    println!(
        "{:35}{postfix:>9}{dovecot:>9}{ferrypost:>11}  {:27}of {dovecot}",
        format!("deliveries by LMTP, {} octets each", deliveries.octets),
        format!("of {postfix}"),
    );
    let [postfix, dovecot, ferrypost] = deliveries.each;
    let ratio = |theirs: f64| {
        let reached = ferrypost / theirs;
        let limit = 0.5;
        format!("{reached:.2} {}", Goal { limit, reached })
    };
    let [by_postfix, by_dovecot] = [ratio(postfix), ratio(dovecot)];
    let figures = deliveries.each.map(|each| each * 1e6);
    println!(
        "{:35}{:>9.0}{:>9.0}{:>11.0}  {by_postfix:27}{by_dovecot}",
        "CPU each, us", figures[0], figures[1], figures[2]
    );
    let figures = deliveries.each.map(f64::recip);
    println!(
        "{:35}{:>9.0}{:>9.0}{:>11.0}",
        "in a CPU second", figures[0], figures[1], figures[2]
    );
}

/// How many look-ups are answered.
pub(super) fn print_lookups(lookups: Lookups) {
    println!();
    println!(
        "{:35}{:>11}{:>14}",
        "look-ups by socketmap", "a second", "a CPU second"
    );
    println!(
        "{:35}{:>11.0}{:>14.0}",
        "", lookups.a_second, lookups.a_cpu_second
    );
}

/// What a crowd of idle sessions does.
pub(super) fn print_crowd(crowd: &Crowd) {
    println!();
    println!(
        "{:44}{:>12}{:>12}{:>8}",
        format!("beside {} idle sessions", crowd.sessions),
        "none idle",
        "all idle",
        "ratio"
    );
    let [before, beside] = [&crowd.alone, &crowd.beside];
    for (what, of) in [
        ("a login, p50, us", (|it| it.p50) as fn(&Times) -> Duration),
        ("a login, p99, us", |it| it.p99),
    ] {
        let [before, beside] = [before, beside].map(|it| of(it).as_secs_f64() * 1e6);
        println!(
            "{what:44}{before:>12.0}{beside:>12.0}{:>8.2}",
            beside / before
        );
    }
    println!();
    println!(
        "{:44}{:>12}{:>12}{:>8}",
        "memory of a data plane, MiB", "none idle", "all idle", "later"
    );
    for (n, plane) in crowd.memory.iter().enumerate() {
        let [empty, full, later] = [plane.empty, plane.full, plane.later].map(mebibytes);
        println!(
            "{:44}{empty:>12.1}{full:>12.1}{later:>8.1}",
            format!("{}, later is {} logins later", n + 1, crowd.logins)
        );
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "far below the 2^53 that f64 holds exactly"
)]
fn mebibytes(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}

/// What TLS handshakes cost, by the kind of the key.
pub(super) fn print_handshakes(all: &[Handshakes]) {
    println!();
    println!(
        "{:32}{:>8}{:>16}{:>10}",
        "server's CPU of a handshake, us", "full", "unused ticket", "resumed"
    );
    for one in all {
        let [full, unused, resumed] =
            [one.full, one.unused_ticket, one.resumed].map(|time| time.as_secs_f64() * 1e6);
        println!("{:32}{full:>8.0}{unused:>16.0}{resumed:>10.0}", one.key);
    }
}

/// What idle sessions cost among many that come and go.
pub(super) fn print_churn(all: &[Churned]) {
    println!();
    println!(
        "{:32}{:>12}{:>12}{:>16}",
        "memory of an idle session, KiB", "fresh", "churned", "left behind, MiB"
    );
    for one in all {
        let [fresh, churned] = [one.fresh, one.among_logins].map(|octets| octets / 1024.0);
        let left = mebibytes(one.left);
        println!("{:32}{fresh:>12.1}{churned:>12.1}{left:>16.1}", one.proxy);
    }
}

/// The first exports nothing, the second to a collector that takes it. What is relayed is to take what it takes of the
/// first, and a login what it takes of the second, whatever the collector does.
pub(super) fn print_telemetry(all: &[Exporting]) {
    let [none, there, ..] = all else { return };
    println!();
    println!(
        "{:32}{:>14}{:>16}{:>12}  {:27}{:27}{:27}",
        "everything is exported to",
        "CPU ms/login",
        "CPU s/GiB down",
        "NOOP us",
        "login/there",
        "GiB/none",
        "NOOP/none"
    );
    let ratio = |ours: f64, theirs: f64, limit| {
        let reached = ours / theirs;
        format!("{reached:.2} {}", Goal { limit, reached })
    };
    for one in all {
        let (login, noop) = (one.login * 1e3, one.noop * 1e6);
        let collector = format!("a collector: {}", one.collector);
        println!(
            "{collector:32}{login:>14.3}{:>16.3}{noop:>12.1}  {:27}{:27}{}",
            one.gibibyte_down,
            ratio(one.login, there.login, 1.05),
            ratio(one.gibibyte_down, none.gibibyte_down, 1.05),
            ratio(one.noop, none.noop, 1.1)
        );
    }
}

/// Two queues a store, the short one first.
pub(super) fn print_queues(queues: &[Queue]) {
    println!();
    println!(
        "{:32}{:>8}{:>12}{:>8}  goal for the longer over the shorter",
        "moves queued at once", "moves", "CPU ms each", "took s"
    );
    for pair in queues.chunks(2) {
        let each = |queue: &Queue| queue.cpu.as_secs_f64() * 1e3;
        for queue in pair {
            print!(
                "{:32}{:>8}{:>12.2}{:>8.1}",
                queue.store,
                queue.moves,
                each(queue),
                queue.took.as_secs_f64()
            );
            match pair {
                [short, long] if queue.moves == long.moves => println!(
                    "  {:.2}: {}",
                    each(long) / each(short),
                    Goal {
                        limit: 1.5,
                        reached: each(long) / each(short)
                    }
                ),
                _ => println!(),
            }
        }
    }
}

/// How fast moves are.
pub(super) fn print_moves(moves: &Moves) {
    println!();
    println!(
        "{:48}{:>8}{:>8}  goal for p50",
        format!("{} moves without hooks", moves.held.len()),
        "p50 ms",
        "p90 ms"
    );
    let row = |what: &str, times: &[f64], goal: f64| {
        let mut times = times.to_vec();
        times.sort_unstable_by(f64::total_cmp);
        let at = |percent: usize| {
            times
                .get(times.len() * percent / 100)
                .copied()
                .unwrap_or(f64::NAN)
        };
        let reached = at(50);
        println!(
            "{what:48}{reached:>8.1}{:>8.1}  {}",
            at(90),
            Goal {
                limit: goal,
                reached
            }
        );
    };
    row("flip to applied on every data plane", &moves.applied, 50.0);
    row("held, as the leader says", &moves.held, 250.0);
    row(
        "closed to logged in again, as the client says",
        &moves.away,
        250.0,
    );
}
