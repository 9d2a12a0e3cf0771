//! Paged lists: sizes are coerced, tokens are opaque and belong to what was asked for.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::refusal::{Answer, Reason, Refusal};

/// Entries of a page when the caller does not say.
const USUAL: u32 = 100;

/// Most entries of a page.
const MOST: u32 = 1000;

/// How many entries a page has.
pub(super) fn size(asked: i32) -> u32 {
    match u32::try_from(asked) {
        Ok(0) => USUAL,
        Ok(asked) => asked.min(MOST),
        Err(_) => 1,
    }
}

/// A list as a caller asks for it. Its pages hang together by what they are filtered by.
pub(super) struct List {
    name: &'static str,
    filter: String,
}

impl List {
    /// The whole list of this name.
    pub(super) fn whole(name: &'static str) -> Self {
        Self::filtered(name, [])
    }

    /// What fits these words of the request. Their order counts.
    pub(super) fn filtered<'a>(
        name: &'static str,
        filter: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let mut digest = Sha256::new();
        for word in filter {
            digest.update((word.len() as u64).to_be_bytes());
            digest.update(word);
        }
        // Enough to tell two requests of one caller apart. It proves nothing: whoever makes up a token is one who may ask.
        let filter = URL_SAFE_NO_PAD.encode(&digest.finalize()[..12]);
        Self { name, filter }
    }

    /// A token that says where the next page begins. Empty at the end.
    pub(super) fn token(&self, next: Option<String>) -> String {
        let Self { name, filter } = self;
        next.map_or_else(String::new, |next| {
            URL_SAFE_NO_PAD.encode(format!("{name}:{filter}:{next}"))
        })
    }

    /// Where a page begins; `None`: at the start. A token of another list, or of this one with another filter, is refused,
    /// since it would silently skip or repeat.
    pub(super) fn position<T>(
        &self,
        token: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Answer<Option<T>> {
        if token.is_empty() {
            return Ok(None);
        }
        let position = URL_SAFE_NO_PAD
            .decode(token)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .and_then(|text| parse(self.own(&text)?));
        match position {
            Some(position) => Ok(Some(position)),
            None => Err(Refusal::new(
                Reason::PageTokenInvalid,
                "the page token is not one of this list's with this filter; pass `next_page_token` as it came, with the \
                 request that it answered",
            )
            .violated("page_token", "is not one of this list's with this filter")),
        }
    }

    /// What one of its tokens says.
    fn own<'a>(&self, text: &'a str) -> Option<&'a str> {
        let of_list = text.strip_prefix(self.name)?.strip_prefix(':')?;
        of_list.strip_prefix(&*self.filter)?.strip_prefix(':')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_coerced() {
        assert_eq!(size(0), 100);
        assert_eq!(size(-5), 1);
        assert_eq!(size(7), 7);
        assert_eq!(size(1_000_000), 1000);
    }

    #[test]
    fn tokens_come_back_to_their_own_list_and_filter_only() {
        let list = List::filtered("a", ["x", "yz"]);
        let shown = list.token(Some("7:8".to_owned()));
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(list.position(&shown, text), Ok(text("7:8")));
        for other in [
            List::filtered("b", ["x", "yz"]),
            List::filtered("a", ["xy", "z"]),
            List::filtered("a", ["x"]),
            List::whole("a"),
        ] {
            assert!(other.position(&shown, text).is_err());
        }
        assert!(list.position("junk", text).is_err());
        assert_eq!(list.position("", text), Ok(None));
        assert_eq!(list.token(None), "");
    }
}
