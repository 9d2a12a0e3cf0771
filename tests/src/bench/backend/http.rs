//! HTTP/1.1: something small, something large, room for any body, and a WebSocket in which nothing is said.

use std::io;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use tokio::io::{AsyncRead, AsyncWrite};

use super::imap::message;
use super::lines::Lines;

/// Octets of the small body.
pub(in super::super) const SMALL: usize = 1 << 10;

/// What is hashed behind a WebSocket's key (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

static SMALL_ANSWER: LazyLock<Vec<u8>> = LazyLock::new(|| answer(message().take(SMALL).collect()));
static LARGE_ANSWER: LazyLock<Vec<u8>> = LazyLock::new(|| answer(message().collect()));
static EMPTY_ANSWER: LazyLock<Vec<u8>> = LazyLock::new(|| answer(Vec::new()));

fn answer(body: Vec<u8>) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.into_bytes(), body].concat()
}

/// What a request's head says.
#[derive(Default)]
struct Head {
    line: String,
    length: usize,
    is_chunked: bool,
    key: Option<String>,
}

pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    lines: &mut Lines<S>,
) -> io::Result<()> {
    while let Some(head) = head(lines).await? {
        if let Some(key) = &head.key {
            lines.say(switch(key)).await?;
            // Nothing comes but the end.
            while lines.line().await?.is_some() {}
            return Ok(());
        }
        take_body(lines, &head).await?;
        let answer = match head.line.split(' ').nth(1) {
            Some("/small") => &SMALL_ANSWER,
            Some("/large") => &LARGE_ANSWER,
            _ => &EMPTY_ANSWER,
        };
        lines.say(&**answer).await?;
    }
    Ok(())
}

async fn head<S: AsyncRead + AsyncWrite + Unpin>(lines: &mut Lines<S>) -> io::Result<Option<Head>> {
    let Some(line) = lines.line().await? else {
        return Ok(None);
    };
    let mut head = Head {
        line,
        ..Head::default()
    };
    while let Some(line) = lines.line().await?.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').unwrap_or_default();
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.parse().unwrap_or(0),
            "transfer-encoding" => head.is_chunked = true,
            "sec-websocket-key" => head.key = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(Some(head))
}

async fn take_body<S: AsyncRead + AsyncWrite + Unpin>(
    lines: &mut Lines<S>,
    head: &Head,
) -> io::Result<()> {
    if !head.is_chunked {
        return lines.take(head.length).await;
    }
    loop {
        let line = lines.line().await?.unwrap_or_default();
        let size = usize::from_str_radix(&line, 16).unwrap_or(0);
        lines.take(size + "\r\n".len()).await?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn switch(key: &str) -> String {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {}\r\n\r\n",
        BASE64_STANDARD.encode(hash)
    )
}
