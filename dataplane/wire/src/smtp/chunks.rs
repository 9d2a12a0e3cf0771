//! A message that comes in chunks (RFC 3030 §2), on its way to servers that are sent it by DATA.
//!
//! Where a chunk ends is counted, so nothing in it can be taken for its end. Behind DATA that is other: dots at the start of
//! lines are doubled (RFC 5321 §4.5.2), and a CR or LF by itself is refused as it is [there](super::content).

use memchr::memchr2;

use super::content::{BareLineEnd, Piece};
use crate::buf::WireBuf;

/// Where in a message we are, and how much of its chunk is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunks {
    left: u64,
    is_last: bool,
    at: At,
}

/// What the next octet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The first of a line.
    LineStart,
    /// The same, and it is a dot that has been doubled.
    Doubled,
    /// Another one.
    InLine,
    /// Behind a CR, which was passed on: a chunk may end between the two of a line end.
    BehindCr,
}

impl Chunks {
    /// Before the first octet.
    pub(crate) fn new() -> Self {
        Self {
            left: 0,
            is_last: false,
            at: At::LineStart,
        }
    }

    /// Another chunk comes.
    pub(crate) fn begin(&mut self, size: u64, is_last: bool) {
        self.left = size;
        self.is_last = is_last;
    }

    /// How much of the chunk is left.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Whether it is the message's last one.
    pub(crate) fn is_last(&self) -> bool {
        self.is_last
    }

    /// Looks at what is next in the chunk, as [`Content::next`](super::content::Content::next) does.
    pub(crate) fn next(&mut self, input: &WireBuf) -> Result<Piece, BareLineEnd> {
        let there = input.filled();
        let within = usize::try_from(self.left).map_or(there.len(), |left| left.min(there.len()));
        let octets = &there[..within];
        match (self.at, octets.first()) {
            (At::BehindCr, Some(octet)) if *octet != b'\n' => Err(BareLineEnd),
            (At::LineStart, Some(b'.')) => {
                self.at = At::Doubled;
                Ok(Piece::Added(b"."))
            }
            _ => {
                let passed = self.pass(octets)?;
                self.left -= passed as u64;
                Ok(Piece::Octets(passed))
            }
        }
    }

    /// How many octets go on as they are: all, or those in front of a dot that is to be doubled.
    fn pass(&mut self, octets: &[u8]) -> Result<usize, BareLineEnd> {
        let mut passed = 0;
        if self.at == At::BehindCr && !octets.is_empty() {
            self.at = At::LineStart;
            passed = 1;
        }
        while let rest @ [first, ..] = &octets[passed..] {
            if self.at == At::LineStart && *first == b'.' {
                break;
            }
            let Some(at) = memchr2(b'\r', b'\n', rest) else {
                self.at = At::InLine;
                return Ok(octets.len());
            };
            match rest[at..] {
                [b'\r'] => {
                    self.at = At::BehindCr;
                    passed = octets.len();
                }
                [b'\r', b'\n', ..] => {
                    self.at = At::LineStart;
                    passed += at + 2;
                }
                _ => return Err(BareLineEnd),
            }
        }
        Ok(passed)
    }

    /// What the end of the message still lacks, behind its last chunk: the end of its last line.
    pub(crate) fn finish(&mut self) -> Result<Piece, BareLineEnd> {
        match self.at {
            At::BehindCr => Err(BareLineEnd),
            At::LineStart => Ok(Piece::End),
            At::InLine | At::Doubled => {
                self.at = At::LineStart;
                Ok(Piece::Added(b"\r\n"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::content::Content;
    use proptest::prelude::*;

    /// What goes on of a message in chunks of these sizes, whose octets come in pieces.
    fn sent(message: &[u8], chunk: usize, piece: usize) -> Result<Vec<u8>, BareLineEnd> {
        let mut chunks = Chunks::new();
        let mut input = WireBuf::new(piece.max(1));
        let mut out = Vec::new();
        let mut rest = message;
        loop {
            let (size, is_last) = (rest.len().min(chunk), rest.len() <= chunk);
            chunks.begin(size as u64, is_last);
            let (mut said, behind) = rest.split_at(size);
            while chunks.left() > 0 {
                match chunks.next(&input)? {
                    Piece::Octets(0) => {
                        let (more, others) = said.split_at(said.len().min(piece));
                        input.extend(more).unwrap();
                        said = others;
                    }
                    Piece::Octets(count) => {
                        out.extend_from_slice(&input.filled()[..count]);
                        input.consume(count);
                    }
                    Piece::Added(added) => out.extend_from_slice(added),
                    other => panic!("{other:?}"),
                }
            }
            assert!(input.is_empty(), "nothing behind the chunk is read");
            rest = behind;
            if is_last {
                break;
            }
        }
        loop {
            match chunks.finish()? {
                Piece::Added(added) => out.extend_from_slice(added),
                _ => return Ok(out),
            }
        }
    }

    #[test]
    fn dots_are_doubled_and_the_last_line_is_ended() {
        for (message, goes_on) in [
            (&b""[..], &b""[..]),
            (b"a", b"a\r\n"),
            (b".", b"..\r\n"),
            (b".\r\n.\r\n", b"..\r\n..\r\n"),
            (b"..\r\nb.c\r\n", b"...\r\nb.c\r\n"),
            (b"\r\n.\x00\xff", b"\r\n..\x00\xff\r\n"),
        ] {
            for (chunk, piece) in [(1, 1), (2, 1), (3, 2), (100, 100)] {
                assert_eq!(sent(message, chunk, piece).as_deref(), Ok(goes_on));
            }
        }
    }

    #[test]
    fn what_another_server_could_take_for_an_end_is_refused() {
        for smuggled in [
            &b"a\n.\n"[..],
            b"a\r.\r",
            b"a\n.\r\n",
            b"a\r\n.\n",
            b"a\r",
            b"\n",
            b"\r\r\n",
        ] {
            for (chunk, piece) in [(1, 1), (2, 1), (100, 100)] {
                let sent = sent(smuggled, chunk, piece);
                assert_eq!(sent, Err(BareLineEnd), "{}", smuggled.escape_ascii());
            }
        }
    }

    proptest! {
        /// As if it had come behind DATA.
        #[test]
        fn a_reader_of_data_finds_the_end_where_it_is(
            said in "[.a\r\n]{0,24}", chunk in 1..9usize, piece in 1..9usize,
        ) {
            let said = said.replace('\r', "\r\n");
            let whole = sent(said.as_bytes(), 100, 100);
            prop_assert_eq!(sent(said.as_bytes(), chunk, piece), whole.clone());
            if let Ok(message) = whole {
                let data = [&message[..], b".\r\nQUIT\r\n"].concat();
                let mut input = WireBuf::new(data.len());
                input.extend(&data).unwrap();
                let mut content = Content::new();
                while let Piece::Octets(count) = content.next(&mut input).unwrap() {
                    prop_assert!(count > 0);
                    input.consume(count);
                }
                prop_assert_eq!(input.filled(), &b"QUIT\r\n"[..]);
            }
        }
    }
}
