//! A chunked body's grammar (RFC 9112 §7.1), more narrow than hyper's: what passes here, hyper ends at the same
//! octet.

use crate::Refusal;
use crate::target::hex;

/// The most octets of one chunk's extension.
const MAX_EXTENSION: u16 = 256;

/// The most octets of a trailer section. It is dropped later on: a request's trailers are forwarded by nobody.
const MAX_TRAILERS: u16 = 8 * 1024;

/// Where in the chunks the next octet stands.
#[derive(Debug)]
pub(super) enum Chunks {
    /// In a size, of which there were so many digits.
    Size { size: u64, digits: u8 },
    /// In a chunk's extension, which is nobody's business, of so many octets.
    Extension { size: u64, length: u16 },
    /// Before the LF of a size line.
    SizeEnd { size: u64 },
    /// In a chunk, of which so much is left.
    Data { left: u64 },
    /// Before the CR of a chunk.
    DataCr,
    /// Before the LF of a chunk.
    DataEnd,
    /// At the start of a trailer's line, or in it; `length` counts all lines.
    Trailer { is_start: bool, length: u16 },
    /// Before the LF of a trailer's line or of the empty one that is the end.
    TrailerEnd { is_last: bool, length: u16 },
}

impl Default for Chunks {
    fn default() -> Self {
        Self::Size { size: 0, digits: 0 }
    }
}

impl Chunks {
    /// How many octets belong to the body, and whether that is its end.
    pub(super) fn follow(&mut self, input: &[u8]) -> Result<(usize, bool), Refusal> {
        let mut at = 0;
        while at < input.len() {
            if let Self::Data { left } = self {
                let skipped = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len() - at);
                *left -= skipped as u64;
                at += skipped;
                if *left == 0 {
                    *self = Self::DataCr;
                }
                continue;
            }
            match self.next(input[at])? {
                Some(next) => *self = next,
                None => return Ok((at + 1, true)),
            }
            at += 1;
        }
        Ok((at, false))
    }

    /// What follows one octet outside of a chunk's data; `None` at the end of the body.
    fn next(&self, octet: u8) -> Result<Option<Self>, Refusal> {
        let next = match (self, octet) {
            (Self::Size { size, digits: 1.. } | Self::Extension { size, .. }, b'\r') => {
                Self::SizeEnd { size: *size }
            }
            (Self::Size { size, digits: 1.. }, b';') => Self::Extension {
                size: *size,
                length: 0,
            },
            (
                Self::Size {
                    size,
                    digits: digits @ ..16,
                },
                octet,
            ) => {
                let digit = hex(octet).ok_or(Refusal::Chunks)?;
                Self::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (
                Self::Extension {
                    size,
                    length: length @ ..MAX_EXTENSION,
                },
                b'\t' | b' '..=b'~',
            ) => Self::Extension {
                size: *size,
                length: length + 1,
            },
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailer {
                is_start: true,
                length: 0,
            },
            (Self::SizeEnd { size }, b'\n') => Self::Data { left: *size },
            (Self::DataCr, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::default(),
            (Self::Trailer { is_start, length }, b'\r') => Self::TrailerEnd {
                is_last: *is_start,
                length: *length,
            },
            (Self::Trailer { is_start: true, .. }, b' ' | b'\t') => return Err(Refusal::Chunks),
            (
                Self::Trailer {
                    length: length @ ..MAX_TRAILERS,
                    ..
                },
                b'\t' | b' '..=b'~' | 0x80..,
            ) => Self::Trailer {
                is_start: false,
                length: length + 1,
            },
            (Self::TrailerEnd { is_last: true, .. }, b'\n') => return Ok(None),
            (Self::TrailerEnd { length, .. }, b'\n') => Self::Trailer {
                is_start: true,
                length: *length,
            },
            _ => return Err(Refusal::Chunks),
        };
        Ok(Some(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn follow(body: &str) -> Result<(usize, bool), Refusal> {
        Chunks::default().follow(body.as_bytes())
    }

    #[test]
    fn a_body_ends_at_its_empty_line_and_not_in_its_data() {
        for body in [
            "0\r\n\r\n",
            "1\r\n0\r\n0\r\n\r\n",
            "5\r\n0\r\n\r\n\r\n000;a=\"b\"\r\nX: y\r\nZ:\r\n\r\n",
        ] {
            assert_eq!(follow(body), Ok((body.len(), true)), "{body:?}");
            let more = format!("{body}GET");
            assert_eq!(follow(&more), Ok((body.len(), true)), "{body:?}");
            assert_eq!(
                follow(&body[..body.len() - 1]),
                Ok((body.len() - 1, false)),
                "{body:?}"
            );
        }
    }

    #[test]
    fn chunks_that_parsers_read_differently_are_refused() {
        for body in [
            "\r\n",
            "+1\r\n",
            "-1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1\n",
            "1\r\r",
            "1;a\n",
            "1;a\rb",
            "g\r\n",
            "1_0\r\n",
            ";a\r\n",
            "00000000000000001\r\n",
            "1\r\nab",
            "1\r\na\n",
            "1\r\na\rb",
            "0\r\n\n",
            "0\r\nX: a\n",
            "0\r\n X: a\r\n",
            "0\r\nX: \0",
        ] {
            assert_eq!(follow(body), Err(Refusal::Chunks), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_in_the_chunks_their_end_is_found(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..5),
            trailer in prop::option::of("[A-Za-z-]{1,8}: [ -~]{0,20}"),
            piece in 1_usize..20,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:X}\r\n", chunk.len()).into_bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            let trailer = trailer.map(|line| line + "\r\n").unwrap_or_default();
            body.extend(format!("0\r\n{trailer}\r\n").into_bytes());
            let length = body.len();
            body.extend(b"GET / HTTP/1.1\r\n");
            let (mut machine, mut at) = (Chunks::default(), 0);
            loop {
                let (passed, is_over) = machine.follow(&body[at..body.len().min(at + piece)]).unwrap();
                at += passed;
                if is_over {
                    break;
                }
            }
            prop_assert_eq!(at, length);
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        let extension = |length| follow(&format!("1;{}\r\n", "x".repeat(length)));
        assert!(extension(256).is_ok());
        assert_eq!(extension(257), Err(Refusal::Chunks));
        let trailers = |length| follow(&format!("0\r\n{}\r\n\r\n", "x".repeat(length)));
        assert!(trailers(8 * 1024).is_ok());
        assert_eq!(trailers(8 * 1024 + 1), Err(Refusal::Chunks));
    }
}
