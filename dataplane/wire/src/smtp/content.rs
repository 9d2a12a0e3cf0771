//! The end of a message behind DATA (RFC 5321 §4.1.1.4), found without changing an octet of it.
//!
//! Only CRLF . CRLF ends a message, and a CR or LF by itself is none: where two servers do not agree about where a
//! message ends, what stands behind it is a command to one of them (<https://www.postfix.org/smtp-smuggling.html>).
//! Dots at the start of lines stay doubled (§4.5.2), so that what was received is what is sent.

use memchr::memchr2;

use crate::buf::WireBuf;

/// Where in a message we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content {
    at_line_start: bool,
}

/// What comes next in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// This many octets of the buffer are its own. None: more must be read.
    Octets(usize),
    /// These octets stand next in the message as DATA has it, and in no buffer: where it comes in chunks.
    Added(&'static [u8]),
    /// It is over, and its end has been taken out of the buffer.
    End,
    /// It is taken back: nothing of it is to be delivered, and nobody is to be answered about it.
    Withdrawn,
}

/// A CR or an LF that is no line end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a bare CR or LF in the message")]
pub struct BareLineEnd;

impl Content {
    /// Before its first octet.
    pub(crate) fn new() -> Self {
        Self {
            at_line_start: true,
        }
    }

    /// Looks at what is next. Octets that it names are to be consumed before it is asked again. Nothing is named
    /// that might belong to the end: at most two octets wait for more.
    pub(crate) fn next(&mut self, input: &mut WireBuf) -> Result<Piece, BareLineEnd> {
        let octets = input.filled();
        let mut passed = 0;
        loop {
            let rest = &octets[passed..];
            if self.at_line_start {
                match rest {
                    // What went before is passed on first.
                    [b'.', b'\r', b'\n', ..] if passed == 0 => {
                        input.consume(3);
                        return Ok(Piece::End);
                    }
                    [] | [b'.'] | [b'.', b'\r'] | [b'.', b'\r', b'\n', ..] => break,
                    [b'.', b'\r', ..] => return Err(BareLineEnd),
                    _ => {}
                }
            }
            let Some(at) = memchr2(b'\r', b'\n', rest) else {
                self.at_line_start &= rest.is_empty();
                passed = octets.len();
                break;
            };
            match rest[at..] {
                [b'\r'] => {
                    self.at_line_start &= at == 0;
                    passed += at;
                    break;
                }
                [b'\r', b'\n', ..] => {
                    self.at_line_start = true;
                    passed += at + 2;
                }
                _ => return Err(BareLineEnd),
            }
        }
        Ok(Piece::Octets(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a message that comes in pieces. Returns it as it is passed on, whether it was over, and what is left.
    fn read(said: &[u8], sizes: &[usize]) -> Result<(Vec<u8>, bool, Vec<u8>), BareLineEnd> {
        let mut input = WireBuf::new(said.len().max(1));
        let mut content = Content::new();
        let mut passed = Vec::new();
        let mut rest = said;
        let mut sizes = sizes.iter().cycle();
        loop {
            match content.next(&mut input)? {
                Piece::End => return Ok((passed, true, [input.filled(), rest].concat())),
                other @ (Piece::Added(_) | Piece::Withdrawn) => panic!("{other:?}"),
                Piece::Octets(0) if rest.is_empty() => {
                    return Ok((passed, false, input.filled().to_vec()));
                }
                Piece::Octets(0) => {
                    let size = sizes.next().unwrap();
                    let (piece, others) = rest.split_at(rest.len().min(*size));
                    input.extend(piece).unwrap();
                    rest = others;
                }
                Piece::Octets(count) => {
                    passed.extend_from_slice(&input.filled()[..count]);
                    input.consume(count);
                }
            }
        }
    }

    fn whole(said: &[u8]) -> Result<(Vec<u8>, bool, Vec<u8>), BareLineEnd> {
        read(said, &[1 << 16])
    }

    #[test]
    fn a_message_is_passed_on_as_it_is_and_what_follows_it_is_left() {
        for (said, message) in [
            (&b".\r\n"[..], &b""[..]),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"..\r\n...x\r\n.y\r\n.\r\n", b"..\r\n...x\r\n.y\r\n"),
            (b"\r\n\r\n.\r\n", b"\r\n\r\n"),
            (b"x.\r\n.\r\n", b"x.\r\n"),
            (b"\x00\xff\r\n.\r\n", b"\x00\xff\r\n"),
        ] {
            let with_more = [said, b"QUIT\r\n"].concat();
            for sizes in [&[1][..], &[2], &[3, 1], &[100]] {
                let (passed, is_over, left) = read(&with_more, sizes).unwrap();
                assert_eq!(
                    (&*passed, is_over, &*left),
                    (message, true, &b"QUIT\r\n"[..])
                );
            }
        }
    }

    #[test]
    fn no_other_end_of_data_ends_a_message() {
        for smuggled in [
            &b"a\n.\n"[..],
            b"a\n.\r\n",
            b"a\r\n.\n",
            b"a\r.\r",
            b"a\r\n.\r\r\n",
            b"a\r.\r\n",
            b"a\r\n.\rX",
            b"a\r\r\n.\r\n",
            b"\n.\r\n",
            b".\n",
            b"a\rb",
            b"a\nb",
            b"a\r\n\r\r\n.\r\n",
        ] {
            assert_eq!(
                whole(smuggled),
                Err(BareLineEnd),
                "{}",
                smuggled.escape_ascii()
            );
            assert_eq!(read(smuggled, &[1]), Err(BareLineEnd));
        }
    }

    #[test]
    fn what_might_be_the_end_waits_for_more() {
        for (said, left) in [
            (&b"a\r\n."[..], &b"."[..]),
            (b"a\r\n.\r", b".\r"),
            (b"a\r", b"\r"),
            (b"a\r\n", b""),
        ] {
            let (_, is_over, kept) = whole(said).unwrap();
            assert_eq!((is_over, &*kept), (false, left));
        }
    }

    proptest! {
        #[test]
        fn the_pieces_in_which_it_comes_do_not_matter(
            said in "[.a\r\n]{0,24}", sizes in proptest::collection::vec(1..5usize, 1..6),
        ) {
            let said = said.replace('\r', "\r\n");
            prop_assert_eq!(read(said.as_bytes(), &sizes), whole(said.as_bytes()));
        }

        /// What the next server reads, whatever line ends it takes.
        #[test]
        fn nothing_that_is_passed_on_could_end_a_message_elsewhere(said in "[.a\r\n]{0,24}") {
            if let Ok((passed, ..)) = whole(said.as_bytes()) {
                let message = [b"\r\n", &*passed].concat();
                for end in ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r\n", "\r\n.\n", "\n.\r"] {
                    let found = memchr::memmem::find(&message, end.as_bytes());
                    prop_assert_eq!(found, None, "{:?}", end);
                }
            }
        }
    }
}
