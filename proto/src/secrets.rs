//! What of a message no log may show.

use std::fmt;

use crate::{routing, store};

impl fmt::Debug for store::v1::CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieKey")
            .field("id", &self.id)
            .field("made_at", &self.made_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for routing::v1::CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CookieKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_not_in_debug_output() {
        let key = vec![b'K'; 32];
        let stored = store::v1::CookieKeys {
            keys: vec![store::v1::CookieKey {
                id: 5,
                key: key.clone().into(),
                made_at: None,
            }],
            ..store::v1::CookieKeys::default()
        };
        let streamed = routing::v1::CookieKey {
            id: 5,
            key: key.into(),
        };
        for shown in [format!("{stored:?}"), format!("{streamed:#?}")] {
            assert!(shown.contains('5'), "{shown}");
            assert!(!shown.contains("KK") && !shown.contains("75"), "{shown}");
        }
    }
}
