//! Hand-made histories: one for each thing that must not happen, and its innocent twin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::history::{
    Action, Disturbance, FinalState, History, HookRun, Mailbox, Moment, Move, Operation, Outcome,
    Protocol, Side,
};

use super::{Floors, Misplaced, Verdict, Violation, judge};

const ALICE: &str = "alice@example.org";
const NO_FLOORS: Floors = Floors {
    operations: 0,
    moves: 0,
};

fn at(seconds: u64) -> Moment {
    Moment(Duration::from_secs(seconds))
}

fn operation(action: Action, server: Side, begun: u64, ended: u64) -> Operation {
    Operation {
        client: 1,
        protocol: Protocol::Imap,
        account: ALICE.into(),
        data_plane: 0,
        server: Some(server),
        begun: at(begun),
        ended: at(ended),
        action,
    }
}

fn login(server: Side, begun: u64, ended: u64) -> Operation {
    operation(Action::Login { lost: None }, server, begun, ended)
}

fn append(message: &str, server: Side, begun: u64, ended: u64) -> Operation {
    operation(Action::Append(message.into()), server, begun, ended)
}

/// A delivery: nobody says which server took it.
fn deliver(message: &str, begun: u64, ended: u64) -> Operation {
    Operation {
        protocol: Protocol::Lmtp,
        server: None,
        ..operation(Action::Deliver(message.into()), Side::Source, begun, ended)
    }
}

/// A move of Alice from `from`, asked for at `asked`, whose answer came at `answered`.
fn movement(from: Side, asked: u64, answered: u64, outcome: Outcome) -> Move {
    Move {
        account: ALICE.into(),
        migration: format!("m{asked}"),
        from,
        asked: at(asked),
        answered: at(answered),
        outcome,
        held: None,
        one_fence: true,
    }
}

fn hook_run(of: &Move, begun: u64, ended: Option<u64>) -> HookRun {
    HookRun {
        migration: of.migration.clone(),
        from: of.from,
        begun: at(begun),
        ended: ended.map(at),
    }
}

/// Alice moves to the target between 10 and 20, and the hook runs from 14 to 16.
fn moved() -> History {
    let flip = movement(Side::Source, 10, 20, Outcome::Flipped);
    History {
        hook_runs: vec![hook_run(&flip, 14, Some(16))],
        moves: vec![flip],
        ..History::default()
    }
}

/// The same move without a hook.
fn moved_without_hook() -> History {
    History {
        hook_runs: Vec::new(),
        ..moved()
    }
}

/// Every message that was appended, with every flag that was set.
fn everything(history: &History) -> FinalState {
    let mut finally = FinalState::new();
    for operation in &history.operations {
        let mailbox = finally.entry(Arc::clone(&operation.account)).or_default();
        match &operation.action {
            Action::Append(message) => {
                mailbox.messages.entry(Arc::clone(message)).or_default();
            }
            Action::Flag(message, flag) => {
                let flags = mailbox.messages.entry(Arc::clone(message)).or_default();
                flags.insert((*flag).to_owned());
            }
            Action::PutScript { name, version } => {
                mailbox.scripts.insert(Arc::clone(name), *version);
            }
            _ => {}
        }
    }
    finally
}

fn verdict(mut history: History, operations: Vec<Operation>) -> Verdict {
    history.operations = operations;
    judge(&history, &everything(&history), &NO_FLOORS)
}

fn misplacements(verdict: &Verdict) -> Vec<Misplaced> {
    let how = |violation: &Violation| match violation {
        Violation::Misplaced { how, .. } => *how,
        other => panic!("not about a place: {other}"),
    };
    verdict.violations.iter().map(how).collect()
}

#[test]
fn a_move_that_serves_one_side_at_a_time_is_clean() {
    let operations = vec![
        login(Side::Source, 1, 2),
        append("a", Side::Source, 9, 12),
        login(Side::Target, 11, 21),
        append("b", Side::Target, 18, 19),
        append("c", Side::Target, 30, 31),
    ];
    let verdict = verdict(moved(), operations);
    assert!(verdict.is_clean(), "{:?}", verdict.violations);
}

