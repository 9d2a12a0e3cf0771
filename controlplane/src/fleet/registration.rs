//! Who may join the fleet: a pure decision over what the store knows.
//!
//! A registration ends in three ways only (G3): the data plane's own goodbye, a successor that
//! holds the lock on the same state directory, an operator's expulsion. Silence is none of them:
//! partitioned and dead look the same from here.

use ferrypost_proto::{
    BootId, InstallationId, Speaks, StateId, Versions,
    store::v1::{Registration, StoredPlace},
};

/// How many boot ids a registration remembers as succeeded.
const PAST_BOOTS: usize = 16;

/// What a data plane says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    /// The contracts that it speaks.
    pub(super) contracts: Versions,
    /// The schemas of the routing configuration that it reads.
    pub(super) schemas: Versions,
    /// The installation that it has pinned, if it has been here before.
    pub(super) installation: Option<InstallationId>,
    /// One life of its process.
    pub(super) boot: BootId,
    /// Its state directory.
    pub(super) state: StateId,
    /// It has acknowledged a table of this installation, so it has been one of the fleet.
    pub(super) acknowledged: bool,
    /// Where its state directory is.
    pub(super) place: StoredPlace,
}

/// What the store knows that bears on a claim.
#[derive(Debug, Clone)]
pub(super) struct Known<'a> {
    /// The registration under the claimed instance id.
    pub(super) registration: Option<&'a Registration>,
    /// The boot id of the stream that is live under the claimed instance id, on any replica.
    pub(super) live_boot: Option<&'a str>,
    /// An operator has expelled the claimed boot id.
    pub(super) expelled: bool,
    /// The store was restored (G16).
    pub(super) rewound: bool,
    /// The schema that the routing configuration in force needs; `None` while there is none.
    pub(super) needs: Option<u32>,
}

/// What becomes of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ClaimOutcome {
    /// It is registered already: the stream was lost and comes back.
    Resume,
    /// It is new.
    Register,
    /// It takes the place of an earlier life, which the lock proves dead.
    Succeed {
        /// The earlier life.
        predecessor: String,
    },
    /// It may not join.
    Refuse(JoinRefused),
}

/// Why a data plane may not join. The words are the stream's `ErrorInfo` reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum JoinRefused {
    /// It speaks no contract that is spoken here.
    #[error(
        "the data plane speaks contract {theirs} and this control plane {ours}: upgrade the older one"
    )]
    ContractUnsupported {
        /// What is spoken here.
        ours: Versions,
        /// What it speaks.
        theirs: Versions,
    },
    /// It does not read the routing configuration in force.
    #[error(
        "the routing configuration in force needs schema {needs} and the data plane reads {reads}: \
         upgrade the data plane, or apply a document that does without what is new"
    )]
    SchemaUnsupported {
        /// What the document needs.
        needs: u32,
        /// What it reads.
        reads: Versions,
    },
    /// It belongs to another installation.
    #[error(
        "the data plane's state directory is pinned to another installation: it talks to the wrong \
         control plane, or the store was replaced"
    )]
    InstallationMismatch,
    /// Somebody else uses its instance id.
    #[error(
        "another data plane is registered under this instance id: give each its own `instance`, or \
         expel the one that is gone for good"
    )]
    InstanceInUse,
    /// It holds the state directory of the data plane that has its instance id, or a copy, somewhere else.
    #[error(
        "its state directory was copied or carried here, so its lock does not prove that the data plane is dead \
         which is registered under this instance id: make sure of that, and say so with ExpelDataPlane"
    )]
    Elsewhere,
    /// An operator has expelled this life of it.
    #[error("an operator has expelled this process: restart it to register anew")]
    Expelled,
    /// A later life of it has registered.
    #[error("a later process with the same state directory has taken over: stop this one")]
    Superseded,
    /// Nobody may join a store that was restored, but those who were of the fleet.
    #[error(
        "the store was restored to an older state: resolve that before data planes register that have \
         never acknowledged a table of it"
    )]
    Rewound,
}

