//! What a server offers, and what we offer: lists of words.

use std::fmt;

/// The most words that are kept of a list; the longest seen in the wild has fewer than 80.
const MAX_WORDS: usize = 256;

/// What a server says it can do: a list of words without order, compared without regard to case.
#[derive(Debug, Clone, Default)]
pub struct Capabilities(Vec<String>);

impl Capabilities {
    /// Takes the words of a list that are separated by spaces. What is not printable US-ASCII is
    /// left out, as are repetitions.
    pub fn parse(list: &[u8]) -> Self {
        let mut words = Self::default();
        for word in list.split(|&octet| octet == b' ') {
            if let Ok(word) = str::from_utf8(word) {
                words.add(word);
            }
        }
        words
    }

    /// Whether `word` is in the list.
    pub fn has(&self, word: &str) -> bool {
        self.0.iter().any(|have| have.eq_ignore_ascii_case(word))
    }

    /// The words in the order in which they were first said.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Whether the list has no words.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The words of this list for which `keep` holds.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|word| keep(word)).cloned().collect())
    }

    pub(super) fn add(&mut self, word: &str) {
        let fit = !word.is_empty() && word.bytes().all(|octet| octet.is_ascii_graphic());
        if fit && self.0.len() < MAX_WORDS && !self.has(word) {
            self.0.push(word.to_owned());
        }
    }

    /// Appends the words to `out`, separated by spaces.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (position, word) in self.0.iter().enumerate() {
            if position > 0 {
                out.push(b' ');
            }
            out.extend_from_slice(word.as_bytes());
        }
    }
}

/// Two lists are equal if they have the same words, in whatever order and case: a server that
/// shuffles its list has not changed.
impl PartialEq for Capabilities {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.iter().all(|word| other.has(word))
    }
}

impl Eq for Capabilities {}

impl crate::Capabilities for Capabilities {
    fn from_items<'a>(items: impl IntoIterator<Item = &'a str>) -> Self {
        let mut words = Self::default();
        for word in items {
            words.add(word);
        }
        words
    }

    fn items(&self) -> Vec<String> {
        self.0.clone()
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(" "))
    }
}

/// What we offer to clients before login, on a leg that may carry secrets. Made only by
/// [`LineProtocol::offer`](crate::LineProtocol::offer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer(Capabilities);

impl Offer {
    pub(super) fn new(capabilities: Capabilities) -> Self {
        Self(capabilities)
    }

    /// The list that clients see.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0
    }
}

impl crate::Offer for Offer {
    fn items(&self) -> Vec<String> {
        self.0.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_case_do_not_make_a_list_another() {
        let list = Capabilities::parse(b"IMAP4rev1 IDLE  idle ENABLE");
        assert_eq!(list, Capabilities::parse(b"enable IMAP4REV1 Idle"));
        assert_ne!(list, Capabilities::parse(b"IMAP4rev1 IDLE"));
        assert_eq!(list.to_string(), "IMAP4rev1 IDLE ENABLE");
    }

    #[test]
    fn a_list_does_not_grow_without_bound_or_carry_control_characters() {
        let endless: Vec<u8> = (0..1000)
            .flat_map(|n| format!("X{n} ").into_bytes())
            .collect();
        assert_eq!(Capabilities::parse(&endless).iter().count(), MAX_WORDS);
        assert_eq!(
            Capabilities::parse(b"A \x1b[2J B\xff C"),
            Capabilities::parse(b"A C")
        );
    }
}
