//! One string in a JSON document.

use std::cell::Cell;
use std::fmt;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::{Wrong, folded};
use crate::Refusal;

/// The most steps of a pointer.
const MAX_STEPS: usize = 8;

/// Where in a document a string stands: members of objects, one in another (RFC 6901, without indices).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPointer(Vec<String>);

impl JsonPointer {
    /// Reads `/member/member`, in which `~1` is a slash and `~0` a tilde. `None` if it is none or has too many
    /// steps.
    pub fn parse(text: &str) -> Option<Self> {
        let steps: Vec<_> = text
            .strip_prefix('/')?
            .split('/')
            .map(unescape)
            .collect::<Option<_>>()?;
        (steps.len() <= MAX_STEPS && steps.iter().all(|step| !step.is_empty()))
            .then_some(Self(steps))
    }

    /// The string; `None` where there is no such member, or `null`.
    ///
    /// A member on the way that stands twice is refused, and so is one that does so to servers that do not mind
    /// case, whichever of them would count.
    ///
    /// # Errors
    /// [`Refusal::Repeated`]; [`Refusal::BodyForm`]: it is no JSON, or no string stands there.
    pub(super) fn find(&self, document: &[u8]) -> Result<Option<String>, Refusal> {
        self.read(document)
            .map_err(|wrong| wrong.refusal(Refusal::BodyForm))
    }

    fn read(&self, document: &[u8]) -> Result<Option<String>, Wrong> {
        let repeated = Cell::new(false);
        let mut json = serde_json::Deserializer::from_slice(document);
        let find = Find {
            steps: &self.0,
            repeated: &repeated,
        };
        let found = find
            .deserialize(&mut json)
            .and_then(|found| json.end().map(|()| found));
        if repeated.get() {
            return Err(Wrong::Repeated);
        }
        found.map_err(|_| Wrong::Malformed)
    }
}

fn unescape(step: &str) -> Option<String> {
    let mut pieces = step.split('~');
    let mut text = pieces.next()?.to_owned();
    for piece in pieces {
        text.push(match piece.as_bytes().first()? {
            b'0' => '~',
            b'1' => '/',
            _ => return None,
        });
        text.push_str(&piece[1..]);
    }
    Some(text)
}

/// Walks down the steps and past everything else, which is neither kept nor recursed into.
struct Find<'a> {
    steps: &'a [String],
    repeated: &'a Cell<bool>,
}

impl Find<'_> {
    /// A scalar that is no string: nothing stands below it, and nothing of ours in it.
    fn scalar<E: serde::de::Error>(&self) -> Result<Option<String>, E> {
        if self.steps.is_empty() {
            Err(E::custom("not a string"))
        } else {
            Ok(None)
        }
    }
}

impl<'de> DeserializeSeed<'de> for Find<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let Some((step, rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("not a string"));
        };
        let (mut found, mut count, mut is_exact) = (None, 0, true);
        while let Some(name) = members.next_key::<String>()? {
            let is_like = folded(&name) == folded(step);
            count += usize::from(is_like);
            is_exact &= !is_like || name == *step;
            if count > 1 {
                self.repeated.set(true);
                return Err(A::Error::custom("a member stands twice"));
            }
            if name == *step {
                found = members.next_value_seed(Find {
                    steps: rest,
                    ..self
                })?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        // Said to servers that do not mind case, and not to us.
        is_exact
            .then_some(found)
            .ok_or_else(|| A::Error::custom("a member of a like name"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        self.scalar()
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(self.steps.is_empty().then(|| text.to_owned()))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Self::Value, E> {
        self.scalar()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Self::Value, E> {
        self.scalar()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Self::Value, E> {
        self.scalar()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Self::Value, E> {
        self.scalar()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn find(pointer: &str, document: &str) -> Result<Option<String>, Wrong> {
        JsonPointer::parse(pointer)
            .unwrap()
            .read(document.as_bytes())
    }

    #[test]
    fn a_string_is_found_where_it_stands_and_nowhere_else() {
        let document = r#"{"type": "authCode", "n": [1, {"accountName": "no"}],
            "deep": {"a/b": {"c~": "yes"}}, "accountName": "alice"}"#;
        assert_eq!(find("/accountName", document), Ok(Some("alice".into())));
        assert_eq!(find("/deep/a~1b/c~0", document), Ok(Some("yes".into())));
        assert_eq!(find("/deep/x", document), Ok(None));
        assert_eq!(find("/n/1", document), Ok(None));
        assert_eq!(find("/type/x", document), Ok(None));
        assert_eq!(find("/a", r#"{"a": null}"#), Ok(None));
        assert_eq!(find("/a", r#"{"\u0061": "\u0062"}"#), Ok(Some("b".into())));
    }

    #[test]
    fn a_member_that_stands_twice_to_anybody_is_refused() {
        for document in [
            r#"{"a": "x", "a": "y"}"#,
            r#"{"a": "x", "\u0061": "y"}"#,
            r#"{"A": "x", "a": "y"}"#,
            r#"{"a": "x", "A": 1}"#,
        ] {
            assert_eq!(find("/a", document), Err(Wrong::Repeated), "{document}");
        }
        assert_eq!(
            find("/a/b", r#"{"a": {"b": "x"}, "a": {}}"#),
            Err(Wrong::Repeated)
        );
    }

    #[test]
    fn a_member_that_is_one_to_servers_that_do_not_mind_case_is_not_passed_over() {
        for document in [r#"{"USER": "x"}"#, r#"{"uſer": "x"}"#, r#"{"User": {}}"#] {
            assert_eq!(find("/user", document), Err(Wrong::Malformed), "{document}");
            let twice = document.replace('}', r#","user":"y"}"#);
            assert!(find("/user", &twice).is_err(), "{twice}");
        }
        assert_eq!(find("/user", r#"{"x": {"USER": "x"}}"#), Ok(None));
    }

    #[test]
    fn what_is_no_document_or_no_string_is_refused() {
        for document in [
            "",
            "{",
            r#"{"a": 1}"#,
            r#"{"a": {}}"#,
            r#"{"a": []}"#,
            r#"{"a": "x"} {"a": "y"}"#,
            r#"{"a": "x",}"#,
        ] {
            assert_eq!(find("/a", document), Err(Wrong::Malformed), "{document}");
        }
        let deep = format!("{{\"b\": {}", "[".repeat(60_000));
        assert_eq!(find("/a", &deep), Err(Wrong::Malformed));
    }

    #[test]
    fn a_pointer_has_a_form() {
        for text in ["", "a", "/", "/a//b", "/~2", "/a~", "/a/b/c/d/e/f/g/h/i"] {
            assert_eq!(JsonPointer::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_read_or_refused(document in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = JsonPointer::parse("/a").unwrap().read(&document);
        }
    }
}
