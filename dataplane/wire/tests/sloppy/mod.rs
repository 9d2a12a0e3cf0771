//! The table of sloppy inputs in `tests/leniency.txt`, and how answers are written in it. Shared with the tests
//! on real servers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// What is sent behind every input: its answer, which is left out, shows that the session goes on.
pub(crate) const END: &[u8] = b"zz NOOP\r\n";

/// One row of the table.
pub(crate) struct Case {
    /// What the client sends, with escapes and placeholders.
    pub(crate) input: &'static str,
    /// What Dovecot 2.3.19 answers.
    pub(crate) dovecot: &'static str,
    /// What Ferrypost answers.
    pub(crate) ours: &'static str,
    /// The rule by which the two differ; empty where they do not.
    pub(crate) rule: &'static str,
}

/// The rows, and the names of the rules.
pub(crate) fn table(text: &'static str) -> (Vec<Case>, Vec<&'static str>) {
    let (mut cases, mut rules) = (Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(rule) = line.strip_prefix("rule ") {
            rules.push(rule.split(':').next().unwrap_or_default());
        } else if !line.starts_with('#') {
            let columns: Vec<_> = line.split(" | ").map(str::trim).collect();
            let [input, dovecot, _cyrus, ours, ref rule @ ..] = columns[..] else {
                panic!("four columns and perhaps a rule, and not {line:?}");
            };
            cases.push(Case {
                input,
                dovecot,
                ours,
                rule: rule.first().copied().unwrap_or_default(),
            });
        }
    }
    (cases, rules)
}

/// The octets of an input for this account.
pub(crate) fn octets(input: &str, user: &str, password: &str) -> Vec<u8> {
    let text = placeholders(user, password)
        .iter()
        .fold(input.to_owned(), |text, (placeholder, value)| {
            text.replace(placeholder, value)
        });
    unescape(&text)
}

/// An answer with the placeholders for what of this account's credentials is in it.
pub(crate) fn masked(answer: &str, user: &str, password: &str) -> String {
    placeholders(user, password)
        .iter()
        .filter(|(placeholder, _)| !placeholder.starts_with("<#"))
        .fold(answer.to_owned(), |text, (placeholder, value)| {
            text.replace(value, placeholder)
        })
}

fn placeholders(user: &str, password: &str) -> [(&'static str, String); 12] {
    let plain = BASE64.encode(format!("\0{user}\0{password}"));
    let (first, second) = plain.split_at(plain.len() / 2);
    [
        ("<plain>", plain.clone()),
        ("<plain-unpadded>", plain.trim_end_matches('=').to_owned()),
        ("<plain-1>", first.to_owned()),
        ("<plain-2>", second.to_owned()),
        ("<wrong>", BASE64.encode(format!("\0{user}\0wrong"))),
        ("<user64>", BASE64.encode(user)),
        ("<password64>", BASE64.encode(password)),
        ("<user>", user.to_owned()),
        ("<password>", password.to_owned()),
        ("<#user>", user.len().to_string()),
        ("<#password>", password.len().to_string()),
        ("<#plain>", plain.len().to_string()),
    ]
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        if octet != b'\\' {
            octets.push(octet);
            continue;
        }
        let (&escape, after) = rest.split_first().expect("an escape is not over");
        rest = after;
        octets.push(match escape {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b's' => b' ',
            b'\\' => b'\\',
            b'x' => {
                let (digits, after) = rest.split_at(2);
                rest = after;
                let digits = str::from_utf8(digits).expect("hexadecimal digits");
                u8::from_str_radix(digits, 16).expect("hexadecimal digits")
            }
            other => panic!("there is no escape \\{}", char::from(other)),
        });
    }
    octets
}

/// What a server said, as the table has it: of each answer its first two words and a refusal's code; data and
/// [`END`]'s answer left out. `ended` says that the server closed, `silent` that it never answered [`END`].
pub(crate) fn summary(said: &[u8], ended: bool) -> String {
    let said = String::from_utf8_lossy(said);
    let mut answers = Vec::new();
    let mut reached_end = false;
    for line in said.lines().filter(|line| !line.is_empty()) {
        let mut words = line.split(' ');
        let first = words.next().unwrap_or_default();
        let second = words.next().unwrap_or_default();
        match (first, second) {
            ("zz", "OK") => reached_end = true,
            ("+", _) => answers.push("+".to_owned()),
            ("*", "BAD" | "BYE" | "NO") => answers.push(format!("* {second}")),
            ("*", _) => {}
            (tag, "NO") => {
                let code = words.next().filter(|code| code.starts_with('['));
                let code = code.map(|code| format!(" {code}")).unwrap_or_default();
                answers.push(format!("{tag} NO{code}"));
            }
            (tag, status) => answers.push(format!("{tag} {status}")),
        }
    }
    if ended {
        answers.push("ended".to_owned());
    } else if !reached_end {
        answers.push("silent".to_owned());
    }
    if answers.is_empty() {
        return "-".to_owned();
    }
    answers.join(", ")
}
