//! IMAP, with one message to fetch and room for any.

use std::io;
use std::sync::LazyLock;

use tokio::io::{AsyncRead, AsyncWrite};

use super::lines::Lines;

/// Octets of the one message, and of each that is appended.
pub(in super::super) const MESSAGE: usize = 1 << 20;

/// What `FETCH` is answered with, the tagged line excepted.
pub(in super::super) static FETCHED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut answer = format!("* 1 FETCH (BODY[] {{{MESSAGE}}}\r\n").into_bytes();
    answer.extend(message());
    answer.extend(b")\r\n");
    answer
});

const CAPABILITIES: &str = "IMAP4rev1 LITERAL+ SASL-IR IDLE ID AUTH=PLAIN AUTH=LOGIN";

/// The text of a message: lines, as mail has them.
pub(in super::super) fn message() -> impl Iterator<Item = u8> {
    let line = b"The quick brown fox jumps over the lazy dog, and nobody proxies it!\r\n";
    line.iter().copied().cycle().take(MESSAGE)
}

pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    lines: &mut Lines<S>,
) -> io::Result<()> {
    lines
        .say(format!("* OK [CAPABILITY {CAPABILITIES}] bench\r\n"))
        .await?;
    while let Some(line) = lines.line().await? {
        if !answer(lines, &line).await? {
            break;
        }
    }
    Ok(())
}

/// Answers one command; false after a LOGOUT.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    lines: &mut Lines<S>,
    line: &str,
) -> io::Result<bool> {
    let mut words = line.split(' ');
    let tag = words.next().unwrap_or_default();
    let command = words.next().unwrap_or_default().to_ascii_uppercase();
    match command.as_str() {
        "CAPABILITY" => {
            lines
                .say(format!("* CAPABILITY {CAPABILITIES}\r\n"))
                .await?;
        }
        "ID" => lines.say(b"* ID NIL\r\n").await?,
        "LOGIN" => take_literals(lines, line).await?,
        "AUTHENTICATE" if words.count() < 2 => {
            lines.say(b"+ \r\n").await?;
            lines.line().await?;
        }
        "FETCH" => lines.say(&*FETCHED).await?,
        "APPEND" => lines.take(literal(line, "+}") + "\r\n".len()).await?,
        "IDLE" => {
            lines.say(b"+ idling\r\n").await?;
            lines.line().await?;
        }
        "LOGOUT" => {
            lines.say(format!("* BYE\r\n{tag} OK\r\n")).await?;
            return Ok(false);
        }
        _ => {}
    }
    lines.say(format!("{tag} OK {command} done\r\n")).await?;
    Ok(true)
}

/// nginx sends both arguments of a LOGIN as literals and waits before each. They have no line ends in them.
async fn take_literals<S: AsyncRead + AsyncWrite + Unpin>(
    lines: &mut Lines<S>,
    line: &str,
) -> io::Result<()> {
    let mut announces = literal(line, "}") > 0;
    while announces {
        lines.say(b"+ \r\n").await?;
        let next = lines.line().await?;
        announces = next.is_some_and(|line| literal(&line, "}") > 0);
    }
    Ok(())
}

/// The length in a line that ends in a literal's; 0 when it does not. `end` is what follows the number.
fn literal(line: &str, end: &str) -> usize {
    line.rsplit_once('{')
        .and_then(|(_, length)| length.strip_suffix(end))
        .and_then(|length| length.parse().ok())
        .unwrap_or(0)
}
