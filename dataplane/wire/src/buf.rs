//! The read buffer of a leg.

use zeroize::{Zeroize, Zeroizing};

/// The first allocation, in octets: enough for any ordinary command.
const FIRST_ALLOCATION: usize = 1024;

/// A bounded read buffer that leaves no copies of what passed through it.
///
/// What is consumed is overwritten at once, the rest when the buffer is dropped. It grows by
/// allocating, copying and wiping, because a `Vec` that reallocates leaves its old contents in
/// freed memory. It allocates on first use and never holds more than its limit.
///
/// There is no `Debug`: a password may be inside.
///
/// ```compile_fail
/// let buffer = ferrypost_wire::WireBuf::new(64);
/// println!("{buffer:?}");
/// ```
pub struct WireBuf {
    /// Initialised storage; `head..tail` is what has been read and not consumed.
    storage: Vec<u8>,
    head: usize,
    tail: usize,
    /// How much of `head..tail` is known to hold no LF, so that a line that trickles in is not
    /// searched again from its start with every octet.
    searched: usize,
    limit: usize,
}

/// More was put into a [`WireBuf`] than its limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the buffer is full")]
pub struct Full;

/// A line did not end within its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the line is longer than its limit")]
pub struct LineTooLong;

impl WireBuf {
    /// A buffer that will hold at most `limit` octets.
    pub fn new(limit: usize) -> Self {
        Self {
            storage: Vec::new(),
            head: 0,
            tail: 0,
            searched: 0,
            limit,
        }
    }

    /// The most octets that it will hold.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many octets wait to be consumed.
    pub fn len(&self) -> usize {
        self.tail - self.head
    }

    /// Whether nothing waits to be consumed.
    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    /// Whether the limit is reached, so that [`spare`](Self::spare) is empty.
    pub fn is_full(&self) -> bool {
        self.len() >= self.limit
    }

    /// What waits to be consumed.
    pub fn filled(&self) -> &[u8] {
        &self.storage[self.head..self.tail]
    }

    /// Room to read into, followed by [`advance`](Self::advance). Empty only when the buffer is
    /// full.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.tail == self.storage.len() {
            self.make_room();
        }
        &mut self.storage[self.tail..]
    }

    /// Says that `count` octets of [`spare`](Self::spare) have been filled; more than there were
    /// are not counted.
    pub fn advance(&mut self, count: usize) {
        self.tail = self.storage.len().min(self.tail + count);
    }

    /// Appends a copy of `bytes`.
    ///
    /// # Errors
    /// [`Full`], and nothing was appended.
    pub fn extend(&mut self, bytes: &[u8]) -> Result<(), Full> {
        if bytes.len() > self.limit - self.len() {
            return Err(Full);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let spare = self.spare();
            let count = spare.len().min(rest.len());
            spare[..count].copy_from_slice(&rest[..count]);
            self.advance(count);
            rest = &rest[count..];
        }
        Ok(())
    }

    /// Drops `count` octets from the front (or all there are) and overwrites them.
    pub fn consume(&mut self, count: usize) {
        let count = count.min(self.len());
        self.storage[self.head..self.head + count].zeroize();
        self.head += count;
        self.searched = self.searched.saturating_sub(count);
        if self.is_empty() {
            self.head = 0;
            self.tail = 0;
        }
    }

    /// Takes a line without its end, which is LF with or without CR before it.
    ///
    /// `None` when there is no whole line yet.
    ///
    /// # Errors
    /// [`LineTooLong`] as soon as it is certain that the line, without its end, exceeds `max`
    /// octets or cannot end within the buffer's limit. Nothing is consumed.
    pub fn take_line(&mut self, max: usize) -> Result<Option<Zeroizing<Vec<u8>>>, LineTooLong> {
        let Some(end) = self.find_line_end() else {
            // One octet of slack: a CR that belongs to the line's end.
            let hopeless = self.len() > max.saturating_add(1) || self.is_full();
            return if hopeless { Err(LineTooLong) } else { Ok(None) };
        };
        let line = &self.filled()[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > max {
            return Err(LineTooLong);
        }
        let line = Zeroizing::new(line.to_vec());
        self.consume(end + 1);
        Ok(Some(line))
    }

    /// Frees the storage if nothing is in it; the next read allocates anew.
    pub fn release(&mut self) {
        if self.is_empty() {
            // Everything that was ever filled has been overwritten as it was consumed.
            self.storage = Vec::new();
            self.head = 0;
            self.tail = 0;
        }
    }

    fn find_line_end(&mut self) -> Option<usize> {
        let unsearched = &self.storage[self.head + self.searched..self.tail];
        let Some(found) = memchr::memchr(b'\n', unsearched) else {
            self.searched = self.len();
            return None;
        };
        Some(self.searched + found)
    }

    fn make_room(&mut self) {
        if self.head > 0 {
            self.storage.copy_within(self.head..self.tail, 0);
            let end = self.len();
            self.storage[end..].zeroize();
            self.head = 0;
            self.tail = end;
            return;
        }
        let size = (self.storage.len() * 2)
            .max(FIRST_ALLOCATION)
            .min(self.limit);
        if size > self.storage.len() {
            let mut larger = vec![0; size];
            larger[..self.tail].copy_from_slice(&self.storage[..self.tail]);
            self.storage.zeroize();
            self.storage = larger;
        }
    }
}

