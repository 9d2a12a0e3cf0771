//! What a server really holds, asked of the server itself and not through Ferrypost.

use std::collections::BTreeSet;

use crate::dovecot::{Dovecot, DovecotError};
use crate::history::Mailbox;

/// The INBOX of an account: messages of the workload's clients with their flags. One that does not
/// exist is empty.
///
/// # Errors
/// When doveadm fails.
pub async fn read_mailbox(server: &Dovecot, account: &str) -> Result<Mailbox, DovecotError> {
    let fields = "hdr.message-id flags";
    let query = [
        "-f", "tab", "fetch", "-u", account, fields, "mailbox", "INBOX",
    ];
    Ok(parse(&server.doveadm(&query).await?))
}

/// A header line, then a line a message.
fn parse(table: &str) -> Mailbox {
    let mut mailbox = Mailbox::default();
    for line in table.lines().skip(1) {
        let (id, flags) = line.split_once('\t').unwrap_or((line, ""));
        let id = id.trim_matches(['<', '>']);
        if let Some((id, "ferrypost.test")) = id.split_once('@') {
            let flags: BTreeSet<_> = flags.split(' ').map(str::to_owned).collect();
            mailbox.messages.insert(id.into(), flags);
        }
    }
    mailbox
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_others_are_left_out() {
        let table = "hdr.message-id\tflags\n<c1-1@ferrypost.test>\t\\Seen \\Recent\n\
                     <x@other.example>\t\n<c1-2@ferrypost.test>\t\n\t\n";
        let mailbox = parse(table);
        assert_eq!(mailbox.messages.len(), 2);
        assert!(mailbox.messages["c1-1"].contains("\\Seen"));
        assert!(!mailbox.messages["c1-2"].contains("\\Seen"));
    }
}
