//! What a rule says of hosts and paths.

use std::borrow::Cow;

use crate::target::{Host, NormalPath, Segments};

/// A host, or all hosts that begin or end alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HostPattern {
    /// `mail.example.org`, on any port.
    Exact(String),
    /// `*.example.org`, kept with its first dot: what is below that.
    Below(String),
    /// `autoconfig.*`, kept with its last dot: that name of whatever domain.
    Named(String),
}

impl HostPattern {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let name = |text: &str| {
            let host = Host::parse(text.as_bytes()).ok()?;
            host.port().is_none().then(|| host.name().to_owned())
        };
        if let Some(rest) = text.strip_prefix("*.") {
            name(rest).map(|rest| Self::Below(format!(".{rest}")))
        } else if let Some(rest) = text.strip_suffix(".*") {
            name(rest).map(|rest| Self::Named(format!("{rest}.")))
        } else {
            name(text).map(Self::Exact)
        }
    }

    /// The host, if it is one.
    pub(super) fn whole(&self) -> Option<&str> {
        match self {
            Self::Exact(name) => Some(name),
            Self::Below(_) | Self::Named(_) => None,
        }
    }

    pub(super) fn matches(&self, host: &Host) -> bool {
        match self {
            Self::Exact(name) => host.name() == name,
            Self::Below(end) => host.name().len() > end.len() && host.name().ends_with(end),
            Self::Named(start) => host.name().len() > start.len() && host.name().starts_with(start),
        }
    }
}

/// A path, segment by segment, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathPattern {
    segments: Vec<Segment>,
    /// Whether what is below it belongs to it.
    and_below: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Exact(Vec<u8>),
    /// Whatever is not empty.
    Any,
}

impl PathPattern {
    /// Only a path that is in its one form is taken: a pattern that says something else would never match, or
    /// match what its author did not think of.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (text, and_below) = match text.strip_suffix("/**") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let bare = text.strip_suffix('/').unwrap_or(text);
        if bare.is_empty() {
            return (and_below || text == "/").then_some(Self {
                segments: Vec::new(),
                and_below,
            });
        }
        let is_normal = |path: &NormalPath| path.as_str() == bare && !bare.ends_with('/');
        let path = NormalPath::parse(bare).ok().filter(is_normal)?;
        let (segments, ambiguous) = path.readings();
        let raw = bare[1..].split('/');
        let segment = |(decoded, raw): (Cow<'_, [u8]>, &str)| match raw {
            "*" => Some(Segment::Any),
            raw if raw.contains('*') => None,
            _ => Some(Segment::Exact(decoded.into_owned())),
        };
        let segments = segments
            .into_iter()
            .zip(raw)
            .map(segment)
            .collect::<Option<_>>()?;
        ambiguous.is_none().then_some(Self {
            segments,
            and_below,
        })
    }

    pub(super) fn matches(&self, path: &Segments<'_>) -> bool {
        // A slash at the end makes no difference to a server that serves both, and none here.
        let path = match path.split_last() {
            Some((last, rest)) if last.is_empty() => rest,
            _ => path.as_slice(),
        };
        let is_long_enough = path.len() >= self.segments.len();
        let ends_here = self.and_below || path.len() == self.segments.len();
        let fits = |(pattern, segment): (&Segment, &Cow<'_, [u8]>)| match pattern {
            Segment::Exact(exact) => *exact == **segment,
            Segment::Any => !segment.is_empty(),
        };
        is_long_enough && ends_here && self.segments.iter().zip(path).all(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_pattern_takes_whole_labels_on_any_port() {
        let matches = |pattern: &str, host: &str| {
            HostPattern::parse(pattern)
                .unwrap()
                .matches(&Host::parse(host.as_bytes()).unwrap())
        };
        assert!(matches("Mail.example.org.", "mail.example.org:8443"));
        assert!(matches("*.example.org", "a.b.example.org"));
        assert!(!matches("*.example.org", "example.org"));
        assert!(!matches("*.example.org", "evilexample.org"));
        assert!(matches("autoconfig.*", "autoconfig.example.net"));
        assert!(!matches("autoconfig.*", "autoconfig2.example.net"));
        for text in [
            "",
            "*",
            "*.",
            "a.*.b",
            "mail.example.org:443",
            "https://a",
            "a b",
        ] {
            assert_eq!(HostPattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_path_pattern_takes_whole_segments_with_a_slash_at_the_end_or_without() {
        let matches = |pattern: &str, path: &str| {
            PathPattern::parse(pattern)
                .unwrap()
                .matches(&NormalPath::parse(path).unwrap().readings().0)
        };
        for (pattern, path) in [
            ("/login", "/login"),
            ("/login", "/login/"),
            ("/login/", "/%6cogin"),
            ("/", "/"),
            ("/**", "/"),
            ("/**", "/a/b"),
            ("/dav/**", "/dav"),
            ("/dav/**", "/dav/"),
            ("/dav/**", "/x/../dav/a/b"),
            ("/dav/*/a@b", "/dav/cal/a%40b"),
            ("/caf%C3%A9", "/café"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("/login", "/Login"),
            ("/login", "/login/x"),
            ("/login", "/"),
            ("/", "/a"),
            ("/dav/**", "/davx"),
            ("/dav/*", "/dav"),
            ("/dav/*", "/dav/"),
            ("/dav/*", "/dav/a/b"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
        for text in [
            "",
            "login",
            "/a/../b",
            "//",
            "/a//b",
            "/a*",
            "/**/a",
            "/a%2Fb",
            "/%61",
            "/caf\u{e9}",
            "/a;b",
            "/a?b",
        ] {
            assert_eq!(PathPattern::parse(text), None, "{text}");
        }
    }
}
