//! Paged lists: sizes are coerced, tokens are opaque.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

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

/// A token that says where the next page of `list` begins. Empty at the end.
pub(super) fn token(list: &str, next: Option<String>) -> String {
    next.map_or_else(String::new, |next| {
        URL_SAFE_NO_PAD.encode(format!("{list}:{next}"))
    })
}

/// Where a page begins; `None`: at the start. A token of another list is refused, since it would
/// silently skip or repeat.
pub(super) fn position<T>(
    list: &str,
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
        .and_then(|text| parse(text.strip_prefix(list)?.strip_prefix(':')?));
    match position {
        Some(position) => Ok(Some(position)),
        None => Err(Refusal::new(
            Reason::PageTokenInvalid,
            "the page token is not one of this list's; pass `next_page_token` as it came",
        )
        .violated("page_token", "is not one of this list's")),
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
    fn tokens_come_back_to_their_own_list_only() {
        let shown = token("a", Some("7".to_owned()));
        let number = |text: &str| text.parse::<u64>().ok();
        assert_eq!(position("a", &shown, number), Ok(Some(7)));
        assert!(position("b", &shown, number).is_err());
        assert!(position("a", "junk", number).is_err());
        assert_eq!(position("a", "", number), Ok(None));
        assert_eq!(token("a", None), "");
    }
}
