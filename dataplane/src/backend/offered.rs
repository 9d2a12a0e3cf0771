//! What a server offers, whatever its protocol.

use std::fmt;

use ferrypost_wire::Capabilities;

/// What a server offers, one by one: what operators see, and what a protocol's own form is made of again.
#[derive(Debug, Clone)]
pub struct Offered(Vec<String>);

impl Offered {
    /// Takes it down.
    pub fn of(capabilities: &impl Capabilities) -> Self {
        Self(capabilities.items())
    }

    /// Reads it as the protocol means it.
    pub fn read<C: Capabilities>(&self) -> C {
        C::from_items(self.0.iter().map(String::as_str))
    }

    /// One by one.
    pub fn items(&self) -> &[String] {
        &self.0
    }

    /// What either of them names.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let more = other.0.iter().filter(|item| !self.has(item));
        Self(self.0.iter().chain(more).cloned().collect())
    }

    /// Whether it is among them, in whatever case.
    pub fn has(&self, item: &str) -> bool {
        self.0.iter().any(|have| have.eq_ignore_ascii_case(item))
    }
}

/// Equal in whatever order and case: a server that shuffles its list has not changed.
impl PartialEq for Offered {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().all(|item| other.has(item))
    }
}

impl Eq for Offered {}

impl fmt::Display for Offered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}
