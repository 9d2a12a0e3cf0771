//! The two kinds of registered login, as their tasks hold them.

use std::sync::Arc;

use ferrypost_proto::Name;
use ferrypost_routing::{Resolution, Route};

use super::{
    Registry, Stage,
    entry::{CloseReason, Entry},
};
use crate::{net::CloseProof, tables::Published as _};

/// A registered session: made by admission alone, and registered until it is dropped.
///
/// From [`backend_accepted`](Self::backend_accepted) on, drop it only after the backend leg is closed: ending
/// without a [`CloseProof`] counts as *unconfirmed*, since nobody knows what the backend still executes, and a
/// fence that waits for this session makes its move abort (G2c). Before that there is nothing to prove, and
/// nothing may leave us on the leg once this is dropped.
#[derive(Debug)]
pub struct SessionGuard(Registered);

/// A held login: registered without a route while its name is fenced.
///
/// Nothing but a table ends the hold: no clock of ours and no loss of the control plane (G10). The caller
/// keeps its own deadline, answers with a temporary error when that is over, and drops this.
#[derive(Debug)]
pub struct HeldLogin(Registered);

/// Why a session that the backend has accepted must not be relayed (G2b): close the backend leg, and admit the
/// login anew or answer with a temporary error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Recheck {
    /// It was told to end meanwhile.
    #[error("told to end: {reason}", reason = .0.word())]
    Closing(CloseReason),
    /// Its name is fenced, refused, or goes to another destination now.
    #[error("the name resolves otherwise now")]
    Changed,
}

impl SessionGuard {
    pub(super) fn new(registry: Arc<Registry>, entry: Arc<Entry>) -> Self {
        Self(Registered {
            registry,
            entry,
            backend_open: false,
        })
    }

    /// The canonical name.
    pub fn name(&self) -> &Name {
        &self.0.entry.request.name
    }

    /// Where the session goes. Never changes: a session whose name goes elsewhere is closed.
    pub fn route(&self) -> &Route {
        self.0
            .entry
            .route
            .as_ref()
            .expect("a guard is made for an entry with a route")
    }

    /// Resolves when the session must end, at once if it was told before. Cancel-safe.
    pub async fn closing(&self) -> CloseReason {
        self.0.entry.closing().await
    }

    /// Why the session must end, if it must.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.entry.close_reason()
    }

    /// How far it has come.
    pub fn stage(&self) -> Stage {
        self.0.entry.stage()
    }

    /// Shows the session as [`Stage::Relaying`] from now on.
    ///
    /// Somebody has been let in: a name without a record is remembered for
    /// [`unlisted`](Registry::unlisted).
    pub fn relaying(&self) {
        self.0.entry.relaying();
        let route = self.route();
        if route.account.is_none() {
            let unlisted = &self.0.registry.unlisted;
            unlisted.note(self.name(), &route.destination);
        }
    }

    /// Say so before anything that a backend could execute for the account is sent: when it has accepted the
    /// login, and before it is sent anything else.
    ///
    /// Not before. Until then it has a login and no command of the client's, so there is nothing that it could
    /// still execute; and a server may think about a wrong password for longer than a close may take, without a
    /// look at its socket. Whoever knows an address could keep the account from ever moving (decision 0005).
    pub fn backend_accepted(&mut self) {
        self.0.backend_open = true;
    }

    /// After the backend's OK and before the first relayed byte: still the same destination, and no fence
    /// goes on (G2b)? A fence that begins after this answer finds the session registered.
    pub fn recheck(&self) -> Result<(), Recheck> {
        if let Some(reason) = self.close_reason() {
            return Err(Recheck::Closing(reason));
        }
        let resolution = self
            .0
            .registry
            .tables
            .with_current(|table| table.map(|table| table.resolve(self.name())));
        match resolution {
            Some(Resolution::Route(now)) if now.destination == self.route().destination => Ok(()),
            _ => Err(Recheck::Changed),
        }
    }

    /// Whether a fence or a flip overtook the session: it must not be relayed, and its name is to be admitted
    /// anew.
    pub fn is_overtaken(&self) -> bool {
        matches!(
            self.recheck(),
            Err(Recheck::Changed | Recheck::Closing(CloseReason::Moved))
        )
    }

    /// Ends the registration with the evidence that the backend's side is over.
    pub fn closed(mut self, _proof: CloseProof) {
        self.0.backend_open = false;
    }
}

impl HeldLogin {
    pub(super) fn new(registry: Arc<Registry>, entry: Arc<Entry>) -> Self {
        Self(Registered {
            registry,
            entry,
            backend_open: false,
        })
    }

    /// The canonical name.
    pub fn name(&self) -> &Name {
        &self.0.entry.request.name
    }

    /// Resolves when a table no longer fences the name: drop this and admit again, for what comes then
    /// may be another destination. Cancel-safe.
    pub async fn released(&self) {
        let mut tables = self.0.registry.tables.watch();
        // `Err` would mean that the publisher is gone, and the registry holds one.
        let _ = tables
            .wait_for(|table| {
                table.as_ref().is_some_and(|table| {
                    !matches!(table.resolve(self.name()), Resolution::Fenced(_))
                })
            })
            .await;
    }

    /// Resolves when the login must end, at once if it was told before. Cancel-safe.
    pub async fn closing(&self) -> CloseReason {
        self.0.entry.closing().await
    }
}

/// An entry that leaves the registry when it is dropped.
#[derive(Debug)]
struct Registered {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
    /// A backend has accepted the login and its end was not seen.
    backend_open: bool,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.leave(&self.entry, self.backend_open);
    }
}
