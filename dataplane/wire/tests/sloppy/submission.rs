//! Submission's answers.

/// What is sent behind every input. Its answer stays, for nothing tells it from others.
pub(crate) const END: &[u8] = b"XZZQ\r\n";

/// What a server said, as the table has it: of each reply its code and its enhanced code, of a challenge its text.
/// `ended` says that the server closed.
pub(crate) fn summary(said: &[u8], ended: bool) -> String {
    let said = String::from_utf8_lossy(said);
    let is_last = |line: &&str| line.as_bytes().get(3) != Some(&b'-');
    let mut answers: Vec<_> = said.lines().filter(is_last).map(answer).collect();
    if ended {
        answers.push("ended");
    }
    answers.join(", ").trim().to_owned()
}

fn answer(line: &str) -> &str {
    let (code, text) = line.split_at(line.len().min(3));
    if code == "334" {
        return line;
    }
    let word = text.split_whitespace().next().unwrap_or_default();
    let is_enhanced = word.len() > 4
        && word
            .bytes()
            .all(|octet| octet.is_ascii_digit() || octet == b'.');
    if is_enhanced {
        &line[..code.len() + 1 + word.len()]
    } else {
        code
    }
}

/// The codes of an answer, without the enhanced ones, in which servers differ and which clients do not read.
pub(crate) fn codes(answer: &str) -> Vec<&str> {
    let first = |reply: &'_ str| {
        reply
            .trim_start()
            .split(' ')
            .next()
            .unwrap_or_default()
            .len()
    };
    answer
        .split(", ")
        .map(|reply| &reply.trim_start()[..first(reply)])
        .collect()
}
