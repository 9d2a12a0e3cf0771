//! Reads the whole store at one revision.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    domain::state::State,
    store::{Event, Range, Rev, Store, StoreError, keys},
};

/// Keys that are read in one go. Most installations have no more when they begin; beyond it, etcd would spend
/// long on one answer.
pub(super) const IN_ONE_GO: usize = 1_000;

/// Ranges that are read at once: enough to hide the round trips, few enough not to flood etcd.
const CONCURRENT: usize = 16;

/// Loads everything at one revision, so that it is one consistent picture whatever is written meanwhile. What is
/// not in it does not exist.
pub(super) async fn load(store: &dyn Store, in_one_go: usize) -> Result<State, StoreError> {
    let Some(whole) = store.whole(in_one_go).await? else {
        return load_by_ranges(store).await;
    };
    let (mut state, revision) = (State::default(), whole.revision);
    take(&mut state, whole);
    state.reach(revision);
    Ok(state)
}

/// The same for a store of any size, in many pinned reads that are small in themselves.
async fn load_by_ranges(store: &dyn Store) -> Result<State, StoreError> {
    // Without a pin: linearizable, and the pin of all that follow.
    let first = store.range(b"/meta/", None).await?;
    let pin = first.revision;
    let mut state = State::default();
    take(&mut state, first);
    for slices in order() {
        let ranges = stream::iter(slices)
            .map(|prefix| range(store, prefix, pin))
            .buffered(CONCURRENT);
        ranges
            .try_for_each(|range| {
                take(&mut state, range);
                std::future::ready(Ok(()))
            })
            .await?;
    }
    state.reach(pin);
    Ok(state)
}

/// Groups of prefixes. The configuration comes first and records before names, so that the strings of
/// the later ones are found and shared.
fn order() -> [Vec<Vec<u8>>; 4] {
    let small = [
        b"/config/".as_slice(),
        keys::COOKIE_KEYS,
        keys::LEADER,
        keys::REGISTRATIONS,
        keys::DEPARTED,
        keys::EXPELLED,
        keys::LIVE,
        keys::CLAIMS,
        keys::DRAINED,
        keys::COMMANDS,
        keys::RESULTS,
    ];
    let buckets = || 0..=u8::MAX;
    [
        small.iter().map(|prefix| prefix.to_vec()).collect(),
        buckets().map(keys::account_bucket).collect(),
        buckets().map(keys::name_bucket).collect(),
        keys::migration_slices().collect(),
    ]
}

async fn range(store: &dyn Store, prefix: Vec<u8>, pin: Rev) -> Result<Range, StoreError> {
    store.range(&prefix, Some(pin)).await
}

fn take(state: &mut State, range: Range) {
    for entry in range.entries {
        state.apply(&[Event::Put(entry)]);
    }
}