#[test]
fn a_login_on_the_old_side_after_the_answer_is_a_violation() {
    let verdict = verdict(moved_without_hook(), vec![login(Side::Source, 21, 22)]);
    assert_eq!(misplacements(&verdict), [Misplaced::AfterFlip]);
}

#[test]
fn a_write_on_the_old_side_after_the_hook_began_is_a_violation() {
    let verdict = verdict(moved(), vec![append("a", Side::Source, 15, 16)]);
    assert_eq!(misplacements(&verdict), [Misplaced::AfterFlip]);
}

#[test]
fn a_write_on_the_new_side_before_the_call_is_a_violation() {
    let verdict = verdict(moved_without_hook(), vec![append("a", Side::Target, 8, 9)]);
    assert_eq!(misplacements(&verdict), [Misplaced::BeforeFlip]);
}

#[test]
fn a_login_on_the_new_side_before_the_hook_was_done_is_a_violation() {
    let verdict = verdict(moved(), vec![login(Side::Target, 12, 15)]);
    assert_eq!(misplacements(&verdict), [Misplaced::BeforeFlip]);
}

#[test]
fn a_command_in_a_session_that_should_have_been_closed_is_a_violation() {
    let noop = operation(Action::Noop, Side::Source, 25, 26);
    let verdict = verdict(moved(), vec![noop]);
    assert_eq!(misplacements(&verdict), [Misplaced::AfterFlip]);
}

#[test]
fn an_operation_that_may_have_taken_effect_in_time_is_none() {
    let operations = vec![
        append("a", Side::Source, 13, 30),
        append("b", Side::Target, 5, 17),
    ];
    assert!(verdict(moved(), operations).is_clean());
}

#[test]
fn after_a_rollback_the_first_side_is_right_again() {
    let mut history = moved();
    let back = movement(Side::Target, 40, 50, Outcome::Flipped);
    history.hook_runs.push(hook_run(&back, 44, Some(46)));
    history.moves.push(back);
    let good = vec![login(Side::Source, 47, 48), login(Side::Target, 42, 43)];
    assert!(verdict(history.clone(), good).is_clean());
    let bad = vec![login(Side::Target, 51, 52), login(Side::Source, 30, 31)];
    assert_eq!(
        misplacements(&verdict(history, bad)),
        [Misplaced::AfterFlip, Misplaced::BeforeFlip]
    );
}

/// A fence that was withdrawn: its hook may run on beside clients of the source, and only the last one is certain.
#[test]
fn between_two_fences_the_old_side_is_right() {
    let mut flip = movement(Side::Source, 10, 40, Outcome::Flipped);
    flip.one_fence = false;
    let runs = vec![hook_run(&flip, 12, Some(16)), hook_run(&flip, 30, Some(34))];
    let history = History {
        hook_runs: runs,
        moves: vec![flip],
        ..History::default()
    };
    let good = vec![
        append("a", Side::Source, 14, 15),
        login(Side::Source, 20, 21),
    ];
    assert!(verdict(history.clone(), good).is_clean());
    let bad = vec![
        append("b", Side::Source, 31, 32),
        login(Side::Target, 20, 21),
    ];
    assert_eq!(
        misplacements(&verdict(history, bad)),
        [Misplaced::AfterFlip, Misplaced::BeforeFlip]
    );
}

#[test]
fn an_account_that_stayed_was_served_by_nobody_while_the_hook_ran() {
    let stayed = movement(Side::Source, 10, 20, Outcome::Stayed);
    let history = History {
        hook_runs: vec![hook_run(&stayed, 13, None), hook_run(&stayed, 15, Some(18))],
        moves: vec![stayed],
        ..History::default()
    };
    let good = vec![login(Side::Source, 12, 14), login(Side::Source, 17, 19)];
    assert!(verdict(history.clone(), good).is_clean());
    let mut unknown = login(Side::Source, 14, 16);
    unknown.server = None;
    let bad = vec![unknown];
    assert_eq!(
        misplacements(&verdict(history.clone(), bad)),
        [Misplaced::WhileHeld]
    );
    let bad = vec![login(Side::Target, 30, 31)];
    assert_eq!(
        misplacements(&verdict(history, bad)),
        [Misplaced::BeforeFlip]
    );
}

