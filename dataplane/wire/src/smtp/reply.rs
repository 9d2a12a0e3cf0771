//! What a backend answers: replies of one or more lines (RFC 5321 §4.2).

use crate::buf::WireBuf;
use crate::lines::Lines;
use crate::reply::BackendViolation;
use crate::settings::BackLimits;

/// A whole reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    /// The three digits.
    pub(crate) code: u16,
    /// The texts of its lines.
    texts: Vec<Vec<u8>>,
}

impl Reply {
    /// The text of the first line, which says most: in the others there are links and advice.
    pub(crate) fn text(&self) -> &[u8] {
        self.texts.first().map(Vec::as_slice).unwrap_or_default()
    }

    /// The texts of all its lines.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &[u8]> {
        self.texts.iter().map(Vec::as_slice)
    }

    /// The texts of the other lines: after EHLO, one extension each (RFC 5321 §4.1.1.1).
    pub(crate) fn extensions(&self) -> impl Iterator<Item = &str> {
        let others = self.texts.iter().skip(1);
        others.filter_map(|text| str::from_utf8(text).ok())
    }

    /// The enhanced status code (RFC 3463 §2), if there is one of the reply's class, and what people read.
    pub(crate) fn enhanced(&self) -> (Option<&str>, &[u8]) {
        let text = self.text();
        let end = memchr::memchr(b' ', text).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        match str::from_utf8(word)
            .ok()
            .filter(|word| self.is_enhanced(word))
        {
            Some(code) => (Some(code), rest.trim_ascii_start()),
            None => (None, text),
        }
    }

    fn is_enhanced(&self, word: &str) -> bool {
        let is_number = |part: &str| {
            (1..=3).contains(&part.len()) && part.bytes().all(|octet| octet.is_ascii_digit())
        };
        let mut parts = word.split('.');
        let class = parts.next().and_then(|class| class.parse().ok());
        class == Some(self.code / 100)
            && parts.next().is_some_and(is_number)
            && parts.next().is_some_and(is_number)
            && parts.next().is_none()
    }

    /// The codes as the operator reads them: `535 5.7.8`.
    pub(crate) fn codes(&self) -> String {
        let (enhanced, _) = self.enhanced();
        let behind = enhanced.map(|code| format!(" {code}")).unwrap_or_default();
        format!("{}{behind}", self.code)
    }
}

/// One line of a reply.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    code: u16,
    is_last: bool,
    text: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Line<'_>> {
    let (digits, rest) = line.split_at_checked(3)?;
    let is_code = matches!(digits[0], b'2'..=b'5') && digits.iter().all(u8::is_ascii_digit);
    let code = str::from_utf8(digits).ok()?.parse().ok()?;
    let (is_last, text) = match rest {
        [] => (true, rest),
        [b' ', text @ ..] => (true, text),
        [b'-', text @ ..] => (false, text),
        _ => return None,
    };
    is_code.then_some(Line {
        code,
        is_last,
        text,
    })
}

/// Puts replies together.
pub(crate) struct Replies {
    lines: Lines,
    begun: Option<Reply>,
    /// Octets of the reply that is not over.
    kept: usize,
}

impl Replies {
    pub(crate) fn new(limits: BackLimits) -> Self {
        Self {
            lines: Lines::new(limits),
            begun: None,
            kept: 0,
        }
    }

    /// Counts lines from here: what came before has been decided.
    pub(crate) fn decided(&mut self) {
        self.lines.decided();
    }

    /// The next whole reply; `None` when more must be read. All its lines together are as long as one may be
    /// at most.
    pub(crate) fn next(&mut self, input: &mut WireBuf) -> Result<Option<Reply>, BackendViolation> {
        while let Some(line) = self.lines.next(input)? {
            let line = parse(&line).ok_or(BackendViolation::Malformed)?;
            self.kept += line.text.len();
            if self.kept > self.lines.limits().max_line {
                return Err(BackendViolation::ReplyTooLong);
            }
            let reply = self.begun.get_or_insert(Reply {
                code: line.code,
                texts: Vec::new(),
            });
            if reply.code != line.code {
                return Err(BackendViolation::Malformed);
            }
            reply.texts.push(line.text.to_vec());
            if line.is_last {
                self.kept = 0;
                return Ok(self.begun.take());
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(said: &[u8]) -> Result<Vec<Reply>, BackendViolation> {
        let mut input = WireBuf::new(4096);
        input.extend(said).unwrap();
        let mut replies = Replies::new(BackLimits {
            max_line: 100,
            ..BackLimits::default()
        });
        let mut all = Vec::new();
        while let Some(reply) = replies.next(&mut input)? {
            all.push(reply);
        }
        Ok(all)
    }

    #[test]
    fn a_reply_has_one_code_and_as_many_lines_as_it_says() {
        let said = replies(b"250-mx\r\n250-SIZE 10\r\n250 DSN\r\n220\r\n354 go\n").unwrap();
        assert_eq!(
            said.iter().map(|reply| reply.code).collect::<Vec<_>>(),
            [250, 220, 354]
        );
        assert_eq!(said[0].extensions().collect::<Vec<_>>(), ["SIZE 10", "DSN"]);
        for broken in [
            &b"250-a\r\n251 b\r\n"[..],
            b"25 x\r\n",
            b"2500 x\r\n",
            b"150 x\r\n",
            b"* OK\r\n",
            b"\r\n",
        ] {
            assert_eq!(replies(broken), Err(BackendViolation::Malformed));
        }
    }

    #[test]
    fn all_lines_of_a_reply_together_have_a_limit() {
        let half = "x".repeat(50);
        let said = |more| replies(format!("250-{half}\r\n250 {half}{more}\r\n").as_bytes());
        assert!(said("").is_ok());
        assert_eq!(said("x"), Err(BackendViolation::ReplyTooLong));
    }

    #[test]
    fn an_enhanced_code_is_one_of_the_replys_own_class() {
        let codes = |line: &str| replies(format!("{line}\r\n").as_bytes()).unwrap()[0].codes();
        assert_eq!(codes("535 5.7.8 no"), "535 5.7.8");
        assert_eq!(codes("535 5.7.139"), "535 5.7.139");
        for text in [
            "535 no",
            "535 2.7.8 no",
            "535 5.7 no",
            "535 5.7.8.1",
            "535 5.7.1234 x",
        ] {
            assert_eq!(codes(text), "535");
        }
    }
}
