//! What the fleet says about a fence.

use ferrypost_proto::{
    AccountId, BootId, MigrationId, Phase, Revision,
    store::v1::{
        Departed, DrainedReport, DrainedReportAccount, Expelled, Leader, LiveEndpoint,
        LiveRejected, LiveRejectedEndpoint, Registration, Rewound,
    },
    v1::{self, BlockerReason},
};

use super::{
    super::{
        drain::{drain, unapplied},
        fence::Outlook,
        migration::Drain,
        unsettled::unsettled_ends,
    },
    Ledger, instance, limits,
};
use crate::kv::{Txn, keys};

#[test]
fn everything_that_stands_in_the_way_is_named() {
    let mut ledger = Ledger::new();
    let alice = ledger.record(&["alice@example.org"], |_| {});
    let none: [(BlockerReason, String); 0] = [];
    let by = |reason, who: &str| (reason, who.to_owned());
    assert_eq!(
        ledger.blockers(&alice, alice.epoch),
        [by(BlockerReason::NoDataPlane, "")]
    );
    let boot = ledger.register("dp-1");
    let silent = [by(BlockerReason::DataPlaneSilent, "dp-1")];
    assert_eq!(ledger.blockers(&alice, alice.epoch), silent);
    let other = BootId::generate(ledger.random.bytes());
    ledger.live("dp-1", &other, |_| {});
    assert_eq!(
        ledger.blockers(&alice, alice.epoch),
        silent,
        "another boot's word"
    );
    ledger.live("dp-1", &boot, |live| {
        live.applied = Some(Revision::new(0, alice.epoch - 1).into());
    });
    assert_eq!(
        ledger.blockers(&alice, alice.epoch),
        [by(BlockerReason::NotApplied, "dp-1")]
    );
    assert_eq!(
        ledger.blockers(&alice, 0),
        none,
        "nothing is written of a plan"
    );
    ledger.live("dp-1", &boot, |_| {});
    assert_eq!(ledger.blockers(&alice, alice.epoch), none);
    ledger.live("dp-1", &boot, |live| {
        live.rejected = vec![LiveRejected {
            account_id: alice.account.as_str().to_owned(),
            reason: "REJECT_REASON_BAD_NAME".to_owned(),
        }];
        let endpoint = |destination: &str, reachable| LiveEndpoint {
            destination: destination.to_owned(),
            protocol: v1::Protocol::Imap.into(),
            reachable,
            problem: String::new(),
        };
        live.endpoints = vec![
            endpoint("source", true),
            endpoint("target", false),
            endpoint("spare", false),
        ];
    });
    assert_eq!(
        ledger.blockers(&alice, alice.epoch),
        [
            by(BlockerReason::EntryRejected, "dp-1"),
            by(BlockerReason::DestinationUnreachable, "target"),
        ]
    );
    ledger.live("dp-1", &boot, |_| {});
    for n in 0..2 {
        ledger.record(&[&format!("user{n}@example.org")], |p| {
            p.phase = Phase::Fencing;
        });
    }
    assert_eq!(
        ledger.blockers(&alice, 0),
        [by(BlockerReason::FenceBudget, "")]
    );
    ledger.put(keys::REWOUND.to_vec(), Rewound::default());
    ledger.commit(Txn::new().delete(keys::LEADER));
    let reasons: Vec<_> = ledger
        .blockers(&alice, 0)
        .into_iter()
        .map(|(reason, _)| reason)
        .collect();
    assert_eq!(
        reasons,
        [
            BlockerReason::Rewound,
            BlockerReason::NoLeader,
            BlockerReason::FenceBudget,
        ]
    );
}