impl Drop for WireBuf {
    fn drop(&mut self) {
        self.storage.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(limit: usize, bytes: &[u8]) -> WireBuf {
        let mut buffer = WireBuf::new(limit);
        buffer.extend(bytes).unwrap();
        buffer
    }

    #[test]
    fn lines_end_with_lf_with_or_without_cr() {
        let mut buffer = buffer(64, b"one\r\ntwo\nthree");
        assert_eq!(**buffer.take_line(16).unwrap().unwrap(), *b"one");
        assert_eq!(**buffer.take_line(16).unwrap().unwrap(), *b"two");
        assert!(buffer.take_line(16).unwrap().is_none());
        assert_eq!(buffer.filled(), b"three");
    }

    #[test]
    fn a_line_of_exactly_the_limit_passes_and_one_more_does_not() {
        assert!(buffer(64, b"12345678\r\n").take_line(8).unwrap().is_some());
        assert!(buffer(64, b"123456789\n").take_line(8).is_err());
        // Without its end it may still become eight octets and a CR.
        assert!(buffer(64, b"12345678\r").take_line(8).unwrap().is_none());
        assert!(buffer(64, b"1234567890").take_line(8).is_err());
    }

    #[test]
    fn a_full_buffer_without_a_line_end_is_an_error_and_not_a_wait() {
        assert!(buffer(8, b"12345678").take_line(1000).is_err());
    }

    #[test]
    fn what_was_consumed_is_overwritten() {
        let mut buffer = buffer(64, b"a LOGIN alice secret\r\nrest");
        buffer.take_line(64).unwrap().unwrap();
        assert_eq!(buffer.filled(), b"rest");
        assert!(!buffer.storage.windows(6).any(|w| w == b"secret"));
    }

    #[test]
    fn compaction_leaves_no_copy_behind() {
        let mut buffer = WireBuf::new(FIRST_ALLOCATION);
        buffer.extend(&vec![b'x'; FIRST_ALLOCATION - 6]).unwrap();
        buffer.extend(b"secret").unwrap();
        buffer.consume(FIRST_ALLOCATION - 6);
        assert!(!buffer.spare().is_empty());
        buffer.consume(6);
        assert!(buffer.storage.iter().all(|&octet| octet == 0));
    }

    #[test]
    fn it_grows_to_its_limit_and_no_further() {
        let mut buffer = WireBuf::new(3000);
        buffer.extend(&vec![b'x'; 3000]).unwrap();
        assert!(buffer.is_full());
        assert!(buffer.spare().is_empty());
        assert_eq!(buffer.extend(b"y"), Err(Full));
        assert_eq!(buffer.storage.len(), 3000);
    }
}
