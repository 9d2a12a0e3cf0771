//! The folders and files of a world, which are those that the manual shows.
//!
//! ```text
//!   <folder>/ca.pem, operator.token, admin.token, hook.journal
//!   <folder>/source/, target/                     the two Dovecots
//!   <folder>/control-plane-1/controlplane.toml    with routing.toml, tls/ and its store beside it
//!   <folder>/gateway-1/gateway.toml               with tls/, admin.token and state/ beside it
//! ```
//!
//! A configuration is the example from the repository with this machine's values in place of the
//! example's, line by line: an example that no longer says what is replaced here fails every test.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::distr::Alphanumeric;

use crate::certs::Authority;
use crate::dovecot::{Dovecot, Service};
use crate::postfix::Postfix;
use crate::tools::repository;

use super::link::Link;
use super::plane::{ControlPlane, DataPlane, Entrance};
use super::{BareNames, Limits, WorldError};

const GATEWAY: Example = Example {
    file: "docs/examples/two-servers/gateway.toml",
    text: include_str!("../../../docs/examples/two-servers/gateway.toml"),
};

const CONTROL_PLANE: Example = Example {
    file: "docs/examples/two-servers/controlplane.toml",
    text: include_str!("../../../docs/examples/two-servers/controlplane.toml"),
};

const ROUTING: Example = Example {
    file: "docs/examples/two-servers/routing.toml",
    text: include_str!("../../../docs/examples/two-servers/routing.toml"),
};

/// Everything comes from one address here, however much of it there is.
const LIMITS: &str = "[limits.connections]\nper_address = 19000\nper_network = 19000\n";

/// A file of the repository that shows a whole configuration.
struct Example {
    file: &'static str,
    text: &'static str,
}

impl Example {
    /// The example with every `(line, replacement)` carried out.
    fn filled_in(&self, values: &[(&str, String)]) -> Result<String, WorldError> {
        let mut text = self.text.to_owned();
        for (line, value) in values {
            if !text.contains(line) {
                return Err(WorldError::Example {
                    example: self.file,
                    line: (*line).to_owned(),
                });
            }
            text = text.replace(line, value);
        }
        Ok(text)
    }
}

/// What the files of all processes have in common.
pub(super) struct Files<'a> {
    /// The world's folder.
    pub(super) folder: &'a Path,
    /// Who signs all certificates.
    pub(super) authority: &'a Authority,
    /// Times and limits.
    pub(super) limits: &'a Limits,
    /// Who is asked whose bearer tokens are.
    pub(super) issuer: Option<&'a str>,
}

