//! The two kinds of registered login, as their tasks hold them.

use std::sync::Arc;

use ferrypost_routing::{Resolution, Route};
use ferrypost_wire::Answered;

use super::{
    Registry, SessionKind, Stage, Subject,
    entry::{CloseReason, Entry, Told},
    step::Lock as _,
};
use crate::{net::CloseProof, tables::Published as _};

/// A registered session: made by admission alone, and registered until it is dropped.
///
/// From [`exposed`](Self::exposed) on, drop it only after the backend leg is closed: ending
/// without a [`Proof`] counts as *unconfirmed*, since nobody knows what the backend still executes, and a
/// fence that waits for this session makes its move abort (G2c). Before that there is nothing to prove, and
/// nothing may leave us on the leg once this is dropped.
#[derive(Debug)]
pub struct SessionGuard(Registered);

/// A held login: registered without a route while its subject is fenced.
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
    /// Its subject is fenced, refused, or goes to another destination now.
    #[error("the name resolves otherwise now")]
    Changed,
}

/// Evidence that a backend is done with what it was sent for a session. Each proves one end.
#[derive(Debug)]
pub enum Proof {
    /// It has closed its side of the connection.
    Closed(CloseProof),
    /// Its last word on it was read. The connection may go on for others.
    Answered(Answered),
    /// Its response was read to its end, and all of the request had been sent. The connection may go on for others.
    Exchanged(Exchanged),
    /// Nobody saw its end, and whatever it still does for what it was asked, it changes nothing.
    OnlyAsked(OnlyAsked),
}

impl From<CloseProof> for Proof {
    fn from(proof: CloseProof) -> Self {
        Self::Closed(proof)
    }
}

impl From<Answered> for Proof {
    fn from(last: Answered) -> Self {
        Self::Answered(last)
    }
}

/// Evidence that a server has answered a request by HTTP: the end of the response was read, and all of the request had
/// been sent.
#[derive(Debug, Clone, Copy)]
pub struct Exchanged(());

impl Exchanged {
    /// For whoever has just seen both ends.
    pub(crate) const fn by_reading() -> Self {
        Self(())
    }
}

impl From<Exchanged> for Proof {
    fn from(exchanged: Exchanged) -> Self {
        Self::Exchanged(exchanged)
    }
}

/// Evidence that a request by HTTP changes nothing, whenever a server is done with it: that is what its method means
/// (decision 0035).
#[derive(Debug, Clone, Copy)]
pub struct OnlyAsked(());

impl OnlyAsked {
    /// For whoever knows what the request is.
    pub(crate) const fn by_its_kind() -> Self {
        Self(())
    }
}

impl From<OnlyAsked> for Proof {
    fn from(asked: OnlyAsked) -> Self {
        Self::OnlyAsked(asked)
    }
}

/// The end of a session, to be waited for without its guard.
#[derive(Debug)]
pub struct Ending(Arc<Entry>);

impl Ending {
    /// Resolves when the session must end, at once if it was told before.
    pub async fn told(self) -> CloseReason {
        self.0.closing().await
    }
}

impl SessionGuard {
    pub(super) fn new(registry: Arc<Registry>, entry: Arc<Entry>) -> Self {
        Self(Registered {
            registry,
            entry,
            backend_open: false,
        })
    }

    /// Whom it is for.
    pub fn subject(&self) -> &Subject {
        &self.0.entry.request.subject
    }

    /// Where the session goes. Never changes: a session whose subject goes elsewhere is closed.
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

    /// The same for whoever cannot hold the guard meanwhile.
    pub fn ending(&self) -> Ending {
        Ending(Arc::clone(&self.0.entry))
    }

    /// Tells somebody when the session must end, at once if it was told before. One is told, the first.
    pub fn alarm(&self, whom: Arc<dyn Told>) {
        let Registered {
            registry, entry, ..
        } = &self.0;
        let shard = registry.shard(&entry.request.subject);
        shard.with(|_| entry.alarm(whom));
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
    /// Somebody has been let in, if it is no delivery: a name without a record is remembered for
    /// [`unlisted`](Registry::unlisted).
    pub fn relaying(&self) {
        self.0.entry.relaying();
        let route = self.route();
        let is_delivery = self.0.entry.request.kind == SessionKind::Delivery;
        if let Some(name) = self.subject().name()
            && route.account.is_none()
            && !is_delivery
        {
            let unlisted = &self.0.registry.unlisted;
            unlisted.note(name, &route.destination);
        }
    }

    /// The backend may execute something for the subject from now on: to be said before that is sent. A login's is
    /// said when the backend has accepted it and before it is sent anything else; an exchange's before its first
    /// octet; a delivery's before the end of its message.
    ///
    /// Not before. A login is no command, so until it is accepted there is nothing that could still be executed; and
    /// a server may think about a wrong password for longer than a close may take, without a look at its socket.
    /// Whoever knows an address could keep the account from ever moving (decision 0005).
    pub fn exposed(&mut self) {
        self.0.backend_open = true;
    }

    /// After it was exposed and before the next byte (for a login: the first relayed one): still the same destination, and no fence
    /// goes on (G2b)? A fence that begins after this answer finds the session registered.
    pub fn recheck(&self) -> Result<(), Recheck> {
        if let Some(reason) = self.close_reason() {
            return Err(Recheck::Closing(reason));
        }
        let resolution = self
            .0
            .registry
            .tables
            .with_current(|table| table.map(|table| self.subject().resolve(table)));
        match resolution {
            Some(Resolution::Route(now)) if now.destination == self.route().destination => Ok(()),
            _ => Err(Recheck::Changed),
        }
    }

    /// Whether a fence or a flip overtook the session: it must not be relayed, and its subject is to be admitted
    /// anew.
    pub fn is_overtaken(&self) -> bool {
        matches!(
            self.recheck(),
            Err(Recheck::Changed | Recheck::Closing(CloseReason::Moved))
        )
    }

    /// Ends the registration with the evidence that nothing is executed for it any more.
    pub fn closed(mut self, proof: impl Into<Proof>) {
        let _: Proof = proof.into();
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

    /// Resolves when a table no longer fences the subject: drop this and admit again, for what comes then
    /// may be another destination. Cancel-safe.
    pub async fn released(&self) {
        let subject = &self.0.entry.request.subject;
        let mut tables = self.0.registry.tables.watch();
        // `Err` would mean that the publisher is gone, and the registry holds one.
        let _ = tables
            .wait_for(|table| {
                table
                    .as_ref()
                    .is_some_and(|table| !matches!(subject.resolve(table), Resolution::Fenced(_)))
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
    /// A backend may be executing something for it: its end was not seen.
    backend_open: bool,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.leave(&self.entry, self.backend_open);
    }
}
