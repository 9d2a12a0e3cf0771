//! Nobody is served who is in doubt: everywhere while the restore is resolved, and before that where a data plane serves
//! the restored store's word because it came before the restore was found out.

use std::time::Duration;

use ferrypost_proto::{
    InstanceId,
    routing::v1::{
        AccountEntry, Doubt, HoldDoubts, command::Command, command_result::Result as Said,
    },
};
use prost::Message as _;
use tokio::time::{self, Instant};

use super::{Missing, Picture, RestoreUseCases, silent};
use crate::{
    domain::state::State,
    refusal::{Answer, Reason, Refusal},
    store::Rev,
};

/// How long data planes may take to hold what is in doubt: above their drain limit and their close limit.
const HELD_WITHIN: Duration = Duration::from_secs(30);

/// Between two questions whether they do.
const PAUSE: Duration = Duration::from_millis(200);

/// Between two looks while a data plane does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How long a data plane may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Octets of one command: it may travel through the store, whose values end at 1 MiB and more.
const PAGE_OCTETS: usize = 256 << 10;

/// Who is there, by what the store says: when that changes somebody may have to be told.
#[derive(PartialEq, Eq)]
struct Situation {
    proof: Rev,
    fleet: Rev,
    /// The streams' data planes, with their lives and replicas.
    streams: Vec<(InstanceId, String, String)>,
}

impl RestoreUseCases {
    /// While the store is rewound, tells the data planes of this replica's streams that serve its word what the
    /// others have in doubt. Ends with the mirror.
    pub async fn keep_apart(self) {
        let mut changed = self.core.mirror.changed();
        let mut told = None;
        loop {
            changed.borrow_and_update();
            let now = Situation::of(&self.core.mirror.read());
            if now != told && (now.is_none() || self.tell_the_misled().await) {
                told = now;
                continue;
            }
            let waits = now != told;
            tokio::select! {
                reached = changed.changed() => if reached.is_err() { return },
                () = time::sleep(LOOK_AGAIN), if waits => {}
            }
        }
    }

    /// True if every data plane has answered, and nobody has to be told more.
    async fn tell_the_misled(&self) -> bool {
        let Ok(picture) = self.look().await else {
            return false;
        };
        let served = self.fleet.views();
        let misled: Vec<_> = picture
            .misled()
            .filter(|instance| served.contains_key(*instance))
            .collect();
        let mut all = picture.missing.is_empty();
        if misled.is_empty() {
            return all;
        }
        for page in pages(&picture) {
            let left = self
                .hold_also(page, |instance| misled.contains(&instance))
                .await;
            all &= left.is_ok();
        }
        if all {
            tracing::warn!(
                ?misled,
                accounts = picture.accounts.len(),
                "a data plane serves the restored store's word: it holds from now on what others have in doubt"
            );
        }
        all
    }

    /// Has every data plane hold what is in doubt on any of them, until no session of it is left.
    pub(super) async fn hold(&self, picture: &Picture) -> Answer<()> {
        let everybody = |_: &InstanceId| true;
        let mut left = 0;
        for page in pages(picture) {
            left = self.hold_also(page, everybody).await?;
        }
        let deadline = Instant::now() + HELD_WITHIN;
        while left > 0 {
            if Instant::now() >= deadline {
                return Err(not_drained(left));
            }
            time::sleep(PAUSE).await;
            left = self.hold_also(HoldDoubts::default(), everybody).await?;
        }
        Ok(())
    }

    /// Has these data planes hold this too. How many sessions are left.
    async fn hold_also(&self, page: HoldDoubts, who: impl Fn(&InstanceId) -> bool) -> Answer<u64> {
        let question = Command::HoldDoubts(page);
        let trace = self.core.trace(None);
        let asked = self
            .fleet
            .ask_some(who, &question, ANSWER_WITHIN, trace)
            .await;
        let mut missing: Vec<_> = asked.unreachable.iter().map(Missing::silent).collect();
        let mut left = 0;
        for (instance, answer) in asked.answers {
            match answer.result {
                Some(Said::HeldDoubts(held)) => left += u64::from(held.sessions_left),
                other => missing.push(Missing::said(&instance, other)),
            }
        }
        if missing.is_empty() {
            Ok(left)
        } else {
            Err(silent(&missing))
        }
    }
}

impl Situation {
    /// `None`: the store is not rewound.
    fn of(state: &State) -> Option<Self> {
        let proof = state.rewound()?.revision;
        let streams = state.live().iter().map(|(instance, live)| {
            let (boot, replica) = (&live.value.boot, &live.value.replica);
            (instance.clone(), boot.clone(), replica.clone())
        });
        Some(Self {
            proof,
            fleet: state.fleet(),
            streams: streams.collect(),
        })
    }
}

/// All that is in doubt, under every name that anybody gives it, in commands that fit into the store's values.
fn pages(picture: &Picture) -> Vec<HoldDoubts> {
    let mut pages = vec![HoldDoubts::default()];
    let mut octets = 0;
    for (id, account) in &picture.accounts {
        let doubt = Doubt {
            account_id: id.clone(),
            held: Some(AccountEntry {
                account_id: id.clone(),
                names: account.names(),
                ..AccountEntry::default()
            }),
            stored: None,
        };
        octets += doubt.encoded_len();
        if octets > PAGE_OCTETS {
            octets = doubt.encoded_len();
            pages.push(HoldDoubts::default());
        }
        if let Some(page) = pages.last_mut() {
            page.also.push(doubt);
        }
    }
    let last = pages.len() - 1;
    for page in &mut pages[..last] {
        page.more = true;
    }
    pages
}

fn not_drained(left: u64) -> Refusal {
    Refusal::new(
        Reason::NotDrained,
        format!("{left} sessions of accounts in doubt are not closed in time; repeat the call"),
    )
    .with("sessions", left)
}

#[cfg(test)]
mod tests {
    use crate::{service::restore::Doubtful, store::MAX_TXN_BYTES};

    use super::*;

    #[test]
    fn however_much_is_in_doubt_every_command_fits_into_the_store_and_none_is_left_out() {
        for count in [0, 1, 3_000, 100_000] {
            let mut picture = Picture::default();
            for n in 0..count {
                let entry = AccountEntry {
                    names: vec![format!("user{n}@a-long-domain-of-theirs.example.org")],
                    ..AccountEntry::default()
                };
                let account = Doubtful {
                    stored: Some(entry),
                    ..Doubtful::default()
                };
                picture.accounts.insert(format!("{n:06}"), account);
            }
            let pages = pages(&picture);
            let fits = |page: &HoldDoubts| page.encoded_len() < MAX_TXN_BYTES / 2;
            assert!(pages.iter().all(fits), "{count}");
            let told = pages.iter().flat_map(|page| &page.also);
            assert!(
                told.map(|doubt| &doubt.account_id)
                    .eq(picture.accounts.keys())
            );
            let last = pages.iter().map(|page| !page.more).rposition(|last| last);
            assert_eq!(last, Some(pages.len() - 1));
            assert_eq!(pages.iter().filter(|page| !page.more).count(), 1);
        }
    }
}
