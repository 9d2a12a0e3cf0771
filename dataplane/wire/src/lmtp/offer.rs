//! What may be offered to a mail system, which asks once and sends for every server.

use crate::keywords::Keywords;
use crate::smtp::envelope::HOPS;
use crate::smtp::offer::shared;

/// What is offered where every destination offers it: it changes what a message may be, or what becomes of it. The last
/// one is what Dovecot's proxies tell Dovecot of a recipient; its LMTP alone offers it, to whom it trusts.
const CARRIED: [&str; 4] = ["8BITMIME", "SMTPUTF8", "DSN", "XRCPTFORWARD"];

/// What we do ourselves.
const OURS: [&str; 3] = ["PIPELINING", "ENHANCEDSTATUSCODES", HOPS];

/// What we offer to mail systems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer(Keywords);

impl Offer {
    /// What every destination can do.
    pub fn new(destinations: &[Keywords]) -> Self {
        let mut keywords = shared(destinations, &CARRIED);
        for ours in OURS {
            keywords.add(ours);
        }
        Self(keywords)
    }

    /// What it says, one by one, for the operator's eyes.
    pub fn items(&self) -> Vec<String> {
        self.lines().collect()
    }

    /// Whether a parameter of this extension is taken.
    pub(super) fn has(&self, extension: &str) -> bool {
        self.0.has(extension)
    }

    /// The largest message, in octets, if there is a limit.
    pub(super) fn size(&self) -> Option<u64> {
        let size = self.0.words("SIZE")?.next()?.parse().ok();
        size.filter(|size| *size > 0)
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.lines()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Capabilities as _;

    #[test]
    fn what_one_server_cannot_take_is_offered_by_none() {
        let dovecot = [
            "8BITMIME",
            "CHUNKING",
            "ENHANCEDSTATUSCODES",
            "PIPELINING",
            "SIZE 100",
        ];
        let postfix = [
            "PIPELINING",
            "SIZE 50",
            "VRFY",
            "8BITMIME",
            "DSN",
            "SMTPUTF8",
        ];
        let list = |items: &[&str]| Keywords::from_items(items.iter().copied());
        let offer = Offer::new(&[list(&dovecot), list(&postfix)]);
        let lines: Vec<_> = offer.lines().collect();
        assert_eq!(
            lines,
            [
                "SIZE 50",
                "8BITMIME",
                "PIPELINING",
                "ENHANCEDSTATUSCODES",
                "XFERRYPOST"
            ]
        );
        assert_eq!(offer.size(), Some(50));
    }

    #[test]
    fn before_any_server_was_asked_only_what_is_ours_is_offered() {
        let lines: Vec<_> = Offer::new(&[]).lines().collect();
        assert_eq!(lines, OURS);
        assert_eq!(Offer::new(&[]).size(), None);
    }
}
