//! Postfix's look-ups over a socket (`socketmap_table(5)`): the name of a map, a space and a key in a netstring, and a word
//! with a value in one back.

use crate::buf::WireBuf;

/// The longest request, in octets without its frame: a key is an address of 320 (RFC 5321 §4.5.3.1) or little more.
pub const MAX_REQUEST: usize = 2048;

/// The most digits that such a length has.
const MAX_DIGITS: usize = 4;

/// The longest value, in octets, that Postfix is sent: it takes 100,000.
pub const MAX_VALUE: usize = 1024;

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The map's name.
    pub map: String,
    /// What is looked up.
    pub key: String,
}

/// The answer to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The value.
    Found(&'a str),
    /// There is none, for certain.
    NotFound,
    /// It cannot be said now; why.
    Temporary(&'a str),
    /// It can never be said; why.
    Permanent(&'a str),
}

/// It is no netstring, no question, or longer than one may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a question of a socketmap")]
pub struct Malformed;

impl Request {
    /// Takes the next question out of the buffer; `None` when more must be read.
    ///
    /// # Errors
    /// [`Malformed`]: where the next one begins is not known.
    pub fn take(input: &mut WireBuf) -> Result<Option<Self>, Malformed> {
        let octets = input.filled();
        let digits = octets.iter().take_while(|it| it.is_ascii_digit()).count();
        // A zero in front would be another spelling of the same.
        let is_sound = digits <= MAX_DIGITS && (digits < 2 || octets[0] != b'0');
        let (number, rest) = octets.split_at(digits);
        match rest.first() {
            None if is_sound => return Ok(None),
            Some(b':') if is_sound && digits > 0 => {}
            _ => return Err(Malformed),
        }
        let length = number
            .iter()
            .fold(0, |sum, it| sum * 10 + usize::from(it - b'0'));
        if length > MAX_REQUEST {
            return Err(Malformed);
        }
        let Some(end) = rest.get(1 + length) else {
            return Ok(None);
        };
        if *end != b',' {
            return Err(Malformed);
        }
        let request = Self::parse(&rest[1..=length]).ok_or(Malformed)?;
        input.consume(digits + 1 + length + 1);
        Ok(Some(request))
    }

    /// What is not UTF-8 in a key can be in no name: it is looked up as what it looks like.
    fn parse(text: &[u8]) -> Option<Self> {
        let space = memchr::memchr(b' ', text)?;
        let (map, key) = text.split_at(space);
        Some(Self {
            map: str::from_utf8(map).ok()?.to_owned(),
            key: String::from_utf8_lossy(&key[1..]).into_owned(),
        })
    }
}

impl Answer<'_> {
    /// Appends it.
    pub fn write(self, out: &mut Vec<u8>) {
        let (word, value) = match self {
            Self::Found(value) => ("OK", value),
            Self::NotFound => ("NOTFOUND", ""),
            Self::Temporary(reason) => ("TEMP", reason),
            Self::Permanent(reason) => ("PERM", reason),
        };
        let value = &value[..value.floor_char_boundary(MAX_VALUE)];
        let text = format!("{word} {value}");
        out.extend_from_slice(format!("{}:{text},", text.len()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(said: &[u8]) -> Result<(Vec<Request>, usize), Malformed> {
        let mut input = WireBuf::new(said.len().max(1));
        input.extend(said).unwrap();
        let mut requests = Vec::new();
        while let Some(request) = Request::take(&mut input)? {
            requests.push(request);
        }
        Ok((requests, input.len()))
    }

    fn request(map: &str, key: &str) -> Request {
        let (map, key) = (map.to_owned(), key.to_owned());
        Request { map, key }
    }

    #[test]
    fn questions_come_one_after_the_other_and_a_part_of_one_waits() {
        let said = b"15:transport a@b.c,5:m a b,10:trans";
        let expected = vec![request("transport", "a@b.c"), request("m", "a b")];
        assert_eq!(take(said), Ok((expected, 8)));
        for part in [&b""[..], b"1", b"10", b"10:", b"10:transport ", b"5:m a b"] {
            assert_eq!(
                take(part),
                Ok((Vec::new(), part.len())),
                "{}",
                part.escape_ascii()
            );
        }
    }

    #[test]
    fn what_is_no_question_is_not_guessed_at() {
        for said in [
            &b":m a,"[..],
            b"x",
            b" 3:m a,",
            b"03:m a,",
            b"+3:m a,",
            b"3:m a;",
            b"2:ma,",
            b"0:,",
            b"2049:",
            b"99999",
            b"GET / HTTP/1.1",
        ] {
            assert_eq!(take(said), Err(Malformed), "{}", said.escape_ascii());
        }
        let longest = format!("{MAX_REQUEST}:m {},", "x".repeat(MAX_REQUEST - 2));
        assert!(take(longest.as_bytes()).is_ok());
    }

    #[test]
    fn an_answer_is_a_netstring_of_a_word_and_a_value() {
        for (answer, wire) in [
            (Answer::Found("lmtp:[host]:24"), "17:OK lmtp:[host]:24,"),
            (Answer::NotFound, "9:NOTFOUND ,"),
            (Answer::Temporary("no table"), "13:TEMP no table,"),
            (Answer::Permanent("x"), "6:PERM x,"),
        ] {
            let mut out = Vec::new();
            answer.write(&mut out);
            assert_eq!(String::from_utf8_lossy(&out), wire);
        }
        let mut out = Vec::new();
        Answer::Found(&"\u{e4}".repeat(5000)).write(&mut out);
        assert!(out.len() < MAX_VALUE + 10);
    }
}
