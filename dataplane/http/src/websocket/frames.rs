//! Where the frames of one direction end (RFC 6455 §5.2).

/// A server's close frame with status 1012, by which a client knows to connect again: the service restarts, and
/// it was no fault of either side. It has no reason: that would be one for the user, who is told nothing.
pub const CLOSE_RESTART: [u8; 4] = [FIN | CLOSE, 2, 0x03, 0xf4];

const FIN: u8 = 0x80;
const CLOSE: u8 = 0x8;
/// An opcode with it is a control frame's (RFC 6455 §5.5).
const CONTROL: u8 = 0x8;
const OPCODE: u8 = 0xf;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// In place of a length: it stands in the next two octets, or eight.
const TWO: u8 = 126;
const EIGHT: u8 = 127;

/// The most octets of a control frame's payload, and of one whose length stands in its second octet.
const MAX_SHORT: u64 = 125;

/// Longest header: two octets, eight of length, four of the mask.
const MAX_HEADER: usize = 14;

/// Whose frames these are: a client masks every one of its own, a server none (RFC 6455 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// Counts the frames of one direction as their octets go by, in whatever pieces. It keeps the octets of one
/// header and nothing of what is in the frames.
///
/// Octets that are no frames are not followed any further, and nothing may be put between them from there on.
/// They pass all the same: whether to close because of them is for the ends to say.
#[derive(Debug)]
pub struct Frames {
    sender: Sender,
    state: State,
}

#[derive(Debug)]
enum State {
    /// So many octets of a header have come, none of them between two frames.
    Header {
        octets: [u8; MAX_HEADER],
        count: usize,
    },
    /// So much of a frame's payload is to come.
    Payload { left: u64, is_close: bool },
    /// The sender has said that it ends; nothing of its own may follow (RFC 6455 §5.5.1).
    Closed,
    /// What came is no frame.
    Lost,
}

impl Frames {
    /// Before the first octet behind the handshake.
    pub fn of(sender: Sender) -> Self {
        Self {
            sender,
            state: State::BETWEEN,
        }
    }

    /// Follows all of these octets.
    pub fn follow(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            let count = self.follow_one(rest);
            rest = &rest[count..];
        }
    }

    /// Follows up to the end of the frame that the first of these octets is in, and says how many that were: all
    /// of them where that end is not among them, or is not known. So a tunnel that is to end passes what is left
    /// of a frame and nothing of the next.
    pub fn follow_one(&mut self, octets: &[u8]) -> usize {
        let mut at = 0;
        while at < octets.len() {
            at += self.step(&octets[at..]);
            if self.is_between_frames() || matches!(self.state, State::Closed) {
                break;
            }
        }
        at
    }

    /// Whether a frame of our own may be put here.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.state, State::Header { count: 0, .. })
    }

    /// Whether the sender has sent a whole close frame: nothing need be said any more, nor may it be.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether no place between two frames will be found any more.
    pub fn is_lost(&self) -> bool {
        matches!(self.state, State::Lost)
    }

    /// Follows some of the octets, at least one, and none beyond the frame's end.
    fn step(&mut self, input: &[u8]) -> usize {
        match &mut self.state {
            State::Closed | State::Lost => input.len(),
            State::Payload { left, is_close } => {
                let passed = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                *left -= passed as u64;
                self.state = State::within(*left, *is_close);
                passed
            }
            State::Header { octets, count } => {
                octets[*count] = input[0];
                *count += 1;
                match Header::read(&octets[..*count], self.sender) {
                    Ok(Some(header)) => {
                        self.state = State::within(header.length, header.is_close);
                    }
                    Ok(None) => {}
                    Err(NoFrame) => self.state = State::Lost,
                }
                1
            }
        }
    }
}

impl State {
    const BETWEEN: Self = Self::Header {
        octets: [0; MAX_HEADER],
        count: 0,
    };

