//! How often a message has been on its way: a guard against mail that goes round in circles (RFC 5321 §6.3).

use memchr::memchr;

/// The header that every server writes that a message passes (RFC 5321 §4.4).
const TRACE: &[u8] = b"received:";

/// Counts trace headers while a message passes.
#[derive(Debug, Clone)]
pub struct Hops {
    /// How much of [`TRACE`] the line that is not over has matched; `None` once it cannot.
    matched: Option<usize>,
    /// Octets of that line.
    length: usize,
    seen: u32,
    is_in_header: bool,
}

impl Default for Hops {
    fn default() -> Self {
        Self {
            matched: Some(0),
            length: 0,
            seen: 0,
            is_in_header: true,
        }
    }
}

impl Hops {
    /// Reads on. Costs nothing behind the header.
    pub fn read(&mut self, mut octets: &[u8]) {
        while self.is_in_header && !octets.is_empty() {
            let end = memchr(b'\n', octets);
            let line = &octets[..end.unwrap_or(octets.len())];
            self.read_line(line);
            octets = match end {
                Some(end) => {
                    self.end_line();
                    &octets[end + 1..]
                }
                None => &[],
            };
        }
    }

    /// How many servers it has passed.
    pub fn seen(&self) -> u32 {
        self.seen
    }

    fn read_line(&mut self, part: &[u8]) {
        if let Some(matched) = self.matched {
            let wanted = &TRACE[matched..];
            let count = wanted.len().min(part.len());
            let is_same = part[..count].eq_ignore_ascii_case(&wanted[..count]);
            self.matched = is_same.then_some(matched + count);
        }
        self.length += part.iter().filter(|&&octet| octet != b'\r').count();
    }

    fn end_line(&mut self) {
        self.seen += u32::from(self.matched == Some(TRACE.len()));
        // An empty line ends the header (RFC 5322 §2.1).
        self.is_in_header = self.length > 0;
        self.matched = Some(0);
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(message: &[u8], size: usize) -> u32 {
        let mut hops = Hops::default();
        for piece in message.chunks(size) {
            hops.read(piece);
        }
        hops.seen()
    }

    #[test]
    fn trace_headers_are_counted_and_nothing_else() {
        let message = b"Received: from a\r\n by b\r\nX-Received: x\r\nRECEIVED:\r\nSubject: y\r\n\
            Received-SPF: none\r\nReceived : no\r\n\r\nReceived: in the text\r\n";
        for size in [1, 2, 7, 1000] {
            assert_eq!(seen(message, size), 2, "{size}");
        }
        assert_eq!(seen(b"\r\nReceived: x\r\n", 1), 0);
        assert_eq!(seen(b"Received: not over", 3), 0);
    }
}
