//! How each protocol is tried from the command line, as people type it: everything at once, each line with a bare LF at
//! its end, and nothing that closes the connection but the server.

use anyhow::ensure;

use crate::cyrus;
use crate::dovecot::{Role, Service};
use crate::shell::shell;
use crate::world::{Entrance, World};

/// Where a mail server, or what stands in front of it, listens for clients: `host:port` each.
#[derive(Debug, Clone)]
pub struct Entrances {
    /// IMAP over TLS.
    pub imaps: String,
    /// POP3 over TLS.
    pub pop3s: String,
    /// `ManageSieve` with STARTTLS.
    pub sieve: String,
    /// Submission with STARTTLS.
    pub submission: Option<String>,
    /// Submission over TLS.
    pub submissions: Option<String>,
    /// HTTP over TLS.
    pub web: Option<String>,
}

/// A command, and what it must print.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// What is tried.
    pub name: &'static str,
    /// What is typed.
    pub script: String,
    /// What stands in the answers, in this order.
    pub answers: &'static [&'static str],
    /// What a data plane's log calls it.
    pub event: &'static str,
}

/// What a data plane's log calls a session's beginning.
const LOGIN: &str = " login ";

impl Entrances {
    /// Those of a data plane, counted from 0.
    pub fn of_data_plane(world: &World, data_plane: usize) -> Self {
        let plane = &world.data_planes()[data_plane];
        Self {
            imaps: plane.imaps().to_string(),
            pop3s: plane.addr(Entrance::Pop3s).to_string(),
            sieve: plane.sieve().to_string(),
            submission: plane.submission().as_ref().map(ToString::to_string),
            submissions: plane.submissions().as_ref().map(ToString::to_string),
            web: plane.web().as_ref().map(ToString::to_string),
        }
    }

    /// Those of the source, which serves everybody directly as well.
    pub fn of_source(world: &World) -> Self {
        let source = world.source();
        Self {
            imaps: source.addr(Service::Imaps).to_string(),
            pop3s: source.addr(Service::Pop3s).to_string(),
            sieve: source.addr(Service::Sieve).to_string(),
            submission: world.postfix(Role::Source).map(|it| it.addr().to_string()),
            submissions: None,
            web: world
                .cyrus(Role::Source)
                .map(|it| it.addr(cyrus::Service::Https).to_string()),
        }
    }

    /// A recipe for each, in the words of this account.
    pub fn recipes(&self, account: &str, password: &str) -> Vec<Recipe> {
        let mut recipes = vec![
            imap(&self.imaps, account, password),
            pop3(&self.pop3s, account, password),
            sieve(&self.sieve, account, password),
        ];
        if let Some(address) = &self.submission {
            recipes.push(Recipe {
                name: "submission with STARTTLS",
                ..submission("-starttls smtp ", address, account, password)
            });
        }
        if let Some(address) = &self.submissions {
            recipes.push(submission("", address, account, password));
        }
        if let Some(address) = &self.web {
            recipes.push(jmap(address, account, password));
        }
        recipes
    }
}

impl Recipe {
    /// Types it, and gives back what it printed.
    ///
    /// # Errors
    /// When it does not end by itself, or an answer is missing.
    pub async fn follow(&self) -> anyhow::Result<String> {
        let said = shell(&self.script).await?;
        let mut rest = said.as_str();
        for answer in self.answers {
            let found = rest.split_once(answer);
            ensure!(
                found.is_some(),
                "no {answer:?} in its place:\n{}\n{said}",
                self.script
            );
            rest = found.map_or("", |(_, behind)| behind);
        }
        Ok(said)
    }
}

fn imap(address: &str, account: &str, password: &str) -> Recipe {
    let script = format!(
        "openssl s_client -quiet -connect {address} <<'END'\n\
         a1 LOGIN {account} \"{password}\"\n\
         a2 LIST \"\" \"*\"\n\
         a3 LOGOUT\n\
         END\n"
    );
    Recipe {
        name: "IMAP over TLS",
        script,
        answers: &["a1 OK", "* LIST", "a2 OK", "* BYE", "a3 OK"],
        event: LOGIN,
    }
}

fn pop3(address: &str, account: &str, password: &str) -> Recipe {
    let script = format!(
        "printf 'USER {account}\\nPASS {password}\\nSTAT\\nQUIT\\n' |\n\
         openssl s_client -quiet -connect {address}\n"
    );
    Recipe {
        name: "POP3 over TLS",
        script,
        // The greeting, and an answer to each.
        answers: &["+OK", "+OK", "+OK Logged in", "+OK", "+OK Logging out"],
        event: LOGIN,
    }
}

fn sieve(address: &str, account: &str, password: &str) -> Recipe {
    let script = format!(
        "openssl s_client -quiet -starttls sieve -connect {address} <<END\n\
         AUTHENTICATE \"PLAIN\" \"$(printf '\\000{account}\\000{password}' | openssl base64 -A)\"\n\
         LISTSCRIPTS\n\
         LOGOUT\n\
         END\n"
    );
    Recipe {
        name: "ManageSieve with STARTTLS",
        script,
        answers: &[
            "OK \"Logged in.\"",
            "OK \"Listscripts completed.\"",
            "OK \"Logout completed.\"",
        ],
        event: LOGIN,
    }
}

fn submission(options: &str, address: &str, account: &str, password: &str) -> Recipe {
    let script = format!(
        "openssl s_client -quiet {options}-connect {address} <<END\n\
         EHLO test\n\
         AUTH PLAIN $(printf '\\000{account}\\000{password}' | openssl base64 -A)\n\
         QUIT\n\
         END\n"
    );
    Recipe {
        name: "submission over TLS",
        script,
        answers: &["250", "235 ", "221 "],
        event: LOGIN,
    }
}

/// The session resource, found by the host's name alone, names the account.
fn jmap(address: &str, account: &str, password: &str) -> Recipe {
    Recipe {
        name: "JMAP",
        script: format!(
            "curl -sSk -L -u '{account}:{password}' https://{address}/.well-known/jmap\n"
        ),
        answers: &["\"username\"", "\"isPrimary\":true"],
        event: " exchange ",
    }
}
