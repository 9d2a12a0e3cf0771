//! POP3's answers.

/// What is sent behind every input: its `-ERR` shows that the session goes on.
pub(crate) const END: &[u8] = b"XZZQ\r\n";

/// What a server said, as the table has it: of each answer its first word, a refusal's code and a challenge whole;
/// "..." for the lines of a list. `ended` says that the server closed.
pub(crate) fn summary(said: &[u8], ended: bool) -> String {
    let said = String::from_utf8_lossy(said);
    let mut answers: Vec<String> = Vec::new();
    for line in said.lines() {
        let (first, text) = line.split_once(' ').unwrap_or((line, ""));
        match first {
            "-ERR" => {
                let code = text.split(' ').next().filter(|code| code.starts_with('['));
                let code = code.map(|code| format!(" {code}")).unwrap_or_default();
                answers.push(format!("-ERR{code}"));
            }
            "+" => answers.push(format!("+'{text}'")),
            "+OK" | "." => answers.push(first.to_owned()),
            _ if answers.last().is_some_and(|last| last == "...") => {}
            _ => answers.push("...".to_owned()),
        }
    }
    if ended {
        answers.push("ended".to_owned());
    }
    answers.join(", ")
}
