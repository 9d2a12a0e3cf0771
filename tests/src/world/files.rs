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
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::distr::Alphanumeric;

use crate::certs::Authority;
use crate::dovecot::{Dovecot, Service};
use crate::tools::repository;

use super::plane::{ControlPlane, DataPlane};
use super::{BareNames, Limits, WorldError};

const GATEWAY: Example = Example {
    file: "dataplane/examples/gateway.toml",
    text: include_str!("../../../dataplane/examples/gateway.toml"),
};

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
            .map(|control_plane| format!("\"https://{}\"", control_plane.data_planes()))
            .collect();
        let limits = self.limits;
        let text = GATEWAY.filled_in(&[
            (
                "[admin]\n# listen = \"127.0.0.1:9443\"\ncert_file = \"tls/gateway-1.pem\"\nkey_file = \"tls/gateway-1.key\"",
                format!(
                    "[admin]\nlisten = \"{}\"\ncert_file = \"tls/admin.pem\"\nkey_file = \"tls/admin.key\"",
                    plane.admin()
                ),
            ),
            ("instance = \"gateway-1\"", format!("instance = \"{name}\"")),
            (
                "cert_file = \"tls/gateway-1.pem\"",
                format!("cert_file = \"tls/{name}.pem\""),
            ),
            (
                "key_file = \"tls/gateway-1.key\"",
                format!("key_file = \"tls/{name}.key\""),
            ),
            (
                "\"https://control-plane.example.org:7443\"",
                endpoints.join(", "),
            ),
            ("\"0.0.0.0:993\"", format!("\"{}\"", plane.imaps())),
            ("\"0.0.0.0:143\"", format!("\"{}\"", plane.imap())),
            ("# drain = \"10s\"", milliseconds("drain", limits.drain)),
            ("# timeout = \"25s\"", milliseconds("timeout", limits.hold)),
        ])?;
        fs::write(plane.plane.config(), text)?;
        Ok(())
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
        let hook = hook.map_or(String::new(), |command| {
            let words: Vec<String> = command.iter().map(|word| format!("{word:?}")).collect();
            format!(
                "\n[hooks.delta]\ncommand = [{}]\n{}\n",
                words.join(", "),
                milliseconds("timeout", limits.hook)
            )
        });
        let text = format!(
            "replica = \"{name}\"\n\n[store]\n{store}\n\n\
             [operators]\nlisten = \"{operators}\"\n\
             [[operators.tokens]]\nname = \"operator\"\nrole = \"admin\"\nfile = \"{token}\"\n\n\
             [data_planes]\nlisten = \"{data_planes}\"\n\
             [data_planes.tls]\ncert_file = \"tls/controlplane.pem\"\n\
             key_file = \"tls/controlplane.key\"\nclient_ca_file = \"tls/ca.pem\"\n\n\
             [routing]\nsource = \"file\"\nfile = \"{routing}\"\n\n\
             [migrations]\n{window}\n{settle}\n{heartbeat}\n{hook}",
            operators = replica.operators(),
            token = self.operator_token().display(),
            data_planes = replica.data_planes(),
            routing = self.routing().display(),
            window = milliseconds("window", limits.window),
            settle = milliseconds("settle", limits.settle),
            heartbeat = milliseconds("heartbeat", limits.heartbeat),
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
        bare_names: BareNames,
    ) -> Result<(), WorldError> {
        let bare_names = match bare_names {
            BareNames::OfDefaultDomain => "{ default_domain = \"example.org\" }",
            BareNames::Listed => "\"listed\"",
        };
        let endpoint = |server: &Dovecot, service, tls: &str, announcement: &str| {
            let address = server.addr(service);
            format!(
                "[[destinations]]\nid = \"{id}\"\n\n[[destinations.endpoints]]\nprotocol = \"imap\"\n\
                 host = \"{host}\"\nport = {port}\ntls = \"{tls}\"\nca_file = \"ca.pem\"\n\
                 server_name = \"mail.example.org\"\nannouncement = \"{announcement}\"\n",
                id = server.role().name(),
                host = address.ip(),
                port = address.port(),
            )
        };
        let text = format!(
            "default_destination = \"source\"\n\n[names]\nbare_names = {bare_names}\n\
             master_separators = \"%\"\n\n[[domains]]\nname = \"example.org\"\n\n{}\n{}",
            endpoint(source, Service::Imaps, "implicit", "imap_id"),
            endpoint(target, Service::Imap, "starttls", "proxy_v2"),
        );
        fs::write(self.routing(), text)?;
        Ok(())
    }
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
