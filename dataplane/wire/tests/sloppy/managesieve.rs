//! ManageSieve's answers.

/// What is sent behind every input: its answer, which is left out, shows that the session goes on.
pub(crate) const END: &[u8] = b"NOOP \"zz\"\r\n";

/// What a server said, as the table has it: of each answer its status and code, `""` for an empty challenge, `...`
/// for strings; [`END`]'s answer left out. `ended` says that the server closed, `silent` that it never answered
/// [`END`].
pub(crate) fn summary(said: &[u8], ended: bool) -> String {
    let said = String::from_utf8_lossy(said);
    let mut answers: Vec<String> = Vec::new();
    let mut reached_end = false;
    for line in said.lines().filter(|line| !line.is_empty()) {
        let (status, rest) = line.split_once(' ').unwrap_or((line, ""));
        let code = rest
            .strip_prefix('(')
            .and_then(|rest| rest.split([' ', ')']).next());
        match (status, code) {
            ("OK", _) if rest.starts_with("(TAG \"zz\")") => reached_end = true,
            ("OK" | "NO" | "BYE", None) => answers.push(status.to_owned()),
            ("OK" | "NO" | "BYE", Some(code)) => answers.push(format!("{status} ({code})")),
            ("\"\"" | "{0}", _) => answers.push("\"\"".to_owned()),
            _ if answers.last().is_some_and(|last| last == "...") => {}
            _ => answers.push("...".to_owned()),
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