impl JoinRefused {
    /// The `ErrorInfo` reason.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::ContractUnsupported { .. } => "CONTRACT_UNSUPPORTED",
            Self::SchemaUnsupported { .. } => "SCHEMA_UNSUPPORTED",
            Self::InstallationMismatch => "INSTALLATION_MISMATCH",
            Self::InstanceInUse | Self::Elsewhere => "INSTANCE_IN_USE",
            Self::Expelled => "EXPELLED",
            Self::Superseded => "SUPERSEDED",
            Self::Rewound => "REWOUND",
        }
    }
}

/// Whether a claim is one of this installation, in words that both sides understand: the contract that is
/// spoken. Nothing that a stranger says counts, so this is asked before anything else.
pub(super) fn belongs(claim: &Claim, installation: &InstallationId) -> Result<u32, JoinRefused> {
    let ours = Speaks::here().contracts;
    let theirs = claim.contracts;
    let contract = ours
        .highest_common(theirs)
        .ok_or(JoinRefused::ContractUnsupported { ours, theirs })?;
    if claim
        .installation
        .as_ref()
        .is_some_and(|pinned| pinned != installation)
    {
        return Err(JoinRefused::InstallationMismatch);
    }
    Ok(contract)
}

/// Decides on a claim that [`belongs`].
pub(super) fn judge(claim: &Claim, known: &Known<'_>) -> ClaimOutcome {
    match (place(claim, known), known.needs) {
        (ClaimOutcome::Refuse(refusal), _) => ClaimOutcome::Refuse(refusal),
        // Whoever may have the place must also be able to fill it.
        (_, Some(needs)) if !claim.schemas.contains(needs) => {
            ClaimOutcome::Refuse(JoinRefused::SchemaUnsupported {
                needs,
                reads: claim.schemas,
            })
        }
        (verdict, _) => verdict,
    }
}

/// Whose place a claim takes.
fn place(claim: &Claim, known: &Known<'_>) -> ClaimOutcome {
    if known.expelled {
        return ClaimOutcome::Refuse(JoinRefused::Expelled);
    }
    let boot = claim.boot.as_str();
    let Some(registration) = known.registration else {
        // It may have registered after the backup that was restored, and may be serving: to know of it is
        // safer than not to.
        return if known.rewound && !claim.acknowledged {
            ClaimOutcome::Refuse(JoinRefused::Rewound)
        } else {
            ClaimOutcome::Register
        };
    };
    if registration.boot == boot && registration.state_id == claim.state.as_str() {
        return ClaimOutcome::Resume;
    }
    if registration.past_boots.iter().any(|past| past == boot) {
        return ClaimOutcome::Refuse(JoinRefused::Superseded);
    }
    // The same state directory and a new boot id: the lock on the directory proves that the
    // predecessor is dead. A stream of it that still answers shows a copied directory, or has not
    // noticed yet; either way the newcomer waits.
    let lock_proves_it = registration.state_id == claim.state.as_str();
    let still_answers = known.live_boot.is_some_and(|live| live != boot);
    if !lock_proves_it || still_answers {
        return ClaimOutcome::Refuse(JoinRefused::InstanceInUse);
    }
    let before = registration.place.as_ref();
    if !before.is_some_and(|before| is_same_place(before, &claim.place)) {
        return ClaimOutcome::Refuse(JoinRefused::Elsewhere);
    }
    if known.rewound && !claim.acknowledged {
        return ClaimOutcome::Refuse(JoinRefused::Rewound);
    }
    ClaimOutcome::Succeed {
        predecessor: registration.boot.clone(),
    }
}

/// Whether who holds the lock here knows that who held it there is dead: the same file, under the same kernel, or
/// on the same machine after that kernel's end.
fn is_same_place(before: &StoredPlace, now: &StoredPlace) -> bool {
    let same = |before: &str, now: &str| !now.is_empty() && before == now;
    same(&before.file, &now.file)
        && (same(&before.kernel, &now.kernel) || same(&before.machine, &now.machine))
}

