//! The routing configuration: reading it, replacing it, and the control plane's own file.

use std::{path::PathBuf, sync::Arc};

use ferrypost_proto::{Revision, RoutingConfig, v1};

use super::{Core, Step, file_keeper::Authority, migration::check_reason, not_rewound};
use crate::{
    config::{Routing, RoutingSource},
    domain::state::State,
    domain::{commit::RoutingChange, readers::not_read_by, resolution::config_refusals},
    refusal::{Answer, Reason, Refusal},
    routing_file::RoutingFile,
    store::{Rev, keys},
};

/// The use cases of `RoutingConfigService`.
#[derive(Debug, Clone)]
pub struct RoutingUseCases {
    core: Arc<Core>,
    source: RoutingSource,
    file: PathBuf,
}

/// The document in force.
#[derive(Debug)]
pub struct InForce {
    /// The state that it is of.
    pub state: Arc<State>,
    /// The document; `None` before there is one.
    pub config: Option<v1::RoutingConfig>,
    /// The revision at which it came into force.
    pub version: Revision,
    /// Who may change it.
    pub source: RoutingSource,
    /// Why the file says something else.
    pub difference: Option<String>,
}

/// A document that is to be in force.
#[derive(Debug, Clone)]
pub struct ConfigOrder {
    /// The document.
    pub config: v1::RoutingConfig,
    /// Refuse unless the one in force has this version.
    pub expected_version: Option<Revision>,
    /// Check everything, change nothing.
    pub validate_only: bool,
    /// Why, for the log.
    pub reason: String,
    /// Who.
    pub requested_by: String,
}

/// A document that was applied, or would be.
#[derive(Debug)]
pub struct Applied {
    /// A state that holds it.
    pub state: Arc<State>,
    /// Its version.
    pub version: Revision,
    /// What an operator should know about it.
    pub warnings: Vec<String>,
}

impl RoutingUseCases {
    /// A desk over a store and the control plane's own file.
    pub fn new(core: Arc<Core>, routing: &Routing) -> Self {
        Self {
            core,
            source: routing.source,
            file: routing.file.clone(),
        }
    }

    /// What every answer says about itself.
    pub fn header(&self, state: &State) -> v1::ResponseHeader {
        self.core.header(state, Vec::new())
    }

    /// The document in force, and how it differs from the file.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn get(&self) -> Answer<InForce> {
        let state = self.core.caught_up().await?;
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || RoutingFile::load(&file));
        let difference = match read.await {
            Ok(Ok(file)) => self.difference(&state, &file),
            // Under `api` the file is only a seed and may be absent once it has been sown.
            Ok(Err(_)) if self.source == RoutingSource::Api && state.config().is_some() => None,
            Ok(Err(mistakes)) => Some(mistakes.to_string()),
            Err(failed) => Some(format!("the file could not be read: {failed}")),
        };
        Ok(InForce {
            config: state.config().map(|config| config.raw.clone()),
            version: version(&state),
            source: self.source,
            difference,
            state,
        })
    }

    fn difference(&self, state: &State, file: &RoutingFile) -> Option<String> {
        let Some(config) = state.config() else {
            return Some("the file is not applied yet".to_owned());
        };
        if config.raw == *file.document() {
            return None;
        }
        let unread = not_read_by(state, file.config().schema());
        if self.source == RoutingSource::File && !unread.is_empty() {
            let unread: Vec<_> = unread.iter().map(ToString::to_string).collect();
            return Some(format!("the file is not applied: {}", unread.join("; ")));
        }
        if self.source == RoutingSource::Api {
            return Some(
                "the file says something else; with routing.source = \"api\" it only seeds an empty \
                 store"
                    .to_owned(),
            );
        }
        let refusals = config_refusals(state, file.config());
        if refusals.is_empty() {
            return Some("the file has changed and is not applied yet".to_owned());
        }
        let refusals: Vec<_> = refusals.iter().map(ToString::to_string).collect();
        Some(format!(
            "the file would change where names go (G0) and is not applied: {}",
            refusals.join("; ")
        ))
    }

    /// Replaces the document.
    ///
    /// # Errors
    /// Every mistake in it; [`Reason::WouldChangeRoute`] when a name would go elsewhere;
    /// [`Reason::RoutingOwnedByFile`].
    pub async fn apply(&self, order: &ConfigOrder) -> Answer<Applied> {
        if self.source == RoutingSource::File {
            return Err(Refusal::new(
                Reason::RoutingOwnedByFile,
                format!(
                    "the routing configuration belongs to the file {} (routing.source = \"file\")",
                    self.file.display()
                ),
            )
            .with("file", self.file.display()));
        }
        check_reason(&order.reason)?;
        let checked = RoutingConfig::try_from(&order.config)?;
        // In force it says what its readers need, not what it was written for.
        let document = v1::RoutingConfig {
            schema: checked.schema(),
            ..order.config.clone()
        };
        let (state, ()) = self
            .core
            .transact(|state| {
                expect_version(state, order.expected_version)?;
                match replace(&self.core, state, &document, &checked)? {
                    Some(change) if !order.validate_only => Ok(Step::Write(change.txn(), ())),
                    _ => Ok(Step::Done(())),
                }
            })
            .await?;
        if !order.validate_only {
            tracing::info!(version = %version(&state), by = order.requested_by,
                reason = order.reason, "a routing configuration was applied");
        }
        Ok(Applied {
            version: version(&state),
            warnings: checked.warnings(),
            state,
        })
    }

    /// Puts the file in force.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub(super) async fn apply_file(&self, file: &RoutingFile, authority: Authority) -> Answer<Rev> {
        let (state, ()) = self
            .core
            .transact(|state| {
                if authority == Authority::Sower && state.config().is_some() {
                    return Ok(Step::Done(()));
                }
                let change = replace(&self.core, state, file.document(), file.config())?;
                Ok(match (change, authority) {
                    (None, _) => Step::Done(()),
                    (Some(change), Authority::Sower) => Step::Write(change.txn(), ()),
                    (Some(change), Authority::Leader(token)) => {
                        Step::Write(change.led(token).txn(), ())
                    }
                })
            })
            .await?;
        Ok(state.config().map_or(0, |config| config.version))
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    pub(super) const fn source(&self) -> RoutingSource {
        self.source
    }

    pub(super) fn file(&self) -> &std::path::Path {
        &self.file
    }
}

