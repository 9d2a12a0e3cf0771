//! The tables of sloppy inputs in `tests/leniency`, and how answers are written in them. Shared with the tests
//! on real servers.

pub(crate) mod imap;
pub(crate) mod managesieve;
pub(crate) mod pop3;
pub(crate) mod submission;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// One row of a table.
pub(crate) struct Case {
    /// What the client sends, with escapes and placeholders.
    pub(crate) input: &'static str,
    /// What is answered, by whom.
    answers: Vec<(&'static str, &'static str)>,
    /// The rule by which ours differs; empty where it does not.
    pub(crate) rule: &'static str,
}

impl Case {
    /// What is answered by `who`, as the table's columns name them.
    pub(crate) fn by(&self, who: &str) -> &'static str {
        let found = self.answers.iter().find(|(name, _)| *name == who);
        found.expect("the table has a column of that name").1
    }
}

/// The rows, and the names of the rules.
pub(crate) fn table(text: &'static str) -> (Vec<Case>, Vec<&'static str>) {
    let (mut cases, mut rules, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(columns) = line.strip_prefix("columns ") {
            names = columns.split(", ").collect();
        } else if let Some(rule) = line.strip_prefix("rule ") {
            rules.push(rule.split(':').next().unwrap_or_default());
        } else if !line.starts_with('#') {
            let columns: Vec<_> = line.split(" | ").map(str::trim).collect();
            let (input, columns) = columns.split_first().expect("an input");
            let fits = (names.len()..=names.len() + 1).contains(&columns.len());
            assert!(
                fits,
                "{} columns and perhaps a rule, and not {line:?}",
                names.len()
            );
            cases.push(Case {
                input,
                answers: names.iter().copied().zip(columns.iter().copied()).collect(),
                rule: columns.get(names.len()).copied().unwrap_or_default(),
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
        .filter(|(placeholder, _)| !placeholder.starts_with("<#") && *placeholder != "<local>")
        .fold(answer.to_owned(), |text, (placeholder, value)| {
            text.replace(value, placeholder)
        })
}

fn placeholders(user: &str, password: &str) -> [(&'static str, String); 17] {
    let (local, _) = user.split_once('@').unwrap_or((user, ""));
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
        ("<longer>", "x".repeat(20_000)),
        ("<long>", "x".repeat(2_000)),
        ("<longish>", "x".repeat(500)),
        ("<token>", "x".repeat(9_000)),
        ("<local>", local.to_owned()),
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
