//! What lies in a server's folder: its configuration, certificate, accounts and mail.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use crate::ports::Port;

use super::{DovecotError, Generation, MASTER, MASTER_PASSWORD, Pace, REALM, Role, Service, Setup};

const CONFIGURATION_2_3: &str = include_str!("../../config/dovecot-2.3.conf");
const CONFIGURATION_2_4: &str = include_str!("../../config/dovecot-2.4.conf");
const TOKENS_2_3: &str = include_str!("../../config/dovecot-tokens-2.3.conf");
const TOKENS_2_4: &str = include_str!("../../config/dovecot-tokens-2.4.conf");
/// What 2.3 keeps in a file of its own.
const OAUTH2_2_3: &str = include_str!("../../config/dovecot-oauth2-2.3.conf.ext");
const HURRY: &str = include_str!("../../config/dovecot-hurried.conf");
const SOURCE_TRUST: &str = include_str!("../../../docs/examples/dovecot-source.conf");
const TARGET_TRUST: &str = include_str!("../../../docs/examples/dovecot-target.conf");

/// `nobody` and `nogroup` on every Debian and Ubuntu.
const NOBODY: u32 = 65_534;

/// Writes the folder of a server that will listen on `ports`, in the order of [`Service::ALL`].
pub(super) fn write(folder: &Path, setup: &Setup<'_>, ports: &[Port]) -> Result<(), DovecotError> {
    let owner = Owner::of_mail()?;
    let generation = Generation::installed()?;
    let mail = folder.join("mail");
    fs::create_dir_all(&mail)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    if owner.rootless.is_none() {
        check_passage(folder)?;
        chown(&mail, Some(owner.user), Some(owner.group))?;
    }
    setup.identity.write(folder, "server")?;
    fs::write(folder.join("trust.conf"), trust(setup.told_as))?;
    fs::write(
        folder.join("users"),
        password_file(setup.accounts, setup.password),
    )?;
    fs::write(
        folder.join("masters"),
        format!("{MASTER}:{{PLAIN}}{MASTER_PASSWORD}\n"),
    )?;
    if let Some(url) = setup.introspection {
        let text = OAUTH2_2_3.replace("@introspection@", url);
        fs::write(folder.join("oauth2.conf.ext"), text)?;
    }
    fs::write(
        folder.join("dovecot.conf"),
        configuration(folder, setup, generation, ports, &owner),
    )?;
    Ok(())
}

/// Who owns the mail.
struct Owner {
    user: u32,
    group: u32,
    /// The names that Dovecot's own processes run under, when they cannot be its usual two users.
    rootless: Option<(String, String)>,
}

impl Owner {
    fn of_mail() -> io::Result<Self> {
        let user = rustix::process::geteuid();
        if user.is_root() {
            return Ok(Self {
                user: NOBODY,
                group: NOBODY,
                rootless: None,
            });
        }
        Ok(Self {
            user: user.as_raw(),
            group: rustix::process::getegid().as_raw(),
            rootless: Some((id("-un")?, id("-gn")?)),
        })
    }

    /// Settings without which Dovecot would want to change its user and its root.
    fn rootless_settings(&self) -> String {
        let Some((user, group)) = &self.rootless else {
            return String::new();
        };
        let mut settings = format!(
            "default_internal_user = {user}\ndefault_internal_group = {group}\n\
             default_login_user = {user}\n"
        );
        for service in [
            "anvil",
            "imap-login",
            "imap-urlauth-login",
            "managesieve-login",
            "pop3-login",
            "submission-login",
        ] {
            settings.push_str("service ");
            settings.push_str(service);
            settings.push_str(" {\n  chroot =\n}\n");
        }
        settings
    }
}

fn id(what: &str) -> io::Result<String> {
    let output = std::process::Command::new("id").arg(what).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Mail of `nobody` lies below all of these.
fn check_passage(folder: &Path) -> Result<(), DovecotError> {
    for ancestor in folder.canonicalize()?.ancestors() {
        if fs::metadata(ancestor)?.permissions().mode() & 0o001 == 0 {
            return Err(DovecotError::Closed(ancestor.to_owned()));
        }
    }
    Ok(())
}

fn password_file(accounts: &[String], password: &str) -> String {
    accounts.iter().fold(String::new(), |file, account| {
        file + account + ":{PLAIN}" + password + "\n"
    })
}

fn configuration(
    folder: &Path,
    setup: &Setup<'_>,
    generation: Generation,
    ports: &[Port],
    owner: &Owner,
) -> String {
    let path = folder.display().to_string();
    let mut values = vec![
        // It has places for others.
        ("tokens", tokens(setup.introspection, generation)),
        ("state", path.clone()),
        ("mail", format!("{path}/mail")),
        ("trust", format!("{path}/trust.conf")),
        ("name", setup.role.name().to_owned()),
        ("realm", REALM.to_owned()),
        ("mail_uid", owner.user.to_string()),
        ("mail_gid", owner.group.to_string()),
        // It has places for others as well.
        ("hurry", hurry(setup.pace).to_owned()),
        ("requests", requests(generation).to_owned()),
        ("rootless", owner.rootless_settings()),
    ];
    for (service, port) in Service::ALL.iter().zip(ports) {
        values.push((placeholder(*service), port.number().to_string()));
    }
    values
        .iter()
        .fold(template(generation).to_owned(), |text, (name, value)| {
            text.replace(&format!("@{name}@"), value)
        })
}

fn template(generation: Generation) -> &'static str {
    match generation {
        Generation::V2_3 => CONFIGURATION_2_3,
        Generation::V2_4 => CONFIGURATION_2_4,
    }
}

/// Settings by which a server takes bearer tokens.
fn tokens(introspection: Option<&str>, generation: Generation) -> String {
    let template = match generation {
        Generation::V2_3 => TOKENS_2_3,
        Generation::V2_4 => TOKENS_2_4,
    };
    introspection.map_or_else(String::new, |url| template.replace("@introspection@", url))
}

/// What the setting for how many clients a process serves is called.
fn requests(generation: Generation) -> &'static str {
    match generation {
        Generation::V2_3 => "service_count",
        Generation::V2_4 => "restart_request_count",
    }
}

fn hurry(pace: Pace) -> &'static str {
    match pace {
        Pace::AsShipped => "",
        Pace::Hurried => HURRY,
    }
}

/// What makes the server believe Ferrypost: both generations read the same.
fn trust(role: Role) -> &'static str {
    match role {
        Role::Source => SOURCE_TRUST,
        Role::Target => TARGET_TRUST,
    }
}

/// A service's port in the configuration.
fn placeholder(service: Service) -> &'static str {
    match service {
        Service::Imap => "imap",
        Service::Imaps => "imaps",
        Service::Pop3 => "pop3",
        Service::Pop3s => "pop3s",
        Service::Sieve => "sieve",
        Service::Submission => "submission",
        Service::Lmtp => "lmtp",
        Service::Auth => "auth",
    }
}