#[test]
fn writes_that_no_moment_of_the_flip_explains_are_a_violation() {
    let operations = vec![
        append("new", Side::Target, 12, 13),
        append("old", Side::Source, 14, 15),
    ];
    let verdict = verdict(moved_without_hook(), operations);
    assert!(
        matches!(&verdict.violations[..], [Violation::BothSides { old, new }]
            if old.server == Some(Side::Source) && new.server == Some(Side::Target)),
        "{:?}",
        verdict.violations
    );
}

#[test]
fn writes_that_only_seem_to_overlap_are_none() {
    let operations = vec![
        append("old", Side::Source, 12, 16),
        append("new", Side::Target, 13, 15),
    ];
    assert!(verdict(moved_without_hook(), operations).is_clean());
}

#[test]
fn an_acknowledged_write_that_is_not_on_the_final_home_is_lost() {
    let mut history = moved();
    history.operations = vec![
        append("kept", Side::Source, 1, 2),
        append("lost", Side::Source, 3, 4),
        operation(Action::Flag("kept".into(), "\\Seen"), Side::Source, 5, 6),
        operation(Action::Flag("kept".into(), "\\Flagged"), Side::Source, 7, 8),
    ];
    let flags = BTreeSet::from(["\\Seen".to_owned()]);
    let messages = BTreeMap::from([("kept".into(), flags)]);
    let mailbox = Mailbox {
        messages,
        ..Mailbox::default()
    };
    let finally = FinalState::from([(ALICE.into(), mailbox)]);
    let verdict = judge(&history, &finally, &NO_FLOORS);
    let lost: Vec<&Action> = verdict
        .violations
        .iter()
        .map(|violation| match violation {
            Violation::Lost(operation) => &operation.action,
            other => panic!("not a loss: {other}"),
        })
        .collect();
    assert_eq!(
        lost,
        [
            &Action::Append("lost".into()),
            &Action::Flag("kept".into(), "\\Flagged")
        ]
    );
    let nothing = judge(&history, &FinalState::new(), &NO_FLOORS);
    assert_eq!(nothing.violations.len(), 4);
}

#[test]
fn the_right_password_is_never_called_wrong() {
    let refused = |code: Option<&str>| {
        let code = code.map(str::to_owned);
        let from = None;
        operation(Action::LoginRefused { code, from }, Side::Source, 1, 2)
    };
    let temporary = vec![refused(Some("UNAVAILABLE")), refused(Some("LIMIT"))];
    assert!(verdict(moved(), temporary).is_clean());
    let wrong = vec![refused(Some("AUTHENTICATIONFAILED")), refused(None)];
    let verdict = verdict(moved(), wrong);
    assert!(
        matches!(
            verdict.violations[..],
            [Violation::WronglyRefused(_), Violation::WronglyRefused(_)]
        ),
        "{:?}",
        verdict.violations
    );
}

/// Each protocol has its own word for "later", and another protocol's is none.
#[test]
fn the_right_password_is_never_called_wrong_in_any_protocol() {
    let refused = |protocol, code: &str| {
        let code = Some(code.to_owned());
        let action = Action::LoginRefused { code, from: None };
        Operation {
            protocol,
            ..operation(action, Side::Source, 1, 2)
        }
    };
    let later = vec![
        refused(Protocol::Pop3, "SYS/TEMP"),
        refused(Protocol::ManageSieve, "TRYLATER"),
        refused(Protocol::Submission, "454"),
    ];
    assert!(verdict(moved(), later).is_clean());
    let wrong = vec![
        refused(Protocol::Pop3, "AUTH"),
        refused(Protocol::Pop3, "UNAVAILABLE"),
        refused(Protocol::ManageSieve, "SYS/TEMP"),
        refused(Protocol::Submission, "535"),
    ];
    assert_eq!(verdict(moved(), wrong).violations.len(), 4);
}

