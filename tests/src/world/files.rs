//! The folders and files of a world, which are those that the manual shows.
//!
//! ```text
//!   <folder>/ca.pem, operator.token, admin.token, drain.token, hook.journal
//!   <folder>/source/, target/                     the two Dovecots
//!   <folder>/control-plane-1/controlplane.toml    with routing.toml, tls/ and its store beside it
//!   <folder>/gateway-1/gateway.toml               with tls/, admin.token, drain.token and state/ beside it
//! ```
//!
//! A configuration is the example from the repository with this machine's values in place of the
//! example's, line by line: an example that no longer says what is replaced here fails every test.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::distr::Alphanumeric;

use crate::certs::{Authority, SERVER_NAMES};
use crate::cyrus::{self, Cyrus};
use crate::dovecot::{Dovecot, Role, Service};
use crate::network::Network;
use crate::postfix::Postfix;
use crate::tools::repository;

use super::link::Link;
use super::plane::{ControlPlane, DataPlane, Entrance};
use super::web::{self, Web};
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

const SIDECARS: Example = Example {
    file: "docs/examples/sidecars/routing.toml",
    text: include_str!("../../../docs/examples/sidecars/routing.toml"),
};

/// Everything comes from one address here, however much of it there is. And a Cyrus starts a program for the first
/// connection, which on a busy machine takes its time.
const LIMITS: &str = "[limits.connections]\nper_address = 19000\nper_network = 19000\n\
    [limits.backend]\nhandshake = \"30s\"\n";

/// The socket of look-ups, beside a data plane's configuration.
pub(super) const LOOKUPS: &str = "lookups";

/// A file of the repository that shows a whole configuration.
pub(super) struct Example {
    pub(super) file: &'static str,
    pub(super) text: &'static str,
}

