//! IMAP's answers.

/// What is sent behind every input: its answer, which is left out, shows that the session goes on.
pub(crate) const END: &[u8] = b"zz NOOP\r\n";

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