fn unanswered(action: Action, begun: u64, ended: u64) -> Operation {
    let action = Action::Unanswered(Box::new(action));
    operation(action, Side::Source, begun, ended)
}

fn violations(history: &History, finally: &FinalState) -> Vec<String> {
    let verdict = judge(history, finally, &NO_FLOORS);
    let names = verdict.violations.iter().map(|violation| match violation {
        Violation::Lost(_) => "lost",
        Violation::Undeleted(_) => "undeleted",
        Violation::Unseen { .. } => "unseen",
        Violation::Unanswered(_) => "unanswered",
        Violation::Outdated { .. } => "outdated",
        Violation::ExecutedTwice(_) => "executed twice",
        Violation::Misplaced { .. } => "misplaced",
        other => panic!("not about what is stored, deleted or sent: {other}"),
    });
    names.map(str::to_owned).collect()
}

#[test]
fn what_was_deleted_is_not_lost_and_does_not_come_back() {
    let mut history = moved();
    history.operations = vec![
        append("gone", Side::Source, 1, 2),
        append("perhaps", Side::Source, 1, 2),
        operation(Action::Delete("gone".into()), Side::Source, 3, 4),
        unanswered(Action::Delete("perhaps".into()), 3, 4),
    ];
    let both = everything(&history);
    assert_eq!(violations(&history, &both), ["undeleted"]);
    let neither = FinalState::from([(ALICE.into(), Mailbox::default())]);
    assert_eq!(violations(&history, &neither), [""; 0]);
    // Whoever came before it was acknowledged may have seen it.
    let seen = |begun| operation(Action::Retrieved("gone".into()), Side::Source, begun, 6);
    history.operations.push(seen(4));
    assert_eq!(violations(&history, &neither), [""; 0]);
    history.operations.push(seen(5));
    assert_eq!(violations(&history, &neither), ["undeleted"]);
}

#[test]
fn a_mailbox_shows_what_was_acknowledged_before_it_was_opened() {
    let counted = |count, begun, ended| {
        let mut history = moved();
        history.operations = vec![
            append("one", Side::Source, 1, 2),
            append("two", Side::Source, 1, 4),
            operation(Action::Delete("one".into()), Side::Source, 7, 8),
            operation(Action::Counted(count), Side::Source, begun, ended),
        ];
        violations(&history, &everything_but(&history, "one"))
    };
    assert_eq!(counted(2, 5, 6), [""; 0]);
    assert_eq!(counted(1, 5, 6), ["unseen"]);
    // The second may have been stored later, the first deleted meanwhile.
    assert_eq!(counted(1, 4, 6), [""; 0]);
    assert_eq!(counted(1, 5, 7), [""; 0]);
    assert_eq!(counted(0, 5, 7), ["unseen"]);
}

fn everything_but(history: &History, message: &str) -> FinalState {
    let mut finally = everything(history);
    for mailbox in finally.values_mut() {
        mailbox.messages.remove(message);
    }
    finally
}

#[test]
fn a_script_that_was_stored_is_on_the_final_home_or_a_later_one_is() {
    let put = |version| Action::PutScript {
        name: "mine".into(),
        version,
    };
    let mut history = moved();
    history.operations = vec![
        operation(put(1), Side::Source, 1, 2),
        operation(put(3), Side::Source, 3, 4),
    ];
    let holds = |version: Option<u64>| {
        let scripts = version.map(|version| ("mine".into(), version));
        let mailbox = Mailbox {
            scripts: scripts.into_iter().collect(),
            ..Mailbox::default()
        };
        violations(&history, &FinalState::from([(ALICE.into(), mailbox)]))
    };
    assert_eq!(holds(Some(3)), [""; 0]);
    assert_eq!(holds(Some(4)), [""; 0]);
    assert_eq!(holds(Some(2)), ["lost"]);
    assert_eq!(holds(None), ["lost", "lost"]);
}

