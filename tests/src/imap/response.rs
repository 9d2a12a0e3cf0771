//! What a server says: one response, and the reply that ends a command.

use super::ImapError;

/// The verdict of a tagged response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok,
    /// Refused.
    No,
    /// Not understood.
    Bad,
}

impl Status {
    fn parse(word: &str) -> Option<Self> {
        match word.to_ascii_uppercase().as_str() {
            "OK" => Some(Self::Ok),
            "NO" => Some(Self::No),
            "BAD" => Some(Self::Bad),
            _ => None,
        }
    }
}

/// One response: a line, or several joined by literals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The text without the final line end; where a literal stood, only its `{length}` is left.
    pub text: String,
    /// The literals in order.
    pub literals: Vec<Vec<u8>>,
}

impl Response {
    /// Takes one whole response from the front of `input`: the response and its length, or `None`
    /// while it is not all there.
    pub(super) fn parse(input: &[u8]) -> Option<(Self, usize)> {
        let mut text = String::new();
        let mut literals = Vec::new();
        let mut at = 0;
        loop {
            let end = at + input[at..].iter().position(|&byte| byte == b'\n')?;
            let line = String::from_utf8_lossy(&input[at..end]);
            let line = line.strip_suffix('\r').unwrap_or(&line);
            text.push_str(line);
            at = end + 1;
            let Some(length) = literal_length(line) else {
                return Some((Self { text, literals }, at));
            };
            let literal = input.get(at..at.checked_add(length)?)?;
            literals.push(literal.to_vec());
            at += length;
        }
    }

    /// Whether it begins with `* `.
    pub fn is_untagged(&self) -> bool {
        self.text.starts_with("* ")
    }

    /// Whether it is a request to go on.
    pub fn is_continuation(&self) -> bool {
        self.text == "+" || self.text.starts_with("+ ")
    }

    /// Whether it is untagged data of this kind: `ID` fits `* ID (...)`, `EXISTS` fits
    /// `* 3 EXISTS`.
    pub fn is(&self, kind: &str) -> bool {
        let mut words = self.text.split(' ').skip(1);
        let first = words.next().unwrap_or_default();
        let word = if first.bytes().all(|byte| byte.is_ascii_digit()) {
            words.next().unwrap_or_default()
        } else {
            first
        };
        self.is_untagged() && word.eq_ignore_ascii_case(kind)
    }

    /// The verdict and the text after it, if this answers the command with that tag.
    pub(super) fn tagged(&self, tag: &str) -> Option<(Status, String)> {
        let rest = self.text.strip_prefix(tag)?.strip_prefix(' ')?;
        let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
        Some((Status::parse(word)?, text.to_owned()))
    }

    /// The capabilities, untagged or as a code.
    pub(super) fn capabilities(&self) -> Option<Vec<String>> {
        let list = if self.is("CAPABILITY") {
            self.text.get("* CAPABILITY ".len()..)?
        } else if self.is_untagged() || self.text.contains(" OK [") {
            let start = self.text.find("[CAPABILITY ")? + "[CAPABILITY ".len();
            self.text[start..].split(']').next()?
        } else {
            return None;
        };
        Some(
            list.split(' ')
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect(),
        )
    }

    /// The text of a `* BYE`.
    pub(super) fn bye(&self) -> Option<&str> {
        self.is("BYE")
            .then(|| self.text.get("* BYE ".len()..).unwrap_or_default())
    }

    /// The quoted string that follows the quoted string `name`, as in an ID list.
    pub(super) fn string_after(&self, name: &str) -> Option<String> {
        let strings: Vec<&str> = self.text.split('"').skip(1).step_by(2).collect();
        let place = strings
            .iter()
            .position(|string| string.eq_ignore_ascii_case(name))?;
        strings.get(place + 1).map(|string| (*string).to_owned())
    }
}

/// The length that a line announces for the literal after it (`{12}`, and `{12+}` for good measure).
fn literal_length(line: &str) -> Option<usize> {
    let (_, length) = line.strip_suffix('}')?.rsplit_once('{')?;
    length.strip_suffix('+').unwrap_or(length).parse().ok()
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The verdict.
    pub status: Status,
    /// The text after it, code included.
    pub text: String,
    /// The untagged responses before it.
    pub untagged: Vec<Response>,
}

impl Reply {
    pub(super) fn new(status: Status, text: String, untagged: Vec<Response>) -> Self {
        Self {
            status,
            text,
            untagged,
        }
    }

    /// Whether it is an OK.
    pub fn is_ok(&self) -> bool {
        self.status == Status::Ok
    }

    /// Insists on an OK.
    ///
    /// # Errors
    /// [`ImapError::Refused`] for NO and BAD.
    pub fn accepted(self) -> Result<Self, ImapError> {
        if self.is_ok() {
            return Ok(self);
        }
        let code = self.code().map(str::to_owned);
        Err(ImapError::Refused {
            status: self.status,
            code,
            text: self.text,
        })
    }

    /// What stands in brackets at the beginning of the text, for example `AUTHENTICATIONFAILED` or
    /// `APPENDUID 1 7`.
    pub fn code(&self) -> Option<&str> {
        let (code, _) = self.text.strip_prefix('[')?.split_once(']')?;
        Some(code)
    }

    /// UIDVALIDITY and UID of the message that an APPEND stored (RFC 4315).
    pub fn append_uid(&self) -> Option<(u32, u32)> {
        let mut words = self.code()?.strip_prefix("APPENDUID ")?.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    }

    /// The first untagged response of this kind, as [`Response::is`] says.
    pub fn untagged(&self, kind: &str) -> Option<&Response> {
        self.untagged.iter().find(|response| response.is(kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_whole_only_with_its_literals() {
        let whole = b"* 1 FETCH (UID 3 BODY[] {5}\r\nab\r\nc FLAGS ())\r\nnext";
        for cut in 0..whole.len() - 4 {
            assert_eq!(Response::parse(&whole[..cut]), None, "cut at {cut}");
        }
        let (response, length) = Response::parse(whole).unwrap();
        assert_eq!(response.text, "* 1 FETCH (UID 3 BODY[] {5} FLAGS ())");
        assert_eq!(response.literals, [b"ab\r\nc".to_vec()]);
        assert_eq!(&whole[length..], b"next");
        assert!(response.is("FETCH"));
    }

    #[test]
    fn nonsense_from_a_server_is_only_text() {
        for line in [
            "",
            "*",
            "* ",
            "+",
            "{",
            "}",
            "* 1",
            "t1",
            "* OK [CAPABILITY",
            "{99999999999999999999999}",
        ] {
            let bytes = format!("{line}\r\n");
            let (response, _) = Response::parse(bytes.as_bytes()).unwrap();
            assert_eq!(response.tagged("t1"), None);
            let _ = (response.capabilities(), response.bye(), response.is("X"));
        }
    }

    #[test]
    fn codes_are_read_from_the_tagged_line() {
        let reply = Reply::new(
            Status::Ok,
            "[APPENDUID 38505 3955] done".to_owned(),
            Vec::new(),
        );
        assert_eq!(reply.append_uid(), Some((38505, 3955)));
        let reply = Reply::new(
            Status::No,
            "[AUTHENTICATIONFAILED] no".to_owned(),
            Vec::new(),
        );
        assert_eq!(reply.code(), Some("AUTHENTICATIONFAILED"));
        assert!(reply.accepted().is_err());
    }
}