    /// In a frame of which so much is to come.
    fn within(left: u64, is_close: bool) -> Self {
        match (left, is_close) {
            (0, false) => Self::BETWEEN,
            (0, true) => Self::Closed,
            (left, is_close) => Self::Payload { left, is_close },
        }
    }
}

struct Header {
    length: u64,
    is_close: bool,
}

struct NoFrame;

impl Header {
    /// Reads a header; `None` where more of it is to come. The reserved bits and opcodes are an extension's, which
    /// the ends have agreed on; where a frame ends is none's to change.
    fn read(octets: &[u8], sender: Sender) -> Result<Option<Self>, NoFrame> {
        let &[first, second, ref rest @ ..] = octets else {
            return Ok(None);
        };
        let is_masked = second & MASKED != 0;
        if is_masked != (sender == Sender::Client) {
            return Err(NoFrame);
        }
        let is_control = first & CONTROL != 0;
        let (extended, least) = match second & LENGTH {
            TWO => (2, MAX_SHORT + 1),
            EIGHT => (8, u64::from(u16::MAX) + 1),
            _ => (0, 0),
        };
        if is_control && (extended > 0 || first & FIN == 0) {
            return Err(NoFrame);
        }
        let mask = if is_masked { 4 } else { 0 };
        if rest.len() < extended + mask {
            return Ok(None);
        }
        let length = match extended {
            0 => u64::from(second & LENGTH),
            _ => number(&rest[..extended]),
        };
        // The shortest form alone, and no sign (RFC 6455 §5.2).
        if length < least || length > i64::MAX as u64 {
            return Err(NoFrame);
        }
        Ok(Some(Self {
            length,
            is_close: first & OPCODE == CLOSE,
        }))
    }
}