impl Example {
    /// The example with every `(line, replacement)` carried out.
    pub(super) fn filled_in(&self, values: &[(&str, String)]) -> Result<String, WorldError> {
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
    /// Whether data planes come from networks of their own.
    pub(super) apart: bool,
    /// Whether clients enter by IPv6 as well.
    pub(super) both_families: bool,
    /// Whether mail is read by IMAP alone.
    pub(super) imap_alone: bool,
}

/// What the routing configuration tells of.
pub(super) struct Routing<'a> {
    /// The source and the target.
    pub(super) servers: [&'a Dovecot; 2],
    /// The Postfix beside each.
    pub(super) postfixes: Option<&'a [Postfix; 2]>,
    /// Whether mail systems deliver to both by LMTP.
    pub(super) deliveries: bool,
    /// The data plane beside each, where they are the only way to it.
    pub(super) sidecars: Option<&'a [DataPlane; 2]>,
    /// Whether mail arrives.
    pub(super) inbound_mail: bool,
    /// What a login without a domain means.
    pub(super) bare_names: BareNames,
    /// Who serves HTTP.
    pub(super) web: &'a Web,
    /// The Cyrus beside each, if they do.
    pub(super) cyruses: Option<&'a [Cyrus; 2]>,
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

    /// The token of who may have a data plane drained.
    pub(super) fn drain_token(&self) -> PathBuf {
        self.folder.join("drain.token")
    }

    /// Where the delta hook writes when it ran.
    pub(super) fn journal(&self) -> PathBuf {
        self.folder.join("hook.journal")
    }

    /// The password of all accounts, for a hook that copies what is reached by HTTP.
    fn dav_password(&self) -> PathBuf {
        self.folder.join("dav.password")
    }

    /// Writes it.
    pub(super) fn write_dav_password(&self, password: &str) -> io::Result<()> {
        write_secret(&self.dav_password(), password)
    }

    /// Writes what everybody reads.
    pub(super) fn write_shared(&self) -> io::Result<()> {
        fs::write(self.authority(), self.authority.pem())?;
        write_secret(&self.operator_token(), &fresh_token())?;
        write_secret(&self.admin_token(), &fresh_token())?;
        write_secret(&self.drain_token(), &fresh_token())
    }

    /// Writes the configuration of a data plane and what it names.
    pub(super) fn write_data_plane(
        &self,
        plane: &DataPlane,
        control_planes: &[ControlPlane],
        servers: [&Dovecot; 2],
    ) -> Result<(), WorldError> {
        let name = plane.plane.name();
        let folder = plane.plane.config().parent().unwrap_or(self.folder);
        let tls = folder.join("tls");
        fs::create_dir_all(&tls)?;
        fs::copy(self.authority(), tls.join("ca.pem"))?;
        fs::copy(self.admin_token(), folder.join("admin.token"))?;
        fs::copy(self.drain_token(), folder.join("drain.token"))?;
        self.authority.server()?.write(&tls, "mail")?;
        self.authority.client(name, &[])?.write(&tls, name)?;
        // What it shows to callers of the admin endpoint is a server's certificate.
        let address = plane.admin().ip().to_string();
        let names = [&SERVER_NAMES[..], &[&address]].concat();
        self.authority.server_named(&names)?.write(&tls, "admin")?;
        let endpoints: Vec<String> = control_planes
            .iter()
            .enumerate()
            .map(|(replica, control_plane)| {
                let link = plane.link(replica);
                let mut at = link.map_or(control_plane.data_planes(), Link::addr);
                if let Some(network) = plane.plane.network() {
                    at.set_ip(network.outside());
                }
                format!("\"https://{at}\"")
            })
            .collect();
        let limits = self.limits;
        let mut values = vec![
            (
                "cert_file = \"tls/mail.pem\"\nkey_file = \"tls/mail.key\"\ntoken_file",
                "cert_file = \"tls/admin.pem\"\nkey_file = \"tls/admin.key\"\ntoken_file".into(),
            ),
            (
                "instance = \"gateway-1\"",
                format!("instance = \"{name}\"{}", group(plane)),
            ),
            (
                "token_file = \"admin.token\"",
                "token_file = \"admin.token\"\ndrain_token_file = \"drain.token\"".into(),
            ),
            ("tls/gateway-1.pem", format!("tls/{name}.pem")),
            ("tls/gateway-1.key", format!("tls/{name}.key")),
            ("\"https://127.0.0.1:9081\"", endpoints.join(", ")),
            ("\"127.0.0.1:9443\"", format!("\"{}\"", plane.admin_bound())),
        ];
        if self.apart {
            let known = "ca_file = \"tls/ca.pem\"";
            values.push((
                known,
                format!("{known}\nserver_name = \"mail.example.org\""),
            ));
        }
        let listeners: Vec<_> = Entrance::ALL
            .iter()
            .map(|entrance| format!("\"0.0.0.0:{}\"", entrance.well_known()))
            .collect();
        for (listener, entrance) in listeners.iter().zip(Entrance::ALL) {
            let bound = plane.bound(entrance);
            values.push((listener, format!("\"{bound}\"{}", believed(plane))));
        }
        let mut text = GATEWAY.filled_in(&values)?;
        if self.imap_alone {
            text = without_listeners(&text, &["pop3", "managesieve"]);
        }
        let submission = plane
            .submission_bound()
            .map(|bound| submission_listeners(bound, &believed(plane)));
        let deliveries = plane
            .deliveries_bound()
            .map(|bound| delivery_listeners(bound, plane.plane.network()));
        let sixth = Entrance::ALL.map(|entrance| listener_6(entrance, plane.addr(entrance).port()));
        let sixth = if self.both_families {
            sixth.concat()
        } else {
            String::new()
        };
        let mx = plane.mx().map(pass_throughs).unwrap_or_default()
            + &plane.smtp().map(smtp_listener).unwrap_or_default()
            + &plane.web_bound().map(web::listener).unwrap_or_default();
        let text = format!(
            "{text}\n{}{}{sixth}{mx}{}{LIMITS}[limits.hold]\nper_name_and_address = 500\n{}\n[limits.relay]\n{}\n{}\n",
            submission.unwrap_or_default(),
            deliveries.unwrap_or_default(),
            lookups(plane, servers),
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
                format!("\"{}\"", self.bound(replica.data_planes())),
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

    /// Where something is bound that data planes reach at `address` if they are not in networks of their own.
    fn bound(&self, address: SocketAddr) -> SocketAddr {
        if self.apart {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()))
        } else {
            address
        }
    }

    /// The routing configuration.
    pub(super) fn routing(&self) -> PathBuf {
        self.folder.join("routing.toml")
    }

    /// Writes the routing configuration.
    pub(super) fn write_routing(&self, routing: &Routing<'_>) -> Result<(), WorldError> {
        let text = match routing.web {
            Web::Shipped(shipped) => web::shipped(shipped, routing.servers)?,
            _ => routing_text(routing)?,
        };
        fs::write(self.routing(), text)?;
        Ok(())
    }
}

/// A data plane's configuration without the listeners for some protocols, which each end with an empty line.
fn without_listeners(text: &str, protocols: &[&str]) -> String {
    let is_left = |section: &&str| {
        let is_for = |protocol| section.contains(&format!("protocol = \"{protocol}\"\n"));
        !protocols.iter().any(is_for)
    };
    let sections: Vec<_> = text.split("\n\n").filter(is_left).collect();
    sections.join("\n\n")
}

/// The example with what else a world has.
fn routing_text(routing: &Routing<'_>) -> Result<String, WorldError> {
    let bare_names = match routing.bare_names {
        BareNames::OfDefaultDomain => "{ default_domain = \"example.org\" }",
        BareNames::Listed => "\"listed\"",
    };
    let bare_names = (
        "bare_names = { default_domain = \"example.org\" }",
        format!("bare_names = {bare_names}"),
    );
    let text = match routing.sidecars {
        None => {
            let values = [vec![bare_names], through_gateways(routing.servers)].concat();
            ROUTING.filled_in(&values)?
        }
        Some(sidecars) => {
            let ways = through_sidecars(routing.servers, sidecars);
            let ways = ways
                .iter()
                .map(|(example, ours)| (&**example, ours.clone()));
            let values: Vec<_> = ways.chain([bare_names]).collect();
            SIDECARS.filled_in(&values)?
        }
    };
    let text = match routing.postfixes {
        Some(postfixes) => {
            let mx = routing.inbound_mail;
            with_postfixes(&text, postfixes, routing.sidecars, mx)?
        }
        None => text,
    };
    let text = if routing.deliveries {
        with_deliveries(&text, routing.servers, routing.sidecars)?
    } else {
        text
    };
    match (routing.web, routing.cyruses) {
        (Web::Sites(sites), _) => web::with_sites(&text, sites),
        (_, Some(cyruses)) => web::with_cyruses(&text, cyruses),
        _ => Ok(text),
    }
}

/// Where the servers really are, in place of where the example has them.
fn through_gateways([source, target]: [&Dovecot; 2]) -> Vec<(&'static str, String)> {
    let at = |server: &Dovecot, service| reached(server.addr(service));
    vec![
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
    ]
}

/// The same where each server is reached by its own data plane alone, and by the other one through that.
fn through_sidecars(servers: [&Dovecot; 2], sidecars: &[DataPlane; 2]) -> Vec<(String, String)> {
    const ENTRANCES: [Entrance; 3] = [Entrance::Imaps, Entrance::Pop3s, Entrance::Sieve];
    let services = [
        [Service::Imaps, Service::Pop3s, Service::Sieve],
        [Service::Imap, Service::Pop3, Service::Sieve],
    ];
    let examples = ["old.example.org", "new.example.org"];
    let ports = [[993, 995, 4190], [143, 110, 4190]];
    let mut ways = Vec::new();
    for side in 0..2 {
        let host = examples[side];
        let (role, other) = (servers[side].role().name(), servers[1 - side].role().name());
        for ((service, port), entrance) in services[side].iter().zip(ports[side]).zip(ENTRANCES) {
            ways.push((
                format!(
                    "when = {{ group = \"{role}\" }}\nhost = \"127.0.0.1\"\nport = {port}\n\
                     server_name = \"{host}\""
                ),
                format!(
                    "when = {{ group = \"{role}\" }}\n{}",
                    reached(servers[side].addr(*service))
                ),
            ));
            // Only the other one's data plane takes this way.
            let mut at = sidecars[side].addr(entrance);
            if let Some(network) = sidecars[1 - side].plane.network() {
                at.set_ip(network.neighbour());
            }
            ways.push((
                format!(
                    "when = {{ group = \"{other}\" }}\nhost = \"{host}\"\nport = {}",
                    entrance.well_known()
                ),
                format!("when = {{ group = \"{other}\" }}\n{}", reached(at)),
            ));
        }
    }
    ways
}

/// How an endpoint says where it is, and who vouches for it.
pub(super) fn reached(address: SocketAddr) -> String {
    format!(
        "host = \"{}\"\nport = {}\nca_file = \"ca.pem\"\nserver_name = \"mail.example.org\"",
        address.ip(),
        address.port(),
    )
}

/// The data planes that a routing configuration by group means.
fn group(plane: &DataPlane) -> String {
    let group = |role: Role| format!("\ngroup = \"{}\"", role.name());
    plane.beside.map_or_else(String::new, group)
}

/// Whose PROXY header is believed beside a server: the other one's data plane's.
fn believed(plane: &DataPlane) -> String {
    let from =
        |network: &Network| format!("\nproxy_protocol_from = [\"{}/32\"]", network.neighbour());
    plane.plane.network().map_or_else(String::new, from)
}

/// Where mail systems ask for the way to either server: Postfix, over the network and at a file beside the data plane's
/// configuration, for whoever is on this machine; others by HTTP; and Exim, at any free port, which the data plane's log
/// names. The way is through the data plane itself, where it takes deliveries.
fn lookups(plane: &DataPlane, servers: [&Dovecot; 2]) -> String {
    let [postfix, exim] = ["lmtp:inet:@:", "@::"].map(|form| {
        let hop = |server: &Dovecot| {
            let at = plane.deliveries().unwrap_or(server.addr(Service::Lmtp));
            let way = form.replace('@', &at.ip().to_string());
            format!("\"{} {way}{}\"", server.role().name(), at.port())
        };
        servers.map(hop).join(", ")
    });
    let listener = |name: &str, protocol: &str, place: &str, hops: &str| {
        format!(
            "[[lookups]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\n{place}\nnext_hops = [{hops}]\n\n"
        )
    };
    let address = |at: SocketAddr| format!("address = \"{at}\"");
    let [socketmap, http] = plane.lookups().map(address);
    let file = format!("socket = \"{LOOKUPS}\"\nmode = \"666\"");
    [
        listener("lookups", "socketmap", &socketmap, &postfix),
        listener("lookups-file", "socketmap", &file, &postfix),
        listener("lookups-http", "http", &http, &postfix),
        listener(
            "lookups-exim",
            "socketmap",
            "address = \"127.0.0.1:0\"",
            &exim,
        ),
    ]
    .concat()
}

/// What lets clients submit: with STARTTLS by either family, and over TLS.
fn submission_listeners(bound: [SocketAddr; 2], believed: &str) -> String {
    let sixth = format!("[::1]:{}", bound[0].port());
    let [starttls, tls] = bound.map(|address| address.to_string());
    listener("submission", "submission", "starttls", &starttls, believed)
        + &listener("submission-6", "submission", "starttls", &sixth, "")
        + &listener("submissions", "submission", "implicit", &tls, believed)
}

/// What lets clients enter at this port of `::1`.
fn listener_6(entrance: Entrance, port: u16) -> String {
    let (protocol, tls) = match entrance {
        Entrance::Imaps => ("imap", "implicit"),
        Entrance::Imap => ("imap", "starttls"),
        Entrance::Pop3s => ("pop3", "implicit"),
        Entrance::Pop3 => ("pop3", "starttls"),
        Entrance::Sieve => ("managesieve", "starttls"),
    };
    let name = format!("{}-6", entrance.name().to_lowercase());
    listener(&name, protocol, tls, &format!("[::1]:{port}"), "")
}

/// Where mail arrives for the target, by both families.
fn pass_throughs(at: SocketAddr) -> String {
    let through = |name: &str, address: &str| {
        format!(
            "[[pass_throughs]]\nname = \"{name}\"\naddress = \"{address}\"\ndestination = \"target\"\n\n"
        )
    };
    through("mx", &at.to_string()) + &through("mx-6", &format!("[::1]:{}", at.port()))
}

/// Where mail is taken by SMTP for either server.
fn smtp_listener(at: SocketAddr) -> String {
    format!(
        "[[deliveries]]\nname = \"smtp\"\nprotocol = \"smtp\"\naddress = \"{at}\"\n\
         certificates = [{{ cert_file = \"tls/mail.pem\", key_file = \"tls/mail.key\" }}]\n\n"
    )
}

/// A listener; what it believes begins with a line's end.
fn listener(name: &str, protocol: &str, tls: &str, address: &str, believed: &str) -> String {
    format!(
        "[[listeners]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\naddress = \"{address}\"{believed}\n\
         tls = \"{tls}\"\ncertificates = [{{ cert_file = \"tls/mail.pem\", key_file = \"tls/mail.key\" }}]\n\n"
    )
}

/// The routing configuration with a Postfix at each destination: the source's believes XCLIENT, the target's a PROXY
/// header, and so does the other one's data plane, where that is the only way. Where mail arrives, both believe a PROXY
/// header.
fn with_postfixes(
    text: &str,
    postfixes: &[Postfix; 2],
    sidecars: Option<&[DataPlane; 2]>,
    inbound_mail: bool,
) -> Result<String, WorldError> {
    const SECOND: &str = "[[destinations]]\nid = \"target\"\n";
    let smtp = |side: usize| {
        let at = reached(postfixes[side].mx());
        format!(
            "[[destinations.endpoints]]\nprotocol = \"smtp\"\n{at}\ntls = \"starttls\"\n\
             announcement = \"proxy_v2\"\n\n"
        )
    };
    let smtp = |side| {
        if inbound_mail {
            smtp(side)
        } else {
            String::new()
        }
    };
    let endpoint = |group: Option<Role>, at: SocketAddr, announcement: &str| {
        let when = |group: Role| format!("when = {{ group = \"{}\" }}\n", group.name());
        format!(
            "[[destinations.endpoints]]\nprotocol = \"submission\"\n{}{}\ntls = \"starttls\"\n\
             announcement = \"{announcement}\"\nauthorization_identity = \"honoured\"\n\
             master_separators = \"%\"\n\n",
            group.map_or_else(String::new, when),
            reached(at),
        )
    };
    let endpoints = |side: usize, announcement: &str| {
        let own = postfixes[side].addr();
        let Some(sidecars) = sidecars else {
            return endpoint(None, own, announcement);
        };
        let (beside, other) = (&sidecars[side], &sidecars[1 - side]);
        let port = beside.submission().map_or(0, |at| at.port());
        let foreign = other.plane.network().map(Network::neighbour);
        let foreign =
            foreign.map(|host| endpoint(other.beside, SocketAddr::new(host, port), "proxy_v2"));
        endpoint(beside.beside, own, announcement) + &foreign.unwrap_or_default()
    };
    let (first, second) = text.split_once(SECOND).ok_or(WorldError::Example {
        example: ROUTING.file,
        line: SECOND.to_owned(),
    })?;
    let source = endpoints(0, "xclient") + &smtp(0);
    let target = endpoints(1, "proxy_v2") + &smtp(1);
    Ok(format!("{first}{source}{SECOND}\n{target}{second}"))
}

/// What lets mail systems deliver: over TCP, in clear and by STARTTLS, and over a socket in the file system. In a network
/// of its own it lets in who reaches it.
fn delivery_listeners([clear, secure]: [SocketAddr; 2], network: Option<&Network>) -> String {
    let from = network.map_or("", |_| "from = [\"0.0.0.0/0\"]\n");
    format!(
        "[[deliveries]]\nname = \"lmtp\"\nprotocol = \"lmtp\"\naddress = \"{clear}\"\n{from}\n\
         [[deliveries]]\nname = \"lmtp-tls\"\nprotocol = \"lmtp\"\naddress = \"{secure}\"\n{from}\
         certificates = [{{ cert_file = \"tls/mail.pem\", key_file = \"tls/mail.key\" }}]\n\n\
         [[deliveries]]\nname = \"lmtp-local\"\nprotocol = \"lmtp\"\nsocket = \"lmtp\"\nmode = \"0600\"\n\n"
    )
}

/// The routing configuration with LMTP at both destinations: the source believes XCLIENT. Where each has a data plane
/// beside it, the other one goes through that, over TLS.
fn with_deliveries(
    text: &str,
    servers: [&Dovecot; 2],
    sidecars: Option<&[DataPlane; 2]>,
) -> Result<String, WorldError> {
    const SECOND: &str = "[[destinations]]\nid = \"target\"\n";
    let when = |plane: &DataPlane| match plane.beside {
        Some(role) => format!("when = {{ group = \"{}\" }}\n", role.name()),
        None => String::new(),
    };
    let own = |side: usize, announcement: &str| {
        let at = servers[side].addr(Service::Lmtp);
        format!(
            "[[destinations.endpoints]]\nprotocol = \"lmtp\"\n{}host = \"{}\"\nport = {}\ntls = \"none\"\n\
             plaintext_consent = true\nannouncement = \"{announcement}\"\n\n",
            sidecars.map_or_else(String::new, |planes| when(&planes[side])),
            at.ip(),
            at.port(),
        )
    };
    let foreign = |side: usize| {
        let planes = sidecars?;
        let (beside, other) = (&planes[side], &planes[1 - side]);
        let port = beside.secure_deliveries()?.port();
        let at = SocketAddr::new(other.plane.network()?.neighbour(), port);
        Some(format!(
            "[[destinations.endpoints]]\nprotocol = \"lmtp\"\n{}{}\ntls = \"starttls\"\n\
             announcement = \"none\"\n\n",
            when(other),
            reached(at),
        ))
    };
    let (first, second) = text.split_once(SECOND).ok_or(WorldError::Example {
        example: ROUTING.file,
        line: SECOND.to_owned(),
    })?;
    let endpoints =
        |side, announcement| own(side, announcement) + &foreign(side).unwrap_or_default();
    let (source, target) = (endpoints(0, "xclient"), endpoints(1, "none"));
    Ok(format!("{first}{source}{SECOND}\n{target}{second}"))
}

/// The delta hook as the control plane starts it. `sites`: the folders of two servers of HTTP, whose files it copies.
pub(super) fn hook_command(
    source: &Dovecot,
    target: &Dovecot,
    sites: Option<&[PathBuf; 2]>,
    journal: &Path,
) -> Vec<String> {
    let server = |server: &Dovecot| {
        format!(
            "{}={}",
            server.role().name(),
            server.configuration().display()
        )
    };
    let program = repository().join("tests/tools/delta-hook");
    let mut command = vec![
        program.display().to_string(),
        "--server".to_owned(),
        server(source),
        "--server".to_owned(),
        server(target),
        "--journal".to_owned(),
        journal.display().to_string(),
    ];
    for (role, folder) in [source.role(), target.role()]
        .iter()
        .zip(sites.into_iter().flatten())
    {
        command.push(format!("--site={}={}", role.name(), folder.display()));
    }
    command
}

/// What copies calendars and contacts, and runs the hook that is named behind it meanwhile.
pub(super) fn dav_command(files: &Files<'_>, servers: &[Cyrus; 2]) -> Vec<String> {
    let program = repository().join("tests/tools/dav-hook");
    let mut command = vec![program.display().to_string()];
    for server in servers {
        let at = server.addr(cyrus::Service::Http);
        command.push(format!("--dav={}={at}", server.role().name()));
    }
    command.push(format!(
        "--password-file={}",
        files.dav_password().display()
    ));
    command
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
