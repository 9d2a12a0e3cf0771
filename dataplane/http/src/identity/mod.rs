//! Whose a request is, as far as the request says so.
//!
//! Nothing here is authentication. The server judges every request by what it carries; here it is only read for
//! whom it is, and what is read is good if the server would serve the same person. So each source is read as
//! servers read it, and refused where they differ: what stands twice, what is not in its form. What was read is
//! a claim that nobody has proved, and what carries it may be a password: none of it can be printed.

mod authorization;
mod json;
mod pairs;

use std::{fmt, iter};

use ferrypost_wire::Secret;
use http::{HeaderName, HeaderValue};

pub use authorization::MAX_TOKEN;
pub use json::JsonPointer;

use crate::rules::{Body, Request};
use crate::{Refusal, cookie};

/// Longest login in octets, as in the line protocols.
const MAX_LOGIN: usize = 1024;

/// Where a request may say whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The user of Basic credentials (RFC 7617).
    Basic,
    /// A bearer token (RFC 6750): whose it is, its issuer or the token itself says.
    Bearer,
    /// A parameter of the query.
    Query(String),
    /// A header field.
    Header(HeaderName),
    /// A field of a form (`application/x-www-form-urlencoded`).
    Form(String),
    /// A string in a JSON document.
    Json(JsonPointer),
    /// Our own cookie, in which is sealed what was learned from a response.
    Cookie,
}

/// What a request says of whose it is.
pub enum Claim {
    /// A login, not yet canonical.
    Login(String),
    /// A token.
    Token(Secret),
    /// The value of our own cookie, not yet opened. If [nothing comes of it](cookie::NotValid), the request is
    /// decided once more without that cookie.
    Sealed(String),
}

/// All that the sources of a rule say. Where two of them speak, a server may go by either: so the request is one account's
/// only if they name the same.
#[derive(Debug)]
pub struct Claims {
    /// What the first source says that says anything.
    pub first: Claim,
    /// What those behind it say, hardly ever anything.
    pub others: Vec<Claim>,
}

impl From<Claim> for Claims {
    fn from(first: Claim) -> Self {
        Self {
            first,
            others: Vec::new(),
        }
    }
}

impl Claims {
    /// All of them.
    pub fn into_all(self) -> impl Iterator<Item = Claim> {
        iter::once(self.first).chain(self.others)
    }

    /// The value of our own cookie, if it is among them.
    pub fn sealed(&self) -> Option<&str> {
        let mut all = iter::once(&self.first).chain(&self.others);
        all.find_map(|claim| match claim {
            Claim::Sealed(value) => Some(value.as_str()),
            Claim::Login(_) | Claim::Token(_) => None,
        })
    }

    /// Puts the login that was in our cookie into its place.
    pub fn unseal(&mut self, login: &str) {
        for claim in iter::once(&mut self.first).chain(&mut self.others) {
            if matches!(claim, Claim::Sealed(_)) {
                *claim = Claim::Login(login.to_owned());
            }
        }
    }
}

/// The value of a query's parameter, if it stands there once and well-formed.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    pairs::find(query.as_bytes(), name).ok().flatten()
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Login(_) => "Login",
            Self::Token(_) => "Token",
            Self::Sealed(_) => "Sealed",
        })
    }
}

/// What a source has.
pub(crate) enum Found {
    /// Nothing: the next may be asked.
    Nothing,
    /// This.
    Claim(Claim),
    /// It is in the body, which has not been read.
    InBody,
}

impl Source {
    /// Whether the body has to be read for it.
    pub(crate) const fn is_in_body(&self) -> bool {
        matches!(self, Self::Form(_) | Self::Json(_))
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`Refusal::Credentials`], [`Refusal::Repeated`], [`Refusal::BodyForm`], [`Refusal::BodyTooLarge`].
    pub(crate) fn read(&self, request: &Request<'_>, body: Body<'_>) -> Result<Found, Refusal> {
        let claim = match self {
            Self::Basic => authorization::basic(request.headers)?.map(Claim::Login),
            Self::Bearer => authorization::bearer(request.headers)?.map(Claim::Token),
            Self::Query(name) => in_query(request, name)?.map(login).transpose()?,
            Self::Header(name) => in_header(request, name)?.map(login).transpose()?,
            Self::Form(name) => match body.form(request)? {
                None => return Ok(Found::InBody),
                Some(form) => in_form(form, name)?.map(login).transpose()?,
            },
            Self::Json(pointer) => match body.json(request)? {
                None => return Ok(Found::InBody),
                Some(document) => pointer.find(document)?.map(login).transpose()?,
            },
            Self::Cookie => cookie::find(request.headers)?.map(Claim::Sealed),
        };
        Ok(claim.map_or(Found::Nothing, Found::Claim))
    }
}

/// A parameter of the query, decoded.
pub(crate) fn in_query(request: &Request<'_>, name: &str) -> Result<Option<String>, Refusal> {
    let query = request.query.unwrap_or_default();
    pairs::find(query.as_bytes(), name).map_err(|wrong| wrong.refusal(Refusal::Target))
}

/// A field of a form, decoded.
pub(crate) fn in_form(form: &[u8], name: &str) -> Result<Option<String>, Refusal> {
    pairs::find(form, name).map_err(|wrong| wrong.refusal(Refusal::BodyForm))
}

/// A header field that stands once, as text.
pub(crate) fn in_header(
    request: &Request<'_>,
    name: &HeaderName,
) -> Result<Option<String>, Refusal> {
    let mut lines = request
        .headers
        .get_all(name)
        .iter()
        .map(HeaderValue::as_bytes);
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Refusal::Repeated),
        (Some(line), None) => match str::from_utf8(line) {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(Refusal::Credentials),
        },
    }
}

/// A field that is there names somebody; one that names nobody is a mistake, and no reason to look elsewhere.
fn login(text: String) -> Result<Claim, Refusal> {
    if text.is_empty() || text.len() > MAX_LOGIN || text.chars().any(char::is_control) {
        return Err(Refusal::Credentials);
    }
    Ok(Claim::Login(text))
}

/// A name as one reads it who does not mind case, nor whether a letter is ASCII's: Go's JSON takes `ſ` for an `s`.
fn folded(name: &str) -> String {
    let upper = name.chars().flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase).collect()
}

/// Why a value was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    /// Its name stands more than once, or does to some.
    Repeated,
    /// It is not in its form.
    Malformed,
}

impl Wrong {
    fn refusal(self, malformed: Refusal) -> Refusal {
        match self {
            Self::Repeated => Refusal::Repeated,
            Self::Malformed => malformed,
        }
    }
}