fn number(octets: &[u8]) -> u64 {
    octets
        .iter()
        .fold(0, |number, &octet| number << 8 | u64::from(octet))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: u8 = 0x1;
    const PING: u8 = 0x9;

    /// A frame with a payload of this length.
    fn frame(sender: Sender, first: u8, length: usize) -> Vec<u8> {
        let mask = if sender == Sender::Client { MASKED } else { 0 };
        let mut frame = vec![first];
        if let Ok(short @ ..=125) = u8::try_from(length) {
            frame.push(mask | short);
        } else if let Ok(length) = u16::try_from(length) {
            frame.push(mask | TWO);
            frame.extend(length.to_be_bytes());
        } else {
            frame.push(mask | EIGHT);
            frame.extend((length as u64).to_be_bytes());
        }
        if mask != 0 {
            frame.extend([0xaa; 4]);
        }
        frame.resize(frame.len() + length, 0x88);
        frame
    }

    fn followed(sender: Sender, octets: &[u8]) -> Frames {
        let mut frames = Frames::of(sender);
        frames.follow(octets);
        frames
    }

    #[test]
    fn a_close_frame_of_ours_is_one_that_ends_a_server_s_side() {
        let frames = followed(Sender::Server, &CLOSE_RESTART);
        assert!(frames.is_closed() && !frames.is_between_frames());
        assert_eq!(
            u16::from_be_bytes([CLOSE_RESTART[2], CLOSE_RESTART[3]]),
            1012
        );
    }

    #[test]
    fn frames_of_every_length_end_where_they_end() {
        for sender in [Sender::Client, Sender::Server] {
            for length in [0, 1, 125, 126, 65_535, 65_536, 70_000] {
                let frame = frame(sender, FIN | TEXT, length);
                let whole = followed(sender, &frame);
                assert!(whole.is_between_frames(), "{sender:?} {length}");
                for shorter in [1, 2, frame.len() - 1] {
                    let short = followed(sender, &frame[..shorter.min(frame.len() - 1)]);
                    let within = !short.is_between_frames() && !short.is_lost();
                    assert!(within, "{sender:?} {length} {shorter}");
                }
            }
        }
    }

    #[test]
    fn a_frame_may_be_put_between_the_fragments_of_a_message() {
        // RFC 6455 §5.4.
        assert!(followed(Sender::Server, &frame(Sender::Server, TEXT, 5)).is_between_frames());
    }

    #[test]
    fn what_is_left_of_a_frame_is_told_from_the_next() {
        let (one, two) = (
            frame(Sender::Server, FIN | TEXT, 300),
            frame(Sender::Server, FIN | PING, 3),
        );
        let mut frames = Frames::of(Sender::Server);
        frames.follow(&one[..100]);
        let rest = [&one[100..], &two].concat();
        assert_eq!(frames.follow_one(&rest), one.len() - 100);
        assert!(frames.is_between_frames());
    }

    #[test]
    fn nothing_may_be_put_behind_a_close_frame() {
        let close = frame(Sender::Server, FIN | CLOSE, 2);
        let ping = frame(Sender::Server, FIN | PING, 2);
        let mut frames = followed(Sender::Server, &close[..3]);
        assert!(!frames.is_closed() && !frames.is_between_frames());
        assert_eq!(frames.follow_one(&[&close[3..], &ping].concat()), 1);
        assert!(frames.is_closed());
        frames.follow(&ping);
        assert!(frames.is_closed() && !frames.is_between_frames());
    }

    #[test]
    fn nothing_is_put_between_octets_that_are_no_frames() {
        for (name, octets) in [
            ("a server's mask", frame(Sender::Client, FIN | TEXT, 3)),
            (
                "a control frame that is long",
                vec![FIN | PING, 126, 0, 200],
            ),
            ("a control frame in fragments", vec![PING, 0]),
            (
                "two octets of length for one",
                vec![FIN | TEXT, 126, 0, 125],
            ),
            (
                "eight octets of length for two",
                vec![FIN | TEXT, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
            ),
            (
                "a length with a sign",
                vec![FIN | TEXT, 127, 0x80, 0, 0, 0, 0, 1, 0, 0],
            ),
        ] {
            let frames = followed(Sender::Server, &octets);
            assert!(frames.is_lost() && !frames.is_between_frames(), "{name}");
        }
        let unmasked = frame(Sender::Server, FIN | TEXT, 3);
        assert!(followed(Sender::Client, &unmasked).is_lost());
    }

    prop_compose! {
        fn some_frames()(is_client: bool, frames in prop::collection::vec((any::<bool>(), prop::sample::select(vec![
            0_usize, 1, 7, 125, 126, 300, 65_536,
        ])), 1..6)) -> (Sender, Vec<Vec<u8>>) {
            let sender = if is_client { Sender::Client } else { Sender::Server };
            let frames = frames.into_iter().map(|(is_ping, length)| if is_ping {
                frame(sender, FIN | PING, length.min(125))
            } else {
                frame(sender, TEXT, length)
            });
            (sender, frames.collect())
        }
    }

    proptest! {
        #[test]
        fn frames_are_counted_in_whatever_pieces_they_come((sender, frames) in some_frames(), piece in 1_usize..400) {
            let octets = frames.concat();
            let ends: Vec<usize> = frames.iter().scan(0, |end, frame| {
                *end += frame.len();
                Some(*end)
            }).collect();
            let mut counter = Frames::of(sender);
            let (mut at, mut found) = (0, Vec::new());
            for piece in octets.chunks(piece) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let count = counter.follow_one(rest);
                    prop_assert!(count > 0);
                    at += count;
                    rest = &rest[count..];
                    prop_assert_eq!(counter.is_between_frames(), ends.contains(&at));
                    if counter.is_between_frames() {
                        found.push(at);
                    }
                }
            }
            prop_assert_eq!(found, ends);
        }

        #[test]
        fn any_octets_are_followed_or_lost_the_same_in_any_pieces(
            octets in prop::collection::vec(any::<u8>(), 0..200), piece in 1_usize..50, is_client: bool,
        ) {
            let sender = if is_client { Sender::Client } else { Sender::Server };
            let whole = followed(sender, &octets);
            let mut pieces = Frames::of(sender);
            for piece in octets.chunks(piece) {
                pieces.follow(piece);
            }
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }
    }
}
