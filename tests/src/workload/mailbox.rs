//! What a server really holds, asked of the server itself and not through Ferrypost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::dovecot::{Dovecot, DovecotError};
use crate::history::Mailbox;

/// The domain of the workload's Message-IDs.
const DOMAIN: &str = "ferrypost.test";

/// The INBOX of an account, messages of the workload's clients with their flags, and their scripts. What does not exist
/// is empty.
///
/// # Errors
/// When doveadm fails.
pub async fn read_mailbox(server: &Dovecot, account: &str) -> Result<Mailbox, DovecotError> {
    let fields = "hdr.message-id flags";
    let query = [
        "-f", "tab", "fetch", "-u", account, fields, "mailbox", "INBOX",
    ];
    let mut mailbox = parse(&server.doveadm(&query).await?);
    mailbox.scripts = read_scripts(server, account).await?;
    Ok(mailbox)
}

async fn read_scripts(
    server: &Dovecot,
    account: &str,
) -> Result<BTreeMap<Arc<str>, u64>, DovecotError> {
    let list = server.doveadm(&["sieve", "list", "-u", account]).await?;
    let names = list.lines().filter_map(|line| line.split(' ').next());
    let mut scripts = BTreeMap::new();
    for name in names.filter(|name| !name.is_empty()) {
        let query = ["sieve", "get", "-u", account, name];
        if let Some(version) = version(&server.doveadm(&query).await?) {
            scripts.insert(name.into(), version);
        }
    }
    Ok(scripts)
}

/// A version of a client's script.
pub(super) fn script(version: u64) -> String {
    format!("# version {version}\r\nkeep;\r\n")
}

fn version(script: &str) -> Option<u64> {
    let mut lines = script.lines();
    lines.find_map(|line| line.strip_prefix("# version ")?.trim().parse().ok())
}

/// The id of a client's message in the text of a Message-ID.
pub(super) fn message_id(text: &str) -> Option<&str> {
    let (id, domain) = text.trim_matches(['<', '>']).split_once('@')?;
    (domain == DOMAIN).then_some(id)
}

/// A header line, then a line a message.
fn parse(table: &str) -> Mailbox {
    let mut mailbox = Mailbox::default();
    for line in table.lines().skip(1) {
        let (id, flags) = line.split_once('\t').unwrap_or((line, ""));
        if let Some(id) = message_id(id) {
            let flags: BTreeSet<_> = flags.split(' ').map(str::to_owned).collect();
            if mailbox.messages.insert(id.into(), flags).is_some() {
                mailbox.twice.insert(id.into());
            }
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
        assert!(mailbox.twice.is_empty());
        let again = format!("{table}<c1-2@ferrypost.test>\t\n");
        assert!(parse(&again).twice.contains("c1-2"));
    }

    #[test]
    fn a_script_says_which_version_it_is() {
        let shown = format!("sieve script:\n{}", script(17));
        assert_eq!(version(&shown), Some(17));
        assert_eq!(version("sieve script:\nkeep;\n"), None);
    }
}
