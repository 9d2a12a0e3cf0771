//! Submission to nobody.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use super::lines::Lines;

const OFFER: &[u8] =
    b"250-bench\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-AUTH PLAIN LOGIN\r\n\
                       250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n";

pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    lines: &mut Lines<S>,
) -> io::Result<()> {
    lines.say(b"220 bench ESMTP\r\n").await?;
    while let Some(line) = lines.line().await? {
        let mut words = line.split(' ');
        let command = words.next().unwrap_or_default().to_ascii_uppercase();
        match command.as_str() {
            "EHLO" => lines.say(OFFER).await?,
            "QUIT" => return lines.say(b"221 2.0.0 Bye\r\n").await,
            "AUTH" => {
                if words.count() < 2 {
                    lines.say(b"334 \r\n").await?;
                    lines.line().await?;
                }
                lines.say(b"235 2.7.0 Welcome\r\n").await?;
            }
            _ => lines.say(b"250 2.0.0 Ok\r\n").await?,
        }
    }
    Ok(())
}
