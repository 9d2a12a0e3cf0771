//! A compressed session (RFC 4978), which is offered by Dovecot 2.4 as it comes, lives through a move as
//! others do, except that nobody can say goodbye in it.

use std::process::Stdio;
use std::time::Duration;

use ferrypost_proto::v1::MigrationState;
use ferrypost_tests::story::{landing, migrate, move_to, short_limits};
use ferrypost_tests::world::World;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_mins(1);

/// Logs in, compresses, opens the INBOX, says so, and then waits for the end of the session: prints how
/// many octets came before it.
const CLIENT: &str = r#"
import socket, ssl, sys, zlib
host, port, ca, account, password = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
stream = context.wrap_socket(socket.create_connection((host, int(port))), server_hostname="mail.example.org")
def until(tag, read):
    said = b""
    while not (said.endswith(b"\r\n") and said.split(b"\r\n")[-2].startswith(tag)):
        data = read()
        assert data, said
        said += data
    assert tag + b" OK" in said, said
plain = lambda: stream.recv(65536)
until(b"*", plain)
stream.sendall(f'a LOGIN {account} "{password}"\r\n'.encode())
until(b"a", plain)
stream.sendall(b"b COMPRESS DEFLATE\r\n")
until(b"b", plain)
inflate, deflate = zlib.decompressobj(-15), zlib.compressobj(wbits=-15)
stream.sendall(deflate.compress(b"c SELECT INBOX\r\n") + deflate.flush(zlib.Z_SYNC_FLUSH))
until(b"c", lambda: inflate.decompress(plain()))
print("selected", flush=True)
rest = b""
while data := plain():
    rest += data
print("ended after", len(rest), rest)
"#;

#[tokio::test]
async fn a_compressed_session_is_closed_by_a_move_without_a_word_of_ours() {
    let builder = World::builder().data_planes(1).limits(short_limits());
    let world = builder.start().await.unwrap();
    let account = &world.accounts()[0];
    let address = world.data_planes()[0].imaps();
    let mut client = Command::new("python3")
        .args(["-c", CLIENT])
        .args([address.ip().to_string(), address.port().to_string()])
        .arg(world.authority())
        .args([account, world.password()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(client.stdout.take().unwrap());
    let mut line = String::new();
    let selected = timeout(LIMIT, said.read_line(&mut line)).await;
    selected.unwrap().unwrap();
    assert_eq!(line, "selected\n");

    let moved = migrate(&world.operator(0), move_to(account, "target"))
        .await
        .unwrap();
    assert_eq!(moved.state(), MigrationState::Succeeded);
    let mut rest = String::new();
    let ended = timeout(LIMIT, said.read_to_string(&mut rest)).await;
    ended.unwrap().unwrap();
    // What is not compressed would have been garbage to it.
    assert_eq!(rest, "ended after 0 b''\n");
    let landed = landing(&world.imaps(0), account, world.password()).await;
    assert_eq!(landed.unwrap(), "target");
    world.stop().await.unwrap();
}
