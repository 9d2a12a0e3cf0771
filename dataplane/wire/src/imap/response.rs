//! What a backend answers, line by line.

use zeroize::Zeroizing;

use super::lex::trailing_literal;
use super::quirks;
use crate::buf::WireBuf;
use crate::code::split_word;
use crate::lines;
use crate::reply::BackendViolation;
use crate::settings::BackLimits;

/// How a status response judges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    No,
    Bad,
}

/// One response (RFC 9051 §7).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Response<'a> {
    /// `+`: we are to go on, for the reason behind it.
    Continue(&'a [u8]),
    /// `*` and a status, with the text behind it.
    Status(Status, &'a [u8]),
    /// `* PREAUTH`
    Preauth(&'a [u8]),
    /// `* BYE`
    Bye,
    /// `* CAPABILITY`, with the list.
    Capability(&'a [u8]),
    /// `*` and anything else.
    Data,
    /// Our tag, a status and the text behind it.
    Tagged(Status, &'a [u8]),
}

/// Reads a line; `tag` is that of the command we wait for. `None` for what is no response to us.
pub(super) fn parse<'a>(line: &'a [u8], tag: &[u8]) -> Option<Response<'a>> {
    if line == quirks::BARE_CONTINUE {
        return Some(Response::Continue(b""));
    }
    if let Some(text) = line.strip_prefix(b"+ ") {
        return Some(Response::Continue(text));
    }
    let (first, rest) = split_word(line);
    let (word, text) = split_word(rest);
    if first != b"*" {
        let status = status(word).filter(|_| first == tag)?;
        return Some(Response::Tagged(status, text));
    }
    if let Some(status) = status(word) {
        return Some(Response::Status(status, text));
    }
    let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
    if is(b"PREAUTH") {
        Some(Response::Preauth(text))
    } else if is(b"BYE") {
        Some(Response::Bye)
    } else if is(b"CAPABILITY") {
        Some(Response::Capability(text))
    } else if word.is_empty() {
        None
    } else {
        Some(Response::Data)
    }
}

/// Whether a response that starts with `line` may have literals: texts for people do not.
fn has_data(line: &[u8]) -> bool {
    matches!(
        parse(line, b""),
        Some(Response::Data | Response::Capability(_))
    )
}

fn status(word: &[u8]) -> Option<Status> {
    [("OK", Status::Ok), ("NO", Status::No), ("BAD", Status::Bad)]
        .into_iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, status)| status)
}

/// Takes a backend's responses out of a buffer, within limits.
pub(super) struct Lines {
    lines: lines::Lines,
    /// Inside a response with literals, of which none matters before the login is over: octets of
    /// the current literal that are still to come.
    skipping: Option<usize>,
}

impl Lines {
    pub(super) fn new(limits: BackLimits) -> Self {
        Self {
            lines: lines::Lines::new(limits),
            skipping: None,
        }
    }

    pub(super) fn limits(&self) -> &BackLimits {
        self.lines.limits()
    }

    /// The next whole response that has no literal; `None` when more must be read.
    pub(super) fn next(
        &mut self,
        input: &mut WireBuf,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, BackendViolation> {
        loop {
            if let Some(missing) = self.skipping {
                let count = missing.min(input.len());
                input.consume(count);
                self.skipping = Some(missing - count);
                if missing > count {
                    return Ok(None);
                }
            }
            let Some(line) = self.lines.next(input)? else {
                return Ok(None);
            };
            let is_continuation = self.skipping.take().is_some();
            let literal = trailing_literal(&line).filter(|_| is_continuation || has_data(&line));
            if let Some((_, literal)) = literal {
                let length = usize::try_from(literal.length).unwrap_or(usize::MAX);
                if length > self.limits().max_line {
                    return Err(BackendViolation::ReplyTooLong);
                }
                self.skipping = Some(length);
            } else if !is_continuation {
                return Ok(Some(line));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_told_apart() {
        let parse = |line| parse(line, b"F1");
        assert_eq!(parse(b"+ "), Some(Response::Continue(b"")));
        assert_eq!(parse(b"+ e30="), Some(Response::Continue(b"e30=")));
        assert_eq!(parse(b"+"), Some(Response::Continue(b"")));
        assert_eq!(
            parse(b"* OK hi there"),
            Some(Response::Status(Status::Ok, b"hi there"))
        );
        assert_eq!(parse(b"* preauth x"), Some(Response::Preauth(b"x")));
        assert_eq!(parse(b"* BYE"), Some(Response::Bye));
        assert_eq!(
            parse(b"* CAPABILITY A B"),
            Some(Response::Capability(b"A B"))
        );
        assert_eq!(parse(b"* 3 EXISTS"), Some(Response::Data));
        assert_eq!(
            parse(b"F1 NO why"),
            Some(Response::Tagged(Status::No, b"why"))
        );
        for foreign in [
            &b"F2 OK"[..],
            b"220 smtp",
            b"+OK pop3",
            b"*",
            b"",
            b"F1",
            b"F1 PREAUTH",
        ] {
            assert_eq!(parse(foreign), None, "{}", foreign.escape_ascii());
        }
    }

    #[test]
    fn responses_with_literals_are_skipped_whole() {
        let mut input = WireBuf::new(1024);
        input
            .extend(b"* ID (\"name\" {9}\r\nx\r\n* BYE\r \"v\" {1}\r\ny)\r\n* OK done {5}\r\n")
            .unwrap();
        let mut lines = Lines::new(BackLimits::default());
        assert_eq!(
            **lines.next(&mut input).unwrap().unwrap(),
            *b"* OK done {5}"
        );
        assert!(lines.next(&mut input).unwrap().is_none());
    }
}
