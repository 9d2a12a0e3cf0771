//! A backend's OK to a login.

use crate::reply::MAX_PASSED_TEXT;
use crate::text::printable;

/// A backend's OK to a login: its text. Made only by a [`Login`](crate::Login).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    text: String,
}

impl Acceptance {
    pub(super) fn new(text: &[u8]) -> Self {
        let text = match text {
            [] => b"Logged in.",
            text => text,
        };
        Self {
            text: printable(text, MAX_PASSED_TEXT),
        }
    }

    /// The text, printable and shortened.
    pub fn text(&self) -> &str {
        &self.text
    }
}