/// The boot ids that a successor's registration remembers.
pub(super) fn past_boots(predecessor: &Registration) -> Vec<String> {
    let mut past = predecessor.past_boots.clone();
    past.push(predecessor.boot.clone());
    let excess = past.len().saturating_sub(PAST_BOOTS);
    past.drain(..excess);
    past
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::{CONTRACTS, SCHEMAS};
    use ferrypost_runtime::Random;

    use super::*;

    struct Scene {
        installation: InstallationId,
        claim: Claim,
        registration: Registration,
    }

    fn place(kernel: &str, machine: &str, file: &str) -> StoredPlace {
        StoredPlace {
            kernel: kernel.to_owned(),
            machine: machine.to_owned(),
            file: file.to_owned(),
        }
    }

    fn scene() -> Scene {
        let random = Random::seeded(11);
        let installation = InstallationId::generate(random.bytes());
        let claim = Claim {
            contracts: CONTRACTS,
            schemas: SCHEMAS,
            installation: Some(installation.clone()),
            boot: BootId::generate(random.bytes()),
            state: StateId::generate(random.bytes()),
            acknowledged: false,
            place: place("kernel", "machine", "file"),
        };
        let registration = Registration {
            place: Some(claim.place.clone()),
            boot: BootId::generate(random.bytes()).into(),
            state_id: claim.state.as_str().to_owned(),
            ..Registration::default()
        };
        Scene {
            installation,
            claim,
            registration,
        }
    }

    impl Scene {
        fn known(&self) -> Known<'_> {
            Known {
                registration: Some(&self.registration),
                live_boot: None,
                expelled: false,
                rewound: false,
                needs: Some(SCHEMAS.oldest()),
            }
        }
    }

    #[test]
    fn a_newcomer_registers_unless_the_store_is_rewound() {
        let scene = scene();
        let known = Known {
            registration: None,
            ..scene.known()
        };
        assert_eq!(judge(&scene.claim, &known), ClaimOutcome::Register);
        let known = Known {
            rewound: true,
            ..known
        };
        assert_eq!(
            judge(&scene.claim, &known),
            ClaimOutcome::Refuse(JoinRefused::Rewound)
        );
    }

    #[test]
    fn who_has_acknowledged_a_table_is_known_to_a_restored_store_at_once() {
        let mut scene = scene();
        scene.claim.acknowledged = true;
        let known = Known {
            rewound: true,
            ..scene.known()
        };
        let predecessor = scene.registration.boot.clone();
        let successor = ClaimOutcome::Succeed { predecessor };
        assert_eq!(judge(&scene.claim, &known), successor);
        let unknown = Known {
            registration: None,
            ..known
        };
        assert_eq!(judge(&scene.claim, &unknown), ClaimOutcome::Register);
    }

    #[test]
    fn a_lost_stream_resumes_even_under_rewound() {
        let mut scene = scene();
        scene.registration.boot = scene.claim.boot.as_str().to_owned();
        let known = Known {
            rewound: true,
            ..scene.known()
        };
        assert_eq!(judge(&scene.claim, &known), ClaimOutcome::Resume);
    }

    #[test]
    fn the_lock_on_the_state_directory_makes_a_successor() {
        let scene = scene();
        let predecessor = scene.registration.boot.clone();
        assert_eq!(
            judge(&scene.claim, &scene.known()),
            ClaimOutcome::Succeed { predecessor }
        );
    }

    #[test]
    fn a_copy_of_the_state_directory_makes_none() {
        let mut scene = scene();
        let succeeds = |scene: &Scene| judge(&scene.claim, &scene.known());
        let refused = ClaimOutcome::Refuse(JoinRefused::Elsewhere);
        for elsewhere in [
            place("kernel", "machine", "a copy"),
            place("another", "machine 2", "file"),
            place("another", "", "file"),
            place("kernel", "machine", ""),
            StoredPlace::default(),
        ] {
            scene.claim.place = elsewhere;
            assert_eq!(succeeds(&scene), refused, "{:?}", scene.claim.place);
        }
        for here in [
            // A container on its node, whatever its image says of the machine.
            place("kernel", "", "file"),
            // After a reboot.
            place("another", "machine", "file"),
        ] {
            scene.claim.place = here;
            assert!(matches!(succeeds(&scene), ClaimOutcome::Succeed { .. }));
        }
        // What is not known is equal to nothing.
        scene.registration.place = Some(place("", "", ""));
        scene.claim.place = place("", "", "");
        assert_eq!(succeeds(&scene), refused);
        scene.registration.place = None;
        assert_eq!(succeeds(&scene), refused);
    }

    #[test]
    fn a_second_process_with_the_same_instance_id_is_refused() {
        let mut scene = scene();
        let boot = scene.registration.boot.clone();
        let known = Known {
            live_boot: Some(&boot),
            ..scene.known()
        };
        assert_eq!(
            judge(&scene.claim, &known),
            ClaimOutcome::Refuse(JoinRefused::InstanceInUse)
        );
        scene.registration.state_id = "another".to_owned();
        let known = scene.known();
        assert_eq!(
            judge(&scene.claim, &known),
            ClaimOutcome::Refuse(JoinRefused::InstanceInUse)
        );
    }

    #[test]
    fn the_expelled_and_the_superseded_stay_out_for_ever() {
        let mut scene = scene();
        let known = Known {
            expelled: true,
            registration: None,
            ..scene.known()
        };
        assert_eq!(
            judge(&scene.claim, &known),
            ClaimOutcome::Refuse(JoinRefused::Expelled)
        );
        scene.registration.past_boots = vec![scene.claim.boot.as_str().to_owned()];
        let known = scene.known();
        assert_eq!(
            judge(&scene.claim, &known),
            ClaimOutcome::Refuse(JoinRefused::Superseded)
        );
    }

    #[test]
    fn strangers_are_told_what_they_are() {
        let scene = scene();
        let later = Versions::only(CONTRACTS.newest() + 1);
        let other = Claim {
            contracts: later,
            ..scene.claim.clone()
        };
        let spoken = belongs(&scene.claim, &scene.installation);
        assert_eq!(spoken, Ok(CONTRACTS.newest()));
        let refused = Err(JoinRefused::ContractUnsupported {
            ours: CONTRACTS,
            theirs: later,
        });
        assert_eq!(belongs(&other, &scene.installation), refused);
        let elsewhere = InstallationId::generate(Random::seeded(12).bytes());
        let refused = Err(JoinRefused::InstallationMismatch);
        assert_eq!(belongs(&scene.claim, &elsewhere), refused);
    }

    #[test]
    fn the_highest_contract_of_both_is_spoken() {
        let scene = scene();
        for (theirs, spoken) in [
            (Versions::FIRST, 1),
            (Versions::new(1, 2), 2),
            (Versions::new(2, 9), CONTRACTS.newest()),
        ] {
            let claim = Claim {
                contracts: theirs,
                ..scene.claim.clone()
            };
            let joined = belongs(&claim, &scene.installation);
            assert_eq!(joined, Ok(spoken), "{theirs}");
        }
    }

    #[test]
    fn nobody_takes_a_place_without_reading_the_document_in_force() {
        fn needing<'a>(known: &Known<'a>) -> Known<'a> {
            Known {
                needs: Some(2),
                ..known.clone()
            }
        }
        let mut scene = scene();
        scene.claim.schemas = Versions::only(1);
        let refused = ClaimOutcome::Refuse(JoinRefused::SchemaUnsupported {
            needs: 2,
            reads: Versions::only(1),
        });
        let known = needing(&scene.known());
        assert_eq!(judge(&scene.claim, &known), refused, "a successor");
        let newcomer = Known {
            registration: None,
            ..known
        };
        assert_eq!(judge(&scene.claim, &newcomer), refused);
        let nothing_in_force = Known {
            needs: None,
            ..newcomer
        };
        assert_eq!(
            judge(&scene.claim, &nothing_in_force),
            ClaimOutcome::Register
        );
        scene.registration.boot = scene.claim.boot.as_str().to_owned();
        let resuming = needing(&scene.known());
        assert_eq!(judge(&scene.claim, &resuming), refused);
        let expelled = Known {
            expelled: true,
            ..resuming
        };
        // What is final is said first: an upgrade would not help.
        assert_eq!(
            judge(&scene.claim, &expelled),
            ClaimOutcome::Refuse(JoinRefused::Expelled)
        );
    }

    #[test]
    fn the_memory_of_past_boots_is_bounded() {
        let mut registration = Registration::default();
        for n in 0..40 {
            registration.past_boots = past_boots(&registration);
            registration.boot = n.to_string();
        }
        assert_eq!(registration.past_boots.len(), PAST_BOOTS);
        assert_eq!(
            registration.past_boots.last().map(String::as_str),
            Some("38")
        );
    }
}