#[test]
fn an_end_that_was_not_seen_and_limits_that_do_not_fit_block_before_the_fence() {
    let mut ledger = Ledger::new();
    let alice = ledger.record(&["alice@example.org"], |_| {});
    let none: [(BlockerReason, String); 0] = [];
    let by = |reason, who: &str| (reason, who.to_owned());
    let boot = ledger.register("dp-1");
    ledger.live("dp-1", &boot, |live| {
        live.unsettled = vec![alice.account.as_str().to_owned()];
    });
    let unsettled = [by(BlockerReason::CloseUnconfirmed, "dp-1")];
    assert_eq!(ledger.blockers(&alice, 0), unsettled);
    ledger.live("dp-1", &boot, |live| live.unsettled_more = true);
    assert_eq!(ledger.blockers(&alice, 0), unsettled, "perhaps hers");
    ledger.live("dp-1", &boot, |live| {
        let bob = AccountId::generate([7; 16]);
        live.unsettled = vec![bob.as_str().to_owned()];
    });
    assert_eq!(ledger.blockers(&alice, 0), none, "another's");
    ledger.live("dp-1", &boot, |_| {});
    for (said, blocks) in [
        (None, true),
        (Some(limits(15)), true),
        (Some(limits(25)), false),
    ] {
        let registration = Registration {
            boot: boot.as_str().to_owned(),
            limits: said,
            ..Registration::default()
        };
        ledger.put(keys::registration(&instance("dp-1")), registration);
        let expected: &[_] = if blocks {
            &[by(BlockerReason::Limits, "dp-1")]
        } else {
            &[]
        };
        assert_eq!(ledger.blockers(&alice, 0), expected);
    }
}

#[test]
fn ends_that_nobody_saw_are_unsettled_until_they_are_cleared() {
    let mut ledger = Ledger::new();
    let boot = ledger.register("dp-1");
    assert!(unsettled_ends(&ledger.state).is_empty());
    let succession = Registration {
        boot: boot.as_str().to_owned(),
        unsettled_predecessor: BootId::generate(ledger.random.bytes()).as_str().to_owned(),
        ..Registration::default()
    };
    ledger.put(keys::registration(&instance("dp-1")), succession);
    let other = BootId::generate(ledger.random.bytes());
    ledger.put(
        keys::departed(&instance("dp-2"), &other),
        Departed::default(),
    );
    let expelled = |settled| Expelled {
        settled,
        ..Expelled::default()
    };
    ledger.put(keys::expelled(&instance("dp-3"), &other), expelled(false));
    ledger.put(keys::expelled(&instance("dp-4"), &other), expelled(true));
    let who: Vec<_> = unsettled_ends(&ledger.state)
        .iter()
        .map(|(end, _)| end.instance().as_str().to_owned())
        .collect();
    assert_eq!(who, ["dp-1", "dp-2", "dp-3"]);
}

#[test]
fn drained_is_what_every_registered_boot_says_of_this_fence() {
    let mut ledger = Ledger::new();
    let boot = ledger.register("dp-1");
    let migration = MigrationId::generate(ledger.random.bytes());
    let account = AccountId::generate(ledger.random.bytes());
    let fences = [(account.clone(), 40)];
    let said = |fence_epoch, unconfirmed, sessions_left| DrainedReportAccount {
        account_id: account.as_str().to_owned(),
        fence_epoch,
        closed: 1,
        unconfirmed,
        sessions_left,
    };
    let report = |ledger: &mut Ledger, boot: &BootId, said| {
        let report = DrainedReport {
            boot: boot.as_str().to_owned(),
            accounts: vec![said],
            ..DrainedReport::default()
        };
        ledger.put(keys::drained(&migration, &instance("dp-1")), report);
        drain(&ledger.state, &migration, &fences)
    };
    assert!(matches!(
        drain(&ledger.state, &migration, &fences),
        Drain::Waiting(_)
    ));
    assert_eq!(report(&mut ledger, &boot, said(40, 0, 0)), Drain::Complete);
    let stranger = BootId::generate(ledger.random.bytes());
    assert!(matches!(
        report(&mut ledger, &stranger, said(40, 0, 0)),
        Drain::Waiting(_)
    ));
    for other_fence in [39, 41] {
        let drain = report(&mut ledger, &boot, said(other_fence, 0, 0));
        assert!(matches!(drain, Drain::Waiting(_)));
    }
    let left = |ledger: &mut Ledger| {
        let Drain::Waiting(who) = report(ledger, &boot, said(0, 0, 3)) else {
            panic!("sessions are left");
        };
        assert_eq!(who[0].who, "dp-1");
        who[0].message.clone()
    };
    let away = left(&mut ledger);
    assert!(
        away.contains("had 3 sessions") && away.contains("does not answer"),
        "{away}"
    );
    ledger.live("dp-1", &boot, |_| {});
    let heard = left(&mut ledger);
    assert!(heard.contains("still has 3 sessions"), "{heard}");
    assert!(matches!(
        report(&mut ledger, &boot, said(40, 2, 0)),
        Drain::Unconfirmed(_)
    ));
    report(&mut ledger, &boot, said(40, 0, 0));
    ledger.register("dp-2");
    assert!(matches!(
        drain(&ledger.state, &migration, &fences),
        Drain::Waiting(_)
    ));
}

