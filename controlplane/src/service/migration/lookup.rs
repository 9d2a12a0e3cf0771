//! Finding migrations: the mirror keeps those under way and the last that ended, the store all.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ferrypost_proto::{MigrationId, store::v1::MigrationRecord, v1};

use super::MigrationUseCases;
use crate::{
    domain::state::{State, Versioned},
    refusal::{Answer, Reason, Refusal},
    service::routing,
    store::{KeyValue, Rev, keys, value::Stored},
};

/// Which migrations to list.
#[derive(Debug, Clone, Default)]
pub struct MigrationFilter {
    /// Only those of this account, by id or name. Empty: all.
    pub account: String,
    /// Only those in this state.
    pub state: Option<v1::MigrationState>,
    /// Only those that have all of these labels.
    pub labels: BTreeMap<String, String>,
}

/// A filter whose account was looked up.
#[derive(Debug)]
pub(super) struct Wanted {
    /// By id, or by name in its canonical form.
    account: Option<String>,
    state: Option<v1::MigrationState>,
    labels: BTreeMap<String, String>,
}

impl Wanted {
    pub(super) fn of(state: &State, filter: &MigrationFilter) -> Answer<Self> {
        Ok(Self {
            account: wanted_account(state, &filter.account)?,
            state: filter.state,
            labels: filter.labels.clone(),
        })
    }

    /// Whether a migration is among those that are asked for.
    pub(super) fn fits(&self, record: &MigrationRecord) -> bool {
        let has = |(key, value): (&String, &String)| record.labels.get(key) == Some(value);
        self.state.is_none_or(|wanted| record.state() == wanted)
            && self.labels.iter().all(has)
            && self
                .account
                .as_deref()
                .is_none_or(|wanted| concerns(record, wanted))
    }
}

/// Some migrations, newest first.
#[derive(Debug)]
pub struct MigrationPage {
    /// A state in which the answer is true.
    pub state: Arc<State>,
    /// The migrations.
    pub migrations: Vec<v1::Migration>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Rev>,
}

type Found = (MigrationId, Arc<Versioned<MigrationRecord>>);

impl MigrationUseCases {
    /// One migration as it stands.
    ///
    /// # Errors
    /// [`Reason::MigrationNotFound`].
    pub async fn migration(&self, id: &MigrationId) -> Answer<(Arc<State>, v1::Migration)> {
        let state = self.core.caught_up().await?;
        if let Some(migration) = self.shown(&state, id) {
            return Ok((state, migration));
        }
        let (stored, _) = self.core.mirror.store().get(&keys::migration(id)).await?;
        let record = stored
            .as_ref()
            .and_then(read)
            .ok_or_else(|| not_found(id, self.core.migrations.keep_ended))?;
        let migration = self.show(&state, id, &record);
        Ok((state, migration))
    }

    /// The migrations that fit `filter`, newest first, `size` of them at most, older than `before`.
    ///
    /// # Errors
    /// When the account cannot be a name, or the store does not answer.
    pub async fn list(
        &self,
        filter: &MigrationFilter,
        before: Option<Rev>,
        size: usize,
    ) -> Answer<MigrationPage> {
        let state = self.core.caught_up().await?;
        let wanted = Wanted::of(&state, filter)?;
        let mut found = self.all(&state).await?;
        found.retain(|(_, record)| {
            before.is_none_or(|before| record.created < before) && wanted.fits(&record.value)
        });
        found.sort_unstable_by_key(|(_, record)| std::cmp::Reverse(record.created));
        let next = (found.len() > size).then(|| found[size - 1].1.created);
        found.truncate(size);
        let migrations = found
            .iter()
            .map(|(id, record)| self.show(&state, id, record))
            .collect();
        Ok(MigrationPage {
            state,
            migrations,
            next,
        })
    }

    /// All of them: from memory while memory has all, else also from the store.
    async fn all(&self, state: &State) -> Answer<Vec<Found>> {
        let kept: Vec<Found> = state
            .migrations()
            .map(|(id, record)| (id.clone(), record.clone()))
            .collect();
        let counted: u64 = state.counts().migrations.values().sum();
        if kept.len() as u64 >= counted {
            return Ok(kept);
        }
        let mut found = Vec::new();
        for slice in keys::migration_slices() {
            let range = self
                .core
                .mirror
                .store()
                .range(&slice, Some(state.revision()))
                .await?;
            for entry in &range.entries {
                if let Some(keys::Key::Migration(id)) = keys::Key::parse(&entry.key)
                    && let Some(record) = read(entry)
                {
                    found.push((id, Arc::new(record)));
                }
            }
        }
        Ok(found)
    }
}

fn not_found(id: &MigrationId, kept: Duration) -> Refusal {
    let days = kept.as_secs() / (24 * 60 * 60);
    Refusal::new(
        Reason::MigrationNotFound,
        format!(
            "there is no migration {id}: there never was, or it ended longer ago than the {days} days for which \
             ended migrations are kept (migrations.keep_ended)"
        ),
    )
    .with("migration", id)
}

fn read(entry: &KeyValue) -> Option<Versioned<MigrationRecord>> {
    Some(Versioned {
        value: Stored::read(&entry.value).ok()?,
        revision: entry.mod_revision,
        created: entry.create_revision,
    })
}

/// What to look for in migrations: an account id as it is, a name in its canonical form. The account
/// need not have a record any more.
fn wanted_account(state: &State, text: &str) -> Answer<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    if ferrypost_proto::AccountId::parse(text).is_ok() {
        return Ok(Some(text.to_owned()));
    }
    let (routing, _) = routing(state)?;
    let name = crate::service::subject::canonical(routing, "account", text)?;
    Ok(Some(name.as_str().to_owned()))
}

fn concerns(record: &MigrationRecord, wanted: &str) -> bool {
    record
        .accounts
        .iter()
        .any(|account| account.account_id == wanted || account.names.iter().any(|n| n == wanted))
}
