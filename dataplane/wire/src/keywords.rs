//! What a server says that it can do, where it says it in lines.

use std::fmt;

/// The most lines that are kept of a list, and the most octets of one; the longest seen in the wild is a list
/// of Sieve extensions of some 700.
const MAX_LINES: usize = 64;
const MAX_LINE: usize = 2048;

/// Lines of a keyword and words behind it, such as `SASL PLAIN LOGIN` or `SIZE 1000`, all without regard to
/// case: CAPA (RFC 2449 §5), EHLO (RFC 5321 §4.1.1.1) and, as far as it goes, ManageSieve (RFC 5804 §1.7).
///
/// A keyword that comes twice has the words of both.
#[derive(Debug, Clone, Default)]
pub struct Keywords(Vec<Vec<String>>);

impl Keywords {
    /// Whether `keyword` is in the list, whatever stands behind it.
    pub fn has(&self, keyword: &str) -> bool {
        self.words(keyword).is_some()
    }

    /// Whether `word` stands behind `keyword`.
    pub fn has_word(&self, keyword: &str, word: &str) -> bool {
        self.words(keyword)
            .is_some_and(|mut words| words.any(|have| have.eq_ignore_ascii_case(word)))
    }

    /// What stands behind `keyword`; `None` if that is not in the list.
    pub fn words(&self, keyword: &str) -> Option<impl Iterator<Item = &str>> {
        let line = self.0.iter().find(|line| is(&line[0], keyword))?;
        Some(line[1..].iter().map(String::as_str))
    }

    /// The keywords in the order in which they were first said.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|line| line[0].as_str())
    }

    /// The lines.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|line| line.join(" "))
    }

    /// Takes a line. What is not printable US-ASCII is left out, as is what is too much.
    pub(crate) fn add(&mut self, line: &str) {
        let is_printable = line.bytes().all(|octet| matches!(octet, b' '..=b'~'));
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        let Some(keyword) = words.next().filter(|_| is_printable) else {
            return;
        };
        let place = self.0.iter().position(|line| is(&line[0], keyword));
        if place.is_none() && self.0.len() == MAX_LINES {
            return;
        }
        let place = place.unwrap_or_else(|| {
            self.0.push(vec![keyword.to_owned()]);
            self.0.len() - 1
        });
        let line = &mut self.0[place];
        let mut length: usize = line.iter().map(|word| word.len() + 1).sum();
        for word in words {
            length += word.len() + 1;
            if length <= MAX_LINE && !line[1..].iter().any(|have| is(have, word)) {
                line.push(word.to_owned());
            }
        }
    }
}

fn is(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Equal are two that have the same words behind the same keywords, in whatever order and case.
impl PartialEq for Keywords {
    fn eq(&self, other: &Self) -> bool {
        let has_all = |line: &Vec<String>| {
            let words = other.words(&line[0]);
            words.is_some_and(|words| words.count() == line.len() - 1)
                && line[1..].iter().all(|word| other.has_word(&line[0], word))
        };
        self.0.len() == other.0.len() && self.0.iter().all(has_all)
    }
}

impl Eq for Keywords {}

impl crate::Capabilities for Keywords {
    fn from_items<'a>(items: impl IntoIterator<Item = &'a str>) -> Self {
        let mut keywords = Self::default();
        for item in items {
            keywords.add(item);
        }
        keywords
    }

    fn items(&self) -> Vec<String> {
        self.lines().collect()
    }
}

impl fmt::Display for Keywords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Capabilities as _;

    #[test]
    fn order_and_case_do_not_make_a_list_another() {
        let list = Keywords::from_items(["SASL PLAIN LOGIN", "TOP", "top"]);
        assert_eq!(list, Keywords::from_items(["Top", "sasl login  plain"]));
        assert_ne!(list, Keywords::from_items(["TOP", "SASL PLAIN"]));
        assert_ne!(list, Keywords::from_items(["SASL PLAIN LOGIN"]));
        assert_ne!(
            list,
            Keywords::from_items(["SASL PLAIN LOGIN", "TOP", "UIDL"])
        );
        assert_eq!(list.to_string(), "SASL PLAIN LOGIN, TOP");
    }

    #[test]
    fn a_keyword_that_comes_twice_has_the_words_of_both() {
        let list = Keywords::from_items(["AUTH PLAIN", "AUTH LOGIN PLAIN"]);
        assert_eq!(list.items(), ["AUTH PLAIN LOGIN"]);
        assert!(list.has_word("auth", "login") && !list.has_word("AUTH", "AUTH"));
    }

    #[test]
    fn a_list_does_not_grow_without_bound_or_carry_control_characters() {
        let many: Vec<_> = (0..1000).map(|n| format!("X{n} y")).collect();
        let long = format!("SASL{}", " a-word-of-its-own".repeat(1000));
        let longest = (0..1000).fold("Z".to_owned(), |line, n| format!("{line} {n:09}"));
        let list = Keywords::from_items(many.iter().map(String::as_str));
        assert_eq!(list.iter().count(), MAX_LINES);
        assert_eq!(
            Keywords::from_items([&*long]).items(),
            ["SASL a-word-of-its-own"]
        );
        assert!(Keywords::from_items([&*longest]).items()[0].len() <= MAX_LINE);
        assert_eq!(
            Keywords::from_items(["A \x1b[2J", "", " ", "B \u{e4}"]).items(),
            [""; 0]
        );
    }
}