/// A store that was restored to the moment before a flip holds reports of sessions that have been opened
/// again since.
#[test]
fn what_was_said_to_an_earlier_leader_counts_beside_a_sign_of_life() {
    let mut ledger = Ledger::new();
    let boot = ledger.register("dp-1");
    let migration = MigrationId::generate(ledger.random.bytes());
    let account = AccountId::generate(ledger.random.bytes());
    let fences = [(account.clone(), 40)];
    let report = DrainedReport {
        boot: boot.as_str().to_owned(),
        accounts: vec![DrainedReportAccount {
            account_id: account.as_str().to_owned(),
            fence_epoch: 40,
            ..DrainedReportAccount::default()
        }],
        ..DrainedReport::default()
    };
    ledger.put(keys::drained(&migration, &instance("dp-1")), report.clone());
    assert_eq!(drain(&ledger.state, &migration, &fences), Drain::Complete);

    let successor = Leader {
        replica: "cp-2".to_owned(),
        ..Leader::default()
    };
    ledger.put(keys::LEADER.to_vec(), successor);
    let Drain::Waiting(who) = drain(&ledger.state, &migration, &fences) else {
        panic!("nobody has said it to this leader");
    };
    assert_eq!(who[0].reason(), BlockerReason::DataPlaneSilent);
    let earlier = BootId::generate(ledger.random.bytes());
    ledger.live("dp-1", &earlier, |_| {});
    assert!(matches!(
        drain(&ledger.state, &migration, &fences),
        Drain::Waiting(_)
    ));
    ledger.live("dp-1", &boot, |_| {});
    assert_eq!(drain(&ledger.state, &migration, &fences), Drain::Complete);

    // Said anew, it needs nothing beside it: a lost lease proves nothing.
    ledger.commit(Txn::new().delete(keys::live(&instance("dp-1"))));
    ledger.put(keys::drained(&migration, &instance("dp-1")), report);
    assert_eq!(drain(&ledger.state, &migration, &fences), Drain::Complete);
}

#[test]
fn a_flip_is_applied_when_every_registered_boot_says_so() {
    let mut ledger = Ledger::new();
    let boot = ledger.register("dp-1");
    let revision = ledger.revision;
    let missing = |ledger: &Ledger| unapplied(&ledger.state, revision).count();
    assert_eq!(missing(&ledger), 1);
    ledger.live("dp-1", &boot, |live| live.applied = None);
    assert_eq!(missing(&ledger), 1);
    ledger.live("dp-1", &boot, |_| {});
    assert_eq!(missing(&ledger), 0);
    ledger.commit(Txn::new().delete(keys::live(&instance("dp-1"))));
    assert_eq!(missing(&ledger), 1, "it has stopped answering");
    ledger.commit(Txn::new().delete(keys::registration(&instance("dp-1"))));
    assert_eq!(
        missing(&ledger),
        0,
        "whoever is not registered does not count"
    );
}

#[test]
fn an_endpoint_that_a_data_plane_does_not_know_clouds_the_outlook_of_its_destination_alone() {
    let mut ledger = Ledger::new();
    let boot = ledger.register("dp-1");
    ledger.live("dp-1", &boot, |_| {});
    let is_clear =
        |ledger: &Ledger, source, target| Outlook::of(&ledger.state, source, target).is_clear();
    assert!(is_clear(&ledger, "source", "target"));
    ledger.live("dp-1", &boot, |live| {
        live.rejected_endpoints = vec![LiveRejectedEndpoint {
            destination: "target".to_owned(),
            protocol: v1::Protocol::Imap.into(),
            field: "announcement".to_owned(),
        }];
    });
    assert!(!is_clear(&ledger, "source", "target"));
    assert!(!is_clear(&ledger, "target", "source"));
    assert!(is_clear(&ledger, "source", "spare"));
}
