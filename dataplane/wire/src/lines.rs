//! What a backend says before and at a login, line by line.

use zeroize::Zeroizing;

use crate::buf::WireBuf;
use crate::reply::BackendViolation;
use crate::settings::BackLimits;

/// Takes a backend's lines out of a buffer, within limits.
pub(crate) struct Lines {
    limits: BackLimits,
    taken: u32,
}

impl Lines {
    pub(crate) fn new(limits: BackLimits) -> Self {
        Self { limits, taken: 0 }
    }

    pub(crate) fn limits(&self) -> &BackLimits {
        &self.limits
    }

    /// Counts from here.
    pub(crate) fn decided(&mut self) {
        self.taken = 0;
    }

    /// The next line; `None` when more must be read.
    ///
    /// # Errors
    /// [`BackendViolation::ReplyTooLong`]: it is too long, or there have been too many.
    pub(crate) fn next(
        &mut self,
        input: &mut WireBuf,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, BackendViolation> {
        let line = input
            .take_line(self.limits.max_line)
            .map_err(|_| BackendViolation::ReplyTooLong)?;
        if line.is_some() {
            self.taken += 1;
            if self.taken > self.limits.max_lines {
                return Err(BackendViolation::ReplyTooLong);
            }
        }
        Ok(line)
    }
}
