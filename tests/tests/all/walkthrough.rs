//! The steps of the walk-through as people type them: a shell, openssl, grpcurl, mbsync.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::net::SocketAddr;
use std::path::Path;

use ferrypost_proto::v1::MigrationState;
use ferrypost_tests::dovecot::Pace;
use ferrypost_tests::postfix;
use ferrypost_tests::recipes::Entrances;
use ferrypost_tests::story::{landing, migrate, move_to, roll_back, session, short_limits};
use ferrypost_tests::tools::tool;
use ferrypost_tests::world::{Builder, World};

use super::shell::shell;

/// The servers are as people meet them: they wait for the disk, and let a wrong password wait.
fn world() -> Builder {
    World::builder()
        .data_planes(1)
        .cyruses()
        .limits(short_limits())
        .pace(Pace::AsShipped)
}

/// The walk-through's IMAP command: all three at once, each with a bare LF at its end.
fn step_three(options: &str, address: SocketAddr, account: &str, password: &str) -> String {
    format!(
        "openssl s_client -quiet {options}-connect {address} 2>&1 <<'END'\n\
         a1 LOGIN {account} \"{password}\"\n\
         a2 LIST \"\" \"*\"\n\
         a3 LOGOUT\n\
         END\n"
    )
}

#[tokio::test]
async fn the_commands_of_step_three_work_as_printed_on_either_server() {
    let mut world = world();
    if postfix::can_start() {
        world = world.postfixes();
    }
    let world = world.start().await.unwrap();
    let (account, password) = (&world.accounts()[0], world.password());
    for home in ["source", "target"] {
        for recipe in Entrances::of_data_plane(&world, 0).recipes(account, password) {
            recipe.follow().await.unwrap();
        }
        let imap = world.data_planes()[0].imap();
        let said = shell(&step_three("-starttls imap ", imap, account, password)).await;
        for answer in ["a1 OK", "* LIST", "a2 OK", "* BYE", "a3 OK"] {
            assert!(said.contains(answer), "no {answer:?} in:\n{said}");
        }
        let landed = landing(&world.imaps(0), account, password).await;
        assert_eq!(landed.unwrap(), home);
        // Refused the second time, for it lives there already.
        _ = migrate(&world.operator(0), move_to(account, "target")).await;
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn when_ferrypost_is_gone_the_same_commands_work_on_the_source() {
    let mut world = world();
    if postfix::can_start() {
        world = world.postfixes();
    }
    let mut world = world.start().await.unwrap();
    let account = world.accounts()[0].clone();
    let operator = world.operator(0);
    migrate(&operator, move_to(&account, "target"))
        .await
        .unwrap();
    roll_back(&operator, &account).await.unwrap();
    world.stop_ferrypost().await.unwrap();
    for recipe in Entrances::of_source(&world).recipes(&account, world.password()) {
        recipe.follow().await.unwrap();
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_at_the_shell_is_refused_and_the_command_still_ends() {
    let world = world().start().await.unwrap();
    let imaps = world.data_planes()[0].imaps();
    let said = shell(&step_three("", imaps, &world.accounts()[0], "wrong")).await;
    assert!(said.contains("a1 NO [AUTHENTICATIONFAILED]"), "{said}");
    assert!(said.contains("a2 BAD"), "{said}");
    assert!(said.contains("a3 OK"), "{said}");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_still_gets_every_answer() {
    let world = world().start().await.unwrap();
    let account = &world.accounts()[0];
    let address = world.data_planes()[0].imaps();
    // Python's `shutdown(SHUT_WR)` sends TCP's FIN, as `nc -N` does, and then only reads.
    // There is no LOGOUT: the server sees the end of input, and ends.
    let script = format!(
        r#"python3 - <<'END'
import socket, ssl
context = ssl.create_default_context(cafile="{ca}")
raw = socket.create_connection(("{host}", {port}))
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context.wrap_bio(incoming, outgoing, server_hostname="mail.example.org")
def flush():
    data = outgoing.read()
    if data:
        raw.sendall(data)
def pump(step):
    while True:
        try:
            result = step()
            flush()
            return result
        except ssl.SSLWantReadError:
            flush()
            data = raw.recv(65536)
            if data:
                incoming.write(data)
            else:
                incoming.write_eof()
pump(tls.do_handshake)
pump(lambda: tls.write(b'a1 LOGIN {account} "{password}"\r\na2 LIST "" "*"\r\n'))
raw.shutdown(socket.SHUT_WR)
said = b""
try:
    while True:
        data = pump(lambda: tls.read(65536))
        if not data:
            break
        said += data
except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
    pass
print(said.decode())
END
"#,
        ca = world.authority().display(),
        host = address.ip(),
        port = address.port(),
        password = world.password(),
    );
    let said = shell(&script).await;
    assert!(said.contains("a1 OK") && said.contains("a2 OK"), "{said}");
    world.stop().await.unwrap();
}

#[tokio::test]
async fn grpcurl_finds_every_service_without_a_proto_file() {
    let world = world().start().await.unwrap();
    let script = format!(
        "{} -plaintext -H \"authorization: Bearer $(cat {})\" {} list",
        tool("grpcurl").unwrap().display(),
        world.operator_token_file().display(),
        world.control_planes()[0].operators(),
    );
    let said = shell(&script).await;
    for service in ["Migration", "Placement", "RoutingConfig", "Stats"] {
        let name = format!("ferrypost.v1.{service}Service");
        assert!(said.lines().any(|line| line == name), "{said}");
    }
    world.stop().await.unwrap();
}

#[tokio::test]
async fn mbsync_syncs_through_a_move_without_noticing() {
    let world = world().start().await.unwrap();
    let (account, password) = (&world.accounts()[0], world.password());
    let folder = world.folder().join("mbsync");
    let sync = configure_mbsync(&world, &folder, account);
    append(&world, account, "one").await;
    shell(&sync).await;
    assert_eq!(subjects(&folder), ["one"]);

    let moved = migrate(&world.operator(0), move_to(account, "target"))
        .await
        .unwrap();
    assert_eq!(moved.state(), MigrationState::Succeeded);
    assert_eq!(
        landing(&world.imaps(0), account, password).await.unwrap(),
        "target"
    );
    append(&world, account, "two").await;
    shell(&sync).await;
    // Nothing twice, nothing lost: UIDVALIDITY and UIDs went over with the mail.
    assert_eq!(subjects(&folder), ["one", "two"]);
    let mut client = session(&world.imaps(0), account, password).await.unwrap();
    let inbox = client.select("INBOX").await.unwrap();
    assert_eq!(inbox.untagged("EXISTS").unwrap().text, "* 2 EXISTS");
    drop(client);
    world.stop().await.unwrap();
}

async fn append(world: &World, account: &str, subject: &str) {
    let mut client = session(&world.imaps(0), account, world.password())
        .await
        .unwrap();
    let message = format!("Subject: {subject}\r\n\r\nhello\r\n");
    client
        .append("INBOX", message.as_bytes())
        .await
        .unwrap()
        .accepted()
        .unwrap();
    client.logout().await.unwrap();
}

/// Writes a configuration of isync, and gives back the command that syncs everything.
fn configure_mbsync(world: &World, folder: &Path, account: &str) -> String {
    std::fs::create_dir_all(folder.join("mail")).unwrap();
    let address = world.data_planes()[0].imaps();
    let configuration = folder.join("mbsyncrc");
    let text = format!(
        "IMAPAccount ferrypost\nHost {host}\nPort {port}\nUser {account}\nPass \"{password}\"\n\
         SSLType IMAPS\nCertificateFile {ca}\n\n\
         IMAPStore far\nAccount ferrypost\n\n\
         MaildirStore near\nPath {mail}/\nInbox {mail}/INBOX\nSubFolders Verbatim\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSyncState *\n",
        host = address.ip(),
        port = address.port(),
        password = world.password(),
        ca = world.authority().display(),
        mail = folder.join("mail").display(),
    );
    std::fs::write(&configuration, text).unwrap();
    format!("mbsync -c {} all 2>&1", configuration.display())
}

/// The subjects in the local INBOX, sorted.
fn subjects(folder: &Path) -> Vec<String> {
    let mut subjects = Vec::new();
    for part in ["new", "cur"] {
        for entry in std::fs::read_dir(folder.join("mail/INBOX").join(part)).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
            subjects.push(subject.unwrap().to_owned());
        }
    }
    subjects.sort();
    subjects
}
