//! A login and what a client does at least around it: connect, shake hands, log in, one command, and out again.

use anyhow::ensure;
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::backend::SMALL;
use super::client::Client;
use super::connection::{Connection, Target};
use super::protocol::Protocol;

/// Comes, logs in, asks for nothing, and leaves.
pub(super) async fn visit(target: &Target) -> anyhow::Result<()> {
    match target.protocol {
        Protocol::Imap => by_imap(target).await,
        Protocol::Pop3 => by_pop3(target).await,
        Protocol::Submission => by_submission(target).await,
        Protocol::Http => by_http(target).await,
    }
}

async fn by_imap(target: &Target) -> anyhow::Result<()> {
    let mut client = Client::logged_in(target).await?;
    client.command("NOOP").await?;
    client.logout().await
}

async fn by_pop3(target: &Target) -> anyhow::Result<()> {
    let mut connection = Connection::open(target).await?;
    connection.ask("", "+OK").await?;
    connection
        .ask(&format!("USER {}", target.login), "+OK")
        .await?;
    for line in ["PASS secret", "NOOP", "QUIT"] {
        connection.ask(line, "+OK").await?;
    }
    connection.end().await
}

async fn by_submission(target: &Target) -> anyhow::Result<()> {
    let mut connection = Connection::open(target).await?;
    connection.ask("", "220").await?;
    connection.send("EHLO client.example\r\n").await?;
    while !connection.line().await?.starts_with("250 ") {}
    let response = BASE64_STANDARD.encode(format!("\0{}\0secret", target.login));
    connection
        .ask(&format!("AUTH PLAIN {response}"), "235")
        .await?;
    connection.ask("NOOP", "250").await?;
    connection.ask("QUIT", "221").await?;
    connection.end().await
}

async fn by_http(target: &Target) -> anyhow::Result<()> {
    let mut connection = Connection::open(target).await?;
    let credentials = BASE64_STANDARD.encode(format!("{}:secret", target.login));
    let request = format!(
        "GET /small HTTP/1.1\r\nHost: mail.example.org\r\nAuthorization: Basic {credentials}\r\n\
         Connection: close\r\n\r\n"
    );
    connection.send(request).await?;
    let status = connection.line().await?;
    ensure!(status.contains(" 200 "), "answered {status:?}");
    while !connection.line().await?.is_empty() {}
    while connection.input.len() < SMALL {
        connection.read().await?;
    }
    connection.end().await
}