/// The write that puts a document in force; `None` when it is. The comparison of routes holds for
/// everything that it has looked at: the document in force, the last change of routing, and the set of
/// registrations, each of which says what its data plane reads.
fn replace(
    core: &Core,
    state: &State,
    document: &v1::RoutingConfig,
    checked: &RoutingConfig,
) -> Answer<Option<RoutingChange>> {
    not_rewound(state)?;
    let in_force = state.config();
    if in_force.is_some_and(|config| config.raw == *document) {
        return Ok(None);
    }
    expect_read(state, checked.schema())?;
    let refusals = config_refusals(state, checked);
    if !refusals.is_empty() {
        let mut refusal = Refusal::new(
            Reason::WouldChangeRoute,
            "the document would change where names go; move accounts with Migrate",
        );
        for refused in refusals {
            let message = refused.to_string();
            let (place, what) = message.split_once(": ").unwrap_or(("config", &message));
            refusal = refusal.violated(format!("config.{place}"), what);
        }
        return Err(refusal);
    }
    let version = in_force.map_or(0, |config| config.version);
    Ok(Some(
        RoutingChange::new(&core.random)
            .config(document.clone(), version)
            .fleet(state.fleet())
            .at(keys::HEAD.to_vec(), state.head().store),
    ))
}

/// Every registered data plane must read what comes into force.
fn expect_read(state: &State, needs: u32) -> Answer<()> {
    let unread = not_read_by(state, needs);
    let Some(first) = unread.first() else {
        return Ok(());
    };
    let refusal = Refusal::new(Reason::SchemaUnsupported, first.to_string())
        .with("data_plane", &first.instance)
        .with("reads", first.reads)
        .with("needs", needs);
    Err(unread.iter().fold(refusal, |refusal, unread| {
        refusal.violated(&unread.instance, unread)
    }))
}

fn expect_version(state: &State, expected: Option<Revision>) -> Answer<()> {
    let found = version(state);
    match expected {
        Some(expected) if expected != found => Err(Refusal::new(
            Reason::VersionMismatch,
            format!("the document in force has version {found}, not {expected}"),
        )
        .with("found", found)),
        _ => Ok(()),
    }
}

fn version(state: &State) -> Revision {
    state.config().map_or(Revision::ZERO, |config| {
        Revision::new(state.base(), config.version)
    })
}