#[test]
fn a_message_whose_end_was_sent_gets_an_answer_unless_the_data_plane_is_killed_or_frozen() {
    let mut history = moved();
    history.operations = vec![unanswered(Action::Submit("mail".into()), 3, 5)];
    let finally = FinalState::new();
    assert_eq!(violations(&history, &finally), ["unanswered"]);
    let mut disturbance = Disturbance {
        data_plane: Some(0),
        killed: true,
        frozen: false,
        begun: at(4),
        mended: at(6),
    };
    history.disturbances = vec![disturbance];
    assert_eq!(violations(&history, &finally), [""; 0]);
    (disturbance.killed, disturbance.frozen) = (false, true);
    history.disturbances = vec![disturbance];
    assert_eq!(violations(&history, &finally), [""; 0]);
    disturbance.frozen = false;
    // What else can be broken takes no connection away.
    for (data_plane, killed) in [(Some(0), false), (None, false), (Some(1), true)] {
        (disturbance.data_plane, disturbance.killed) = (data_plane, killed);
        history.disturbances = vec![disturbance];
        assert_eq!(violations(&history, &finally), ["unanswered"]);
    }
    // Other things may be asked again.
    history.operations = vec![unanswered(Action::Login { lost: None }, 3, 5)];
    assert_eq!(violations(&history, &finally), [""; 0]);
}

#[test]
fn a_message_taken_by_the_side_that_the_account_had_left_is_a_violation() {
    let submitted = operation(Action::Submit("mail".into()), Side::Source, 21, 22);
    let verdict = verdict(moved_without_hook(), vec![submitted]);
    assert_eq!(misplacements(&verdict), [Misplaced::AfterFlip]);
}

#[test]
fn a_run_in_which_too_little_happened_is_not_clean() {
    let floors = Floors {
        operations: 2,
        moves: 2,
    };
    let mut history = moved();
    history.operations = vec![login(Side::Source, 1, 2)];
    let verdict = judge(&history, &FinalState::new(), &floors);
    assert!(verdict.violations.is_empty());
    assert_eq!(verdict.shortfalls.len(), 2, "{:?}", verdict.shortfalls);
    assert!(!verdict.is_clean());
}

#[test]
fn a_hook_that_outlives_its_move_is_a_violation() {
    let late = |ended| {
        let mut history = moved();
        history.hook_runs[0].ended = Some(at(ended));
        judge(&history, &FinalState::new(), &NO_FLOORS)
    };
    assert!(late(20).is_clean());
    let found = late(21).violations;
    assert!(
        matches!(found[..], [Violation::HookOutlived { .. }]),
        "{found:?}"
    );
    let mut history = moved();
    let begun_too_late = hook_run(&history.moves[0], 22, None);
    history.hook_runs.push(begun_too_late);
    let found = judge(&history, &FinalState::new(), &NO_FLOORS).violations;
    assert!(
        matches!(found[..], [Violation::HookOutlived { .. }]),
        "{found:?}"
    );
}

#[test]
fn two_hooks_of_one_move_at_once_are_a_violation() {
    let again = |begun| {
        let mut history = moved();
        let second = hook_run(&history.moves[0], begun, Some(19));
        history.hook_runs.push(second);
        judge(&history, &FinalState::new(), &NO_FLOORS)
    };
    assert!(again(16).is_clean());
    let found = again(15).violations;
    assert!(
        matches!(found[..], [Violation::HookTwice { .. }]),
        "{found:?}"
    );
    // A run that was killed left no end: the next one may follow.
    let mut history = moved();
    history.hook_runs[0].ended = None;
    let second = hook_run(&history.moves[0], 15, Some(19));
    history.hook_runs.push(second);
    assert!(judge(&history, &FinalState::new(), &NO_FLOORS).is_clean());
}

