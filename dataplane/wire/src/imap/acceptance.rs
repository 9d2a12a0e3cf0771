//! A backend's OK to a login.

use super::capability::Capabilities;
use crate::reply::MAX_PASSED_TEXT;
use crate::text::printable;

/// A backend's OK to a login: what the client is to learn from it. Made only by a
/// [`Login`](crate::Login).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// What the backend offers to this account.
    pub(super) capabilities: Capabilities,
    /// Whole lines for the client that the backend sent before its OK, with their ends.
    pub(super) untagged: Vec<u8>,
    /// The OK's text, printable and shortened.
    pub(super) text: String,
}

impl Acceptance {
    /// What the backend offers to this account, as it said itself.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    pub(super) fn new(capabilities: Capabilities, untagged: Vec<u8>, text: &[u8]) -> Self {
        Self {
            capabilities,
            untagged,
            text: printable(text, MAX_PASSED_TEXT),
        }
    }
}
