//! POP3 with an empty mailbox.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use super::lines::Lines;

const CAPABILITIES: &[u8] =
    b"+OK\r\nUSER\r\nSASL PLAIN LOGIN\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nAUTH-RESP-CODE\r\n.\r\n";

pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    lines: &mut Lines<S>,
) -> io::Result<()> {
    lines.say(b"+OK bench\r\n").await?;
    while let Some(line) = lines.line().await? {
        let mut words = line.split(' ');
        let command = words.next().unwrap_or_default().to_ascii_uppercase();
        match command.as_str() {
            "CAPA" => lines.say(CAPABILITIES).await?,
            "QUIT" => return lines.say(b"+OK bye\r\n").await,
            "AUTH" if words.count() < 2 => {
                lines.say(b"+ \r\n").await?;
                lines.line().await?;
                lines.say(b"+OK\r\n").await?;
            }
            _ => lines.say(b"+OK\r\n").await?,
        }
    }
    Ok(())
}