#[test]
fn a_delivered_message_is_on_the_final_home_once_and_none_is_taken_while_the_account_is_held() {
    let mailbox = |copies: usize| {
        let mut mailbox = Mailbox::default();
        if copies > 0 {
            mailbox.messages.insert("m".into(), BTreeSet::new());
        }
        if copies > 1 {
            mailbox.twice.insert("m".into());
        }
        FinalState::from([(ALICE.into(), mailbox)])
    };
    let found = |operation: &Operation, copies| {
        let mut history = moved();
        history.operations.push(operation.clone());
        judge(&history, &mailbox(copies), &NO_FLOORS).violations
    };
    let before = deliver("m", 5, 6);
    assert!(found(&before, 1).is_empty());
    assert!(matches!(found(&before, 0)[..], [Violation::Lost(_)]));
    assert!(matches!(found(&before, 2)[..], [Violation::Twice(_)]));
    let held = found(&deliver("m", 15, 15), 1);
    assert!(matches!(held[..], [Violation::Misplaced { .. }]));
    // Whoever was not answered may have delivered, and not twice.
    let unanswered = Operation {
        action: Action::Unanswered(Box::new(before.action.clone())),
        ..before
    };
    let kinds = |copies| found(&unanswered, copies).len();
    assert_eq!((kinds(0), kinds(1), kinds(2)), (1, 1, 2));
}

fn put(version: u64, server: Side, begun: u64, ended: u64) -> Operation {
    let name = "c1".into();
    Operation {
        protocol: Protocol::Http,
        ..operation(Action::PutFile { name, version }, server, begun, ended)
    }
}

fn saw(version: u64, server: Side, begun: u64, ended: u64) -> Operation {
    let name = "c1".into();
    Operation {
        protocol: Protocol::Http,
        ..operation(Action::SawFile { name, version }, server, begun, ended)
    }
}

#[test]
fn a_file_that_was_put_is_on_the_final_home_and_seen_by_whoever_looks_later() {
    let history = History {
        operations: vec![
            put(1, Side::Source, 1, 2),
            put(2, Side::Source, 3, 5),
            saw(1, Side::Source, 4, 6),
            saw(1, Side::Target, 25, 26),
        ],
        ..moved()
    };
    let finally = |version| {
        let mailbox = Mailbox {
            files: BTreeMap::from([("c1".into(), version)]),
            ..Mailbox::default()
        };
        FinalState::from([(ALICE.into(), mailbox)])
    };
    assert_eq!(violations(&history, &finally(3)), ["outdated"]);
    assert_eq!(violations(&history, &finally(1)), ["outdated", "lost"]);
}

#[test]
fn what_a_server_says_that_it_did_is_judged_though_nobody_heard_of_it() {
    let executed = |executed: Vec<Operation>| History {
        executed,
        ..moved()
    };
    let innocent = executed(vec![
        put(1, Side::Source, 13, 13),
        put(2, Side::Target, 17, 17),
    ]);
    assert!(violations(&innocent, &FinalState::new()).is_empty());
    let guilty = executed(vec![
        put(1, Side::Source, 13, 13),
        put(2, Side::Source, 15, 15),
        put(1, Side::Target, 17, 17),
    ]);
    let found = violations(&guilty, &FinalState::new());
    assert_eq!(found, ["misplaced", "executed twice"]);
    let late = put(3, Side::Source, 15, 15);
    let kill = Disturbance {
        data_plane: Some(0),
        killed: true,
        frozen: false,
        begun: at(12),
        mended: at(14),
    };
    for (data_plane, excused) in [(0, true), (1, false)] {
        let history = History {
            disturbances: vec![Disturbance {
                data_plane: Some(data_plane),
                ..kill
            }],
            ..executed(vec![late.clone()])
        };
        let found = violations(&history, &FinalState::new());
        assert_eq!(found.is_empty(), excused, "{found:?}");
    }
}

#[test]
fn a_request_is_told_to_come_again_and_nothing_else() {
    for (code, is_right) in [("503", true), ("502", false), ("401", false)] {
        let refused = Action::LoginRefused {
            code: Some(code.to_owned()),
            from: None,
        };
        let refused = Operation {
            protocol: Protocol::Http,
            ..operation(refused, Side::Source, 1, 2)
        };
        let verdict = verdict(History::default(), vec![refused]);
        assert_eq!(verdict.is_clean(), is_right, "{code}");
    }
}
