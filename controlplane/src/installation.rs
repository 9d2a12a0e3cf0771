//! The installation that a store belongs to: written at the very first start, never again.

use std::time::Duration;

use ferrypost_proto::{InstallationId, store::v1::Installation};
use ferrypost_runtime::{Backoff, Random};
use tokio::time;

use crate::{
    store::{Store, StoreError, Txn, TxnOutcome, keys, value::Stored},
    wall_clock,
};

/// First and longest pause between attempts while the store is away.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// The store belongs to somebody else: nothing may be served from it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WrongInstallation {
    /// It carries another id than the configuration names.
    #[error(
        "the store belongs to installation {found}, while the configuration names {pinned}: check \
         store.path or store.prefix"
    )]
    Other {
        /// Whose it is.
        found: InstallationId,
        /// What the configuration says.
        pinned: InstallationId,
    },
    /// It is empty, although the configuration names an installation.
    #[error(
        "the store is empty, while the configuration names installation {pinned}: check store.path or \
         store.prefix, or remove `installation` for a new installation"
    )]
    Empty {
        /// What the configuration says.
        pinned: InstallationId,
    },
    /// What stands there is no installation id.
    #[error(
        "the store's installation cannot be read: another program, or a newer version, wrote it"
    )]
    Unreadable,
}

/// Finds out whose the store is, however long it takes to answer, and marks an empty one as ours.
///
/// # Errors
/// When it is not what `pinned` says.
pub(crate) async fn settle(
    store: &dyn Store,
    random: &Random,
    pinned: Option<&InstallationId>,
) -> Result<InstallationId, WrongInstallation> {
    let mut backoff = Backoff::new(random.clone(), PAUSES.0, PAUSES.1);
    loop {
        match look(store, random, pinned).await {
            Ok(found) => return found,
            Err(error) => {
                tracing::warn!(%error, "the store does not say whose it is; trying again");
                time::sleep(backoff.pause()).await;
            }
        }
    }
}

async fn look(
    store: &dyn Store,
    random: &Random,
    pinned: Option<&InstallationId>,
) -> Result<Result<InstallationId, WrongInstallation>, StoreError> {
    loop {
        let (found, _) = store.get(keys::INSTALLATION).await?;
        if let Some(found) = found {
            return Ok(check(&found.value, pinned));
        }
        if let Some(pinned) = pinned {
            return Ok(Err(WrongInstallation::Empty {
                pinned: pinned.clone(),
            }));
        }
        let id = InstallationId::generate(random.bytes());
        let installation = Stored::new(Installation {
            id: id.as_str().to_owned(),
            created_at: Some(wall_clock::now()),
            ..Installation::default()
        });
        let txn = Txn::new()
            .absent(keys::INSTALLATION)
            .put(keys::INSTALLATION, installation.bytes());
        match store.transact(txn).await? {
            TxnOutcome::Committed(_) => {
                tracing::info!(installation = %id, "a new installation begins");
                return Ok(Ok(id));
            }
            // Another replica was faster.
            TxnOutcome::Conflict { .. } => {}
        }
    }
}

fn check(
    value: &[u8],
    pinned: Option<&InstallationId>,
) -> Result<InstallationId, WrongInstallation> {
    let found = Stored::<Installation>::read(value)
        .ok()
        .and_then(|stored| InstallationId::parse(&stored.id).ok())
        .ok_or(WrongInstallation::Unreadable)?;
    match pinned {
        Some(pinned) if *pinned != found => Err(WrongInstallation::Other {
            found,
            pinned: pinned.clone(),
        }),
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::{EmbeddedConfig, EmbeddedStore};

    #[tokio::test]
    async fn the_first_start_marks_the_store_and_a_pin_refuses_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store");
        let store = EmbeddedStore::open(EmbeddedConfig::new(path))
            .await
            .expect("opened");
        let random = Random::seeded(1);
        let other = InstallationId::generate(random.bytes());
        let empty = settle(&store, &random, Some(&other)).await;
        assert!(matches!(empty, Err(WrongInstallation::Empty { .. })));
        let ours = settle(&store, &random, None).await.expect("new");
        assert_eq!(
            settle(&store, &random, Some(&ours)).await.expect("ours"),
            ours
        );
        let wrong = settle(&store, &random, Some(&other)).await;
        assert!(matches!(wrong, Err(WrongInstallation::Other { .. })));
    }
}