impl Files<'_> {
    /// The authority's certificate, for everybody.
    pub(super) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The token of the operators' API.
    pub(super) fn operator_token(&self) -> PathBuf {
        self.folder.join("operator.token")
    }

    /// The token of the admin endpoints.
    pub(super) fn admin_token(&self) -> PathBuf {
        self.folder.join("admin.token")
    }

    /// Where the delta hook writes when it ran.
    pub(super) fn journal(&self) -> PathBuf {
        self.folder.join("hook.journal")
    }

    /// Writes what everybody reads.
    pub(super) fn write_shared(&self) -> io::Result<()> {
        fs::write(self.authority(), self.authority.pem())?;
        write_secret(&self.operator_token(), &fresh_token())?;
        write_secret(&self.admin_token(), &fresh_token())
    }

    /// Writes the configuration of a data plane and what it names.
    pub(super) fn write_data_plane(
        &self,
        plane: &DataPlane,
        control_planes: &[ControlPlane],
    ) -> Result<(), WorldError> {
        let name = plane.plane.name();
        let folder = plane.plane.config().parent().unwrap_or(self.folder);
        let tls = folder.join("tls");
        fs::create_dir_all(&tls)?;
        fs::copy(self.authority(), tls.join("ca.pem"))?;
        fs::copy(self.admin_token(), folder.join("admin.token"))?;
        self.authority.server()?.write(&tls, "mail")?;
        self.authority.client(name, &[])?.write(&tls, name)?;
        // What it shows to callers of the admin endpoint is a server's certificate.
        self.authority.server()?.write(&tls, "admin")?;
        let endpoints: Vec<String> = control_planes
            .iter()
            .enumerate()
            .map(|(replica, control_plane)| {
                let link = plane.link(replica);
                let at = link.map_or(control_plane.data_planes(), Link::addr);
                format!("\"https://{at}\"")
            })
            .collect();
        let limits = self.limits;
        let mut values = vec![
            (
                "cert_file = \"tls/mail.pem\"\nkey_file = \"tls/mail.key\"\ntoken_file",
                "cert_file = \"tls/admin.pem\"\nkey_file = \"tls/admin.key\"\ntoken_file".into(),
            ),
            ("instance = \"gateway-1\"", format!("instance = \"{name}\"")),
            ("tls/gateway-1.pem", format!("tls/{name}.pem")),
            ("tls/gateway-1.key", format!("tls/{name}.key")),
            ("\"https://127.0.0.1:9081\"", endpoints.join(", ")),
            ("\"127.0.0.1:9443\"", format!("\"{}\"", plane.admin())),
        ];
        let listeners: Vec<_> = Entrance::ALL
            .iter()
            .map(|entrance| format!("\"0.0.0.0:{}\"", entrance.well_known()))
            .collect();
        for (listener, entrance) in listeners.iter().zip(Entrance::ALL) {
            values.push((listener, format!("\"{}\"", plane.addr(entrance))));
        }
        let text = GATEWAY.filled_in(&values)?;
        let submission = plane.submission().map(submission_listeners);
        let text = format!(
            "{text}\n{}{LIMITS}[limits.hold]\nper_name_and_address = 500\n{}\n[limits.relay]\n{}\n{}\n",
            submission.unwrap_or_default(),
            milliseconds("timeout", limits.hold),
            milliseconds("drain", limits.drain),
            milliseconds("close", limits.close),
        );
        let tokens = self.tokens(folder)?;
        fs::write(plane.plane.config(), text + &tokens)?;
        Ok(())
    }

    /// The section by which a data plane asks the issuer, who believes that we are whoever we say.
    fn tokens(&self, folder: &Path) -> io::Result<String> {
        let Some(url) = self.issuer else {
            return Ok(String::new());
        };
        write_secret(&folder.join("issuer.token"), &fresh_token())?;
        Ok(format!(
            "[tokens]\nowner = [\"introspection\"]\n\
             [tokens.introspection]\nurl = \"{url}\"\ntoken_file = \"issuer.token\"\n"
        ))
    }

    /// Writes the configuration of a replica of the control plane and what it names.
    pub(super) fn write_control_plane(
        &self,
        replica: &ControlPlane,
        store: &str,
        hook: Option<&[String]>,
    ) -> Result<(), WorldError> {
        let name = replica.plane.name();
        let folder = replica.plane.config().parent().unwrap_or(self.folder);
        let tls = folder.join("tls");
        fs::create_dir_all(&tls)?;
        fs::copy(self.authority(), tls.join("ca.pem"))?;
        self.authority.server()?.write(&tls, "controlplane")?;
        let limits = self.limits;
        let mut text = CONTROL_PLANE.filled_in(&[
            (
                "replica = \"control-plane-1\"",
                format!("replica = \"{name}\""),
            ),
            (
                "kind = \"embedded\"\npath = \"ferrypost.redb\"",
                store.to_owned(),
            ),
            ("\"127.0.0.1:9080\"", format!("\"{}\"", replica.operators())),
            (
                "\"127.0.0.1:9081\"",
                format!("\"{}\"", replica.data_planes()),
            ),
            ("\"operator.token\"", quoted(&self.operator_token())),
            ("\"admin.token\"", quoted(&self.admin_token())),
            ("\"127.0.0.1:9444\"", format!("\"{}\"", replica.admin())),
            ("\"routing.toml\"", quoted(&self.routing())),
        ])?;
        let hooks = text.find("[hooks.delta]").unwrap_or(text.len());
        text.truncate(hooks);
        if let Some(command) = hook {
            let words: Vec<String> = command.iter().map(|word| format!("{word:?}")).collect();
            text = format!(
                "{text}[hooks.delta]\ncommand = [{}]\n{}\n\n",
                words.join(", "),
                milliseconds("timeout", limits.hook)
            );
        }
        let text = format!(
            "{text}[migrations]\n{}\n{}\n{}\n{}\n",
            milliseconds("window", limits.window),
            milliseconds("settle", limits.settle),
            milliseconds("heartbeat", limits.heartbeat),
            milliseconds("leader_ttl", limits.leader_ttl),
        );
        fs::write(replica.plane.config(), text)?;
        Ok(())
    }

    /// The routing configuration.
    pub(super) fn routing(&self) -> PathBuf {
        self.folder.join("routing.toml")
    }

    /// Writes the routing configuration.
    pub(super) fn write_routing(
        &self,
        source: &Dovecot,
        target: &Dovecot,
        postfixes: Option<&[Postfix; 2]>,
        bare_names: BareNames,
    ) -> Result<(), WorldError> {
        let bare_names = match bare_names {
            BareNames::OfDefaultDomain => "{ default_domain = \"example.org\" }",
            BareNames::Listed => "\"listed\"",
        };
        let at = |server: &Dovecot, service| {
            let address = server.addr(service);
            format!(
                "host = \"{}\"\nport = {}\nca_file = \"ca.pem\"\nserver_name = \"mail.example.org\"",
                address.ip(),
                address.port(),
            )
        };
        let text = ROUTING.filled_in(&[
            (
                "bare_names = { default_domain = \"example.org\" }",
                format!("bare_names = {bare_names}"),
            ),
            (
                "host = \"old.example.org\"\nport = 993",
                at(source, Service::Imaps),
            ),
            (
                "host = \"new.example.org\"\nport = 143",
                at(target, Service::Imap),
            ),
            (
                "host = \"old.example.org\"\nport = 995",
                at(source, Service::Pop3s),
            ),
            (
                "host = \"new.example.org\"\nport = 110",
                at(target, Service::Pop3),
            ),
            (
                "host = \"old.example.org\"\nport = 4190",
                at(source, Service::Sieve),
            ),
            (
                "host = \"new.example.org\"\nport = 4190",
                at(target, Service::Sieve),
            ),
        ])?;
        let text = match postfixes {
            Some(postfixes) => with_submission(&text, postfixes)?,
            None => text,
        };
        fs::write(self.routing(), text)?;
        Ok(())
    }
}

