//! Programs that people read and send their mail with, before a move and after it: those that no other file here runs.
//! (curl, fetchmail, swaks, sieve-connect, sieveshell, mbsync and Python's modules are where their protocols are.)

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fs;
use std::path::{Path, PathBuf};

use ferrypost_tests::dovecot::{Dovecot, Role};
use ferrypost_tests::story::{SOON, migrate, move_to, session, short_limits};
use ferrypost_tests::world::{Builder, Entrance, World};

use super::shell::shell;

/// Has a program used twice: with the server that an account lives on at first, and with the one that it has moved to.
/// There is one more message each time, whose subject is the server's name.
async fn before_and_after(builder: Builder, uses: impl AsyncFn(&World, &Dovecot)) {
    let builder = builder.data_planes(1).limits(short_limits());
    let world = builder.start().await.unwrap();
    let account = &world.accounts()[0];
    deliver(&world, account, "source").await;
    uses(&world, world.source()).await;
    let moved = migrate(&world.operator(0), move_to(account, "target")).await;
    moved.unwrap();
    deliver(&world, account, "target").await;
    uses(&world, world.target()).await;
    world.stop().await.unwrap();
}

/// Puts a message into an account, wherever it lives.
async fn deliver(world: &World, account: &str, subject: &str) {
    let client = session(&world.imaps(0), account, world.password()).await;
    let mut client = client.unwrap();
    let message = format!("Subject: {subject}\r\n\r\n.hidden\r\n");
    let appended = client.append("INBOX", message.as_bytes()).await.unwrap();
    appended.accepted().unwrap();
    client.logout().await.unwrap();
}

/// What was fetched holds every message that came so far, once and whole.
fn is_complete(fetched: &str, server: &Dovecot) {
    let moved = usize::from(server.role() == Role::Target);
    for (part, times) in [
        ("Subject: source", 1),
        ("Subject: target", moved),
        ("\n.hidden\n", 1 + moved),
    ] {
        assert_eq!(fetched.matches(part).count(), times, "{part:?}: {fetched}");
    }
}

/// A fresh folder for a program's files.
fn folder_of(world: &World, program: &str, server: &Dovecot) -> PathBuf {
    let name = format!("{program}-{}", server.role().name());
    let folder = world.folder().join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn getmail_fetches_by_imap_and_by_pop3_before_a_move_and_after_it() {
    before_and_after(World::builder(), async |world, server| {
        for (entrance, retriever, service) in [
            (Entrance::Imaps, "SimpleIMAPSSLRetriever", "imap"),
            (Entrance::Pop3s, "SimplePOP3SSLRetriever", "pop3"),
        ] {
            let log = server.log().from_now();
            let folder = folder_of(world, retriever, server);
            is_complete(&getmail(world, entrance, retriever, &folder).await, server);
            let login = format!("{service}-login: Info: Log");
            log.wait_for(&[&login, "user=<user1@"], SOON).await.unwrap();
        }
    })
    .await;
}

/// Fetches everything, and gives back all of it.
async fn getmail(world: &World, entrance: Entrance, retriever: &str, folder: &Path) -> String {
    let inbox = folder.join("inbox");
    let configuration = format!(
        "[retriever]\ntype = {retriever}\nserver = 127.0.0.1\nport = {}\nusername = {}\npassword = {}\n\
         ca_certs = {}\n[destination]\ntype = Maildir\npath = {}/\n[options]\nread_all = true\ndelete = false\n",
        world.data_planes()[0].addr(entrance).port(),
        world.accounts()[0],
        world.password(),
        world.authority().display(),
        inbox.display(),
    );
    fs::write(folder.join("getmailrc"), configuration).unwrap();
    // It stores no mail as root, and when it misses the end of its own child (it waits for the news and not for the fact)
    // it waits for a minute in vain.
    shell(&format!(
        "cd {folder}; as=; if [ $(id -u) = 0 ]; then as='setpriv --reuid nobody --regid nogroup --clear-groups'; fi\n\
         for attempt in 1 2 3; do\n\
         rm -rf inbox; mkdir -p inbox/cur inbox/new inbox/tmp; [ -z \"$as\" ] || chown -R nobody:nogroup .\n\
         if timeout 18 $as getmail --getmaildir {folder} --rcfile getmailrc 2>&1; then exit; fi\n\
         done; exit 1",
        folder = folder.display(),
    ))
    .await;
    let files = fs::read_dir(inbox.join("new")).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    files
        .map(|file| fs::read_to_string(file).unwrap())
        .collect()
}

#[tokio::test]
async fn neomutt_reads_and_submits_before_a_move_and_after_it() {
    before_and_after(World::builder().postfixes(), async |world, server| {
        let folder = folder_of(world, "neomutt", server);
        is_complete(&read_with_neomutt(world, &folder).await, server);
        let log = world.postfix(server.role()).unwrap().log().from_now();
        submit_with_neomutt(world, &folder).await;
        let user = format!("sasl_username={}", world.accounts()[0]);
        log.wait_for(&["client=", "[127.0.0.1]", &user], SOON)
            .await
            .unwrap();
        let received = ["header Received: from", "helo=<neomutt.example.org>"];
        log.wait_for(&received, SOON).await.unwrap();
    })
    .await;
}

/// Types for somebody who copies the whole INBOX into a file, and gives that back.
async fn read_with_neomutt(world: &World, folder: &Path) -> String {
    let copy = folder.join("copy");
    let keys = format!(
        "push \"<tag-pattern>~A<enter><tag-prefix><copy-message>{}<enter><quit>\"\n",
        copy.display()
    );
    let file = configure_neomutt(world, folder, &keys);
    let inbox = format!("imaps://{}/INBOX", world.data_planes()[0].imaps());
    // It wants a terminal.
    shell(&format!(
        "cd {}; HOME=$PWD TERM=xterm script -qec 'neomutt -n -F {} -f {inbox}' /dev/null </dev/null",
        folder.display(),
        file.display(),
    ))
    .await;
    fs::read_to_string(copy).unwrap()
}

async fn submit_with_neomutt(world: &World, folder: &Path) {
    let file = configure_neomutt(world, folder, "");
    shell(&format!(
        "cd {}; echo text | HOME=$PWD neomutt -n -F {} -s 'by neomutt' -- bob@example.net 2>&1",
        folder.display(),
        file.display(),
    ))
    .await;
}

fn configure_neomutt(world: &World, folder: &Path, more: &str) -> PathBuf {
    let account = &world.accounts()[0];
    let configuration = format!(
        "set from = \"{account}\" hostname = neomutt.example.org copy = no\n\
         set folder = \"{folder}\"\n\
         set ssl_starttls = yes ssl_force_tls = yes ssl_ca_certificates_file = \"{authority}\"\n\
         set smtp_url = \"smtp://{user}@{submission}\" smtp_pass = \"{password}\"\n\
         set imap_user = \"{account}\" imap_pass = \"{password}\"\n\
         set confirmcreate = no confirmappend = no quit = yes mbox_type = mbox\n{more}",
        user = account.replace('@', "%40"),
        password = world.password(),
        authority = world.authority().display(),
        submission = world.data_planes()[0].submission().unwrap(),
        folder = folder.display(),
    );
    let file = folder.join("neomuttrc");
    fs::write(&file, configuration).unwrap();
    file
}
