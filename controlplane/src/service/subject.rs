//! What the operator's word for an account means.

use std::sync::Arc;

use ferrypost_proto::{Name, NameError, RoutingConfig};

use crate::refusal::{Answer, Reason, Refusal};
use crate::{
    domain::resolution::{self, Subject},
    domain::state::{Account, State},
};

/// An empty text is refused before anything else: it must never mean all accounts.
pub(super) fn given(text: &str) -> Answer<()> {
    if text.is_empty() {
        return Err(Refusal::required("account"));
    }
    Ok(())
}

/// Finds an account by its id or any of its names.
pub(super) fn find(state: &State, routing: &RoutingConfig, text: &str) -> Answer<Subject> {
    given(text)?;
    resolution::find(state, routing, text).map_err(|error| bad_name("account", text, error))
}

/// Finds an account that has a record.
pub(super) fn find_record(
    state: &State,
    routing: &RoutingConfig,
    text: &str,
) -> Answer<Arc<Account>> {
    match find(state, routing, text)? {
        Subject::Known(account) => Ok(account),
        Subject::Unlisted(_) | Subject::NoRecord(_) => Err(not_found(text)),
    }
}

/// The canonical names under which an account's sessions run: its record's, or the one name.
pub(super) fn session_names(
    state: &State,
    routing: &RoutingConfig,
    text: &str,
) -> Answer<Vec<String>> {
    match find(state, routing, text)? {
        Subject::Known(account) => Ok(account.names().iter().map(|n| (**n).to_owned()).collect()),
        Subject::Unlisted(name) => Ok(vec![name.as_str().to_owned()]),
        Subject::NoRecord(_) => Err(not_found(text)),
    }
}

/// A login's canonical name.
pub(super) fn canonical(routing: &RoutingConfig, field: &'static str, login: &str) -> Answer<Name> {
    let name = routing.names().canonicalise(login);
    name.map_err(|error| bad_name(field, login, error))
}

fn bad_name(field: &'static str, login: &str, error: NameError) -> Refusal {
    Refusal::new(Reason::NameInvalid, format!("{login:?}: {error}"))
        .with("login", login)
        .violated(field, error)
}

fn not_found(text: &str) -> Refusal {
    Refusal::new(
        Reason::AccountNotFound,
        format!("{text:?} has no record; ExplainRoute says where its logins go"),
    )
    .with("account", text)
}
