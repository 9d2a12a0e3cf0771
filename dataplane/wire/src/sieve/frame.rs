//! Reading a command or a response to its end: its lines, and the literals between them.

use crate::buf::{LineTooLong, WireBuf};
use crate::secret::{Secret, SecretWriter};

use super::lex::{Behind, behind};

/// What a command or a response may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Octets of its lines together, without their ends.
    pub(super) lines: usize,
    /// Octets of its literals together.
    pub(super) literals: usize,
    /// What becomes of one that has more.
    pub(super) beyond: Beyond,
    /// How many lines it may have.
    pub(super) most_lines: u32,
}

/// What becomes of literals that there is no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    /// They are read to their end and dropped: nobody asked the sender to wait, so that they come in any case.
    Dropped,
    /// Nothing more is read.
    Refused,
}

/// A command or a response of which a part may have been read.
pub(super) struct Frame {
    text: SecretWriter,
    room: Room,
    /// Octets of the current literal that are still to come.
    missing: u32,
    /// Whether what comes is dropped.
    is_too_long: bool,
    /// Lines that were taken.
    lines: u32,
}

/// What has been read of it.
pub(super) enum Taken {
    /// Not all.
    More,
    /// All: its lines joined by CRLF with their literals between, without the last end.
    Whole(Secret),
    /// All, and what there is no room for has been dropped. This is how it begins.
    TooLong(Secret),
}

impl Frame {
    /// Of which nothing has been read.
    pub(super) fn new(room: Room) -> Self {
        Self {
            text: SecretWriter::with_capacity(0),
            room,
            missing: 0,
            is_too_long: false,
            lines: 0,
        }
    }

    /// How many lines have been taken.
    pub(super) fn lines(&self) -> u32 {
        self.lines
    }

    /// Reads on. To be called until it is not [`Taken::More`], and not afterwards.
    ///
    /// # Errors
    /// [`LineTooLong`]: there is no room for its lines, or for a literal that is not to be dropped.
    pub(super) fn take(&mut self, input: &mut WireBuf) -> Result<Taken, LineTooLong> {
        loop {
            self.take_literal(input);
            if self.missing > 0 {
                return Ok(Taken::More);
            }
            let Some(line) = input.take_line(self.room.lines)? else {
                return Ok(Taken::More);
            };
            self.room.lines -= line.len();
            self.lines += 1;
            if self.lines > self.room.most_lines {
                return Err(LineTooLong);
            }
            self.keep(&line);
            let Behind::Literal(length) = behind(&line) else {
                return Ok(self.finish());
            };
            self.missing = length;
            match self.room.literals.checked_sub(length as usize) {
                Some(left) => self.room.literals = left,
                None if self.room.beyond == Beyond::Refused => return Err(LineTooLong),
                None => self.is_too_long = true,
            }
            self.keep(b"\r\n");
        }
    }

    fn take_literal(&mut self, input: &mut WireBuf) {
        let missing = self.missing as usize;
        let count = missing.min(input.len());
        self.keep(&input.filled()[..count]);
        input.consume(count);
        self.missing -= u32::try_from(count).unwrap_or(self.missing);
    }

    fn keep(&mut self, octets: &[u8]) {
        if !self.is_too_long {
            self.text.put(octets);
        }
    }

    fn finish(&mut self) -> Taken {
        let text = std::mem::replace(&mut self.text, SecretWriter::with_capacity(0)).finish();
        if self.is_too_long {
            Taken::TooLong(text)
        } else {
            Taken::Whole(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(lines: usize, literals: usize) -> Room {
        Room {
            lines,
            literals,
            beyond: Beyond::Dropped,
            most_lines: u32::MAX,
        }
    }

    fn read(room: Room, text: &[u8], size: usize) -> (String, Vec<u8>) {
        let mut input = WireBuf::new(4096);
        let mut frame = Frame::new(room);
        let mut pieces = text.chunks(size);
        loop {
            input.extend(pieces.next().expect("it is whole")).unwrap();
            let said = match frame.take(&mut input) {
                Ok(Taken::More) => continue,
                Ok(Taken::Whole(text)) => text.expose().escape_ascii().to_string(),
                Ok(Taken::TooLong(text)) => format!("{} ...", text.expose().escape_ascii()),
                Err(LineTooLong) => "too long".to_owned(),
            };
            let rest = pieces.flatten().copied();
            let left = input.filled().iter().copied().chain(rest).collect();
            return (said, left);
        }
    }

    #[test]
    fn a_command_is_read_with_its_literals_and_no_further() {
        let room = room(40, 7);
        let text = b"A {2+}\r\n\r\n {5}\nabcde x\r\nB\r\n";
        for size in 1..text.len() {
            let (said, left) = read(room, text, size);
            assert_eq!(said, "A {2+}\\r\\n\\r\\n {5}\\r\\nabcde x");
            assert_eq!(left, b"B\r\n");
        }
    }

    #[test]
    fn what_there_is_no_room_for_is_read_to_its_end_and_dropped() {
        let little = room(40, 6);
        let text = b"A {2+}\r\nxy {5}\r\nabcde {3+}\r\nabc\r\nB\r\n";
        for size in 1..text.len() {
            let (said, left) = read(little, text, size);
            assert_eq!((&*said, &*left), ("A {2+}\\r\\nxy {5} ...", &b"B\r\n"[..]));
        }
        assert_eq!(read(room(7, 6), b"A {2+}\r\nxy {5}\r\n", 1).0, "too long");
    }

    #[test]
    fn what_is_refused_is_left_where_it_is() {
        let text = b"A {2+}\r\nxy {5}\r\nabcde\r\nB\r\n";
        let refusing = Room {
            beyond: Beyond::Refused,
            ..room(40, 6)
        };
        let of_one_line = Room {
            most_lines: 1,
            ..room(40, 7)
        };
        for room in [refusing, of_one_line] {
            for size in 1..text.len() {
                let (said, left) = read(room, text, size);
                assert_eq!((&*said, &*left), ("too long", &b"abcde\r\nB\r\n"[..]));
            }
        }
    }
}
