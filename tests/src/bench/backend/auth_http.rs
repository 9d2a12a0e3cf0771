//! What nginx's mail proxy asks about every login (`auth_http`): whether it may, and where it goes. Everybody may, and
//! goes to the one server.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::lines::Lines;
use crate::bench::protocol::Protocol;

/// Answers one question; nginx asks each on a connection of its own. `backends` are in the order of [`Protocol::ALL`].
pub(super) async fn serve(stream: TcpStream, backends: Arc<[SocketAddr]>) -> io::Result<()> {
    let mut lines = Lines::new(stream);
    let mut backend = None;
    while let Some(line) = lines.line().await?.filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("Auth-Protocol: ") {
            let place = Protocol::ALL.iter().position(|it| it.nginx_name() == name);
            backend = place.and_then(|place| backends.get(place));
        }
    }
    let answer = match backend {
        Some(to) => format!(
            "Auth-Status: OK\r\nAuth-Server: {}\r\nAuth-Port: {}",
            to.ip(),
            to.port()
        ),
        None => "Auth-Status: no such protocol".to_owned(),
    };
    lines
        .say(format!("HTTP/1.0 200 OK\r\n{answer}\r\n\r\n"))
        .await?;
    lines.end().await
}