/// What lets clients submit at this port, by either family.
fn submission_listeners(address: SocketAddr) -> String {
    let listener = |name: &str, address: String| {
        format!(
            "[[listeners]]\nname = \"{name}\"\nprotocol = \"submission\"\naddress = \"{address}\"\n\
             tls = \"starttls\"\ncertificates = [{{ cert_file = \"tls/mail.pem\", key_file = \"tls/mail.key\" }}]\n\n"
        )
    };
    listener("submission", address.to_string())
        + &listener("submission-6", format!("[::1]:{}", address.port()))
}

/// The routing configuration with a Postfix at each destination: the source's believes XCLIENT, the target's a PROXY
/// header.
fn with_submission(routing: &str, [source, target]: &[Postfix; 2]) -> Result<String, WorldError> {
    const SECOND: &str = "[[destinations]]\nid = \"target\"\n";
    let endpoint = |server: &Postfix, announcement: &str| {
        format!(
            "[[destinations.endpoints]]\nprotocol = \"submission\"\nhost = \"{}\"\nport = {}\n\
             ca_file = \"ca.pem\"\nserver_name = \"mail.example.org\"\ntls = \"starttls\"\n\
             announcement = \"{announcement}\"\nauthorization_identity = \"honoured\"\n\
             master_separators = \"%\"\n\n",
            server.addr().ip(),
            server.addr().port(),
        )
    };
    let (first, second) = routing.split_once(SECOND).ok_or(WorldError::Example {
        example: ROUTING.file,
        line: SECOND.to_owned(),
    })?;
    let source = endpoint(source, "xclient");
    let target = endpoint(target, "proxy_v2");
    Ok(format!("{first}{source}{SECOND}\n{target}{second}"))
}

/// The delta hook as the control plane starts it.
pub(super) fn hook_command(source: &Dovecot, target: &Dovecot, journal: &Path) -> Vec<String> {
    let server = |server: &Dovecot| {
        format!(
            "{}={}",
            server.role().name(),
            server.configuration().display()
        )
    };
    let program = repository().join("tests/tools/delta-hook");
    [
        program.display().to_string(),
        "--server".to_owned(),
        server(source),
        "--server".to_owned(),
        server(target),
        "--journal".to_owned(),
        journal.display().to_string(),
    ]
    .into()
}

/// The same hook, which fails in so many of a hundred moves.
pub(super) fn moody(seed: u64, percent: u32, hook: Vec<String>) -> Vec<String> {
    let program = repository().join("tests/tools/moody-hook");
    let mut command = vec![
        program.display().to_string(),
        "--seed".to_owned(),
        seed.to_string(),
        "--percent".to_owned(),
        percent.to_string(),
    ];
    command.extend(hook);
    command
}

/// A path as TOML writes a text.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

fn milliseconds(key: &str, time: std::time::Duration) -> String {
    format!("{key} = \"{}ms\"", time.as_millis())
}

/// Letters and digits alone, 43 of them for 256 bits.
fn fresh_token() -> String {
    rand::rng()
        .sample_iter(Alphanumeric)
        .take(43)
        .map(char::from)
        .collect()
}

fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    let mut file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    io::Write::write_all(&mut file, format!("{secret}\n").as_bytes())
}
