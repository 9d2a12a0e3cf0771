//! How long a request's body is, if there is only one way to read that.

use http::Version;

use crate::Refusal;

/// What says where a request's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body that the header speaks of.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

impl Framing {
    /// Reads the lines of `Transfer-Encoding` and of `Content-Length`.
    ///
    /// RFC 9112 §6.1 and §6.3 let a server repair some of what is refused here; each repair has been somebody's
    /// way past a proxy. hyper, which reads the request after us, repairs silently: it takes
    /// `Transfer-Encoding` and forgets `Content-Length`, and merges lengths that are the same (hyper 1.12,
    /// `proto/h1/role.rs`), so that this is looked at [before](crate::guard) it.
    ///
    /// # Errors
    /// [`Refusal::Length`], [`Refusal::Coding`].
    pub fn read<'a>(
        version: Version,
        mut codings: impl Iterator<Item = &'a [u8]>,
        mut lengths: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, Refusal> {
        let Some(coding) = codings.next() else {
            return match (lengths.next(), lengths.next()) {
                (None, _) => Ok(Self::None),
                (Some(length), None) => digits(length).map(Self::Length),
                (Some(_), Some(_)) => Err(Refusal::Length),
            };
        };
        if lengths.next().is_some() || version != Version::HTTP_11 {
            return Err(Refusal::Length);
        }
        let is_chunked = coding.eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
        is_chunked.then_some(Self::Chunked).ok_or(Refusal::Coding)
    }
}

/// Digits and nothing else: `u64::from_str` would take a sign.
pub(crate) fn digits(text: &[u8]) -> Result<u64, Refusal> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::Length);
    }
    let text = str::from_utf8(text).expect("digits are ASCII");
    text.parse().map_err(|_| Refusal::Length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(codings: &[&str], lengths: &[&str]) -> Result<Framing, Refusal> {
        let codings = codings.iter().map(|text| text.as_bytes());
        let lengths = lengths.iter().map(|text| text.as_bytes());
        Framing::read(Version::HTTP_11, codings, lengths)
    }

    #[test]
    fn a_length_is_digits_once_and_not_beside_a_coding() {
        assert_eq!(read(&[], &[]), Ok(Framing::None));
        assert_eq!(read(&[], &["0042"]), Ok(Framing::Length(42)));
        for length in [
            "+5",
            "-5",
            "5,5",
            "5 5",
            "0x5",
            "",
            "5.0",
            "18446744073709551616",
        ] {
            assert_eq!(read(&[], &[length]), Err(Refusal::Length), "{length}");
        }
        assert_eq!(read(&[], &["5", "5"]), Err(Refusal::Length));
        assert_eq!(read(&["chunked"], &["5"]), Err(Refusal::Length));
    }

    #[test]
    fn the_only_coding_is_chunked_once() {
        assert_eq!(read(&["Chunked"], &[]), Ok(Framing::Chunked));
        for coding in [
            "",
            "xchunked",
            "chunked, chunked",
            "gzip, chunked",
            "identity",
            "chunked;q=1",
            "\"chunked\"",
        ] {
            assert_eq!(read(&[coding], &[]), Err(Refusal::Coding), "{coding}");
        }
        assert_eq!(read(&["chunked", "identity"], &[]), Err(Refusal::Coding));
        let old = Framing::read(
            Version::HTTP_10,
            [&b"chunked"[..]].into_iter(),
            [].into_iter(),
        );
        assert_eq!(old, Err(Refusal::Length));
    }
}
