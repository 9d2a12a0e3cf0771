//! What the programs of the rig read.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use crate::bench::protocol::Protocol;
use crate::ports::Port;

/// Sessions that each proxy has room for.
const SESSIONS: usize = 9000;

/// Ports in the order of [`Protocol::ALL`].
pub(super) type Ports = [Port; 4];

pub(super) fn reserve() -> std::io::Result<Ports> {
    let one = || Port::reserve();
    Ok([one()?, one()?, one()?, one()?])
}

fn by_protocol(ports: &Ports) -> impl Iterator<Item = (Protocol, SocketAddr)> {
    Protocol::ALL.into_iter().zip(ports.iter().map(Port::addr))
}

/// No resumption on either side, as here, and nothing read behind TLS. Everything else is its default.
pub(super) fn haproxy(ports: &Ports, backend: &Ports, certificate: &Path) -> String {
    let mut text = format!(
        "global\n nbthread {}\n maxconn {SESSIONS}\n tune.ssl.cachesize 0\n \
         ssl-default-bind-options no-tls-tickets\n\
         defaults\n mode tcp\n timeout connect 5s\n timeout client 35m\n timeout server 35m\n",
        threads()
    );
    for ((protocol, address), backend) in by_protocol(ports).zip(backend) {
        let (mode, alpn) = match protocol {
            Protocol::Http => (" mode http\n option forwardfor\n", " alpn h2,http/1.1"),
            _ => ("", ""),
        };
        _ = write!(
            text,
            "listen {}\n{mode} bind {address} ssl crt {}{alpn}\n server backend {}\n",
            protocol.name(),
            certificate.display(),
            backend.addr()
        );
    }
    text
}

/// A worker a core and no resumption, as here. TLS 1.3 is not among its defaults, and to log in to a submission server is not
/// either, nor to keep a server's connections. It logs no accesses, as HAProxy does not, and has more room for bodies.
pub(super) fn nginx(ports: &Ports, backend: &Ports, auth_http: &Port, module: &Path) -> String {
    let mut text = format!(
        "load_module {};\nworker_processes {};\ndaemon off;\npid nginx.pid;\nerror_log nginx-errors.log;\n\
         events {{ worker_connections {}; }}\n\
         mail {{\nserver_name mail.example;\nauth_http {}/;\n\
         ssl_certificate mail.pem;\nssl_certificate_key mail.key;\nssl_protocols TLSv1.2 TLSv1.3;\n\
         ssl_session_cache none;\nssl_session_tickets off;\n\
         imap_capabilities IMAP4rev1 LITERAL+ SASL-IR IDLE ID;\n\
         smtp_capabilities PIPELINING 8BITMIME;\nproxy_smtp_auth on;\nxclient off;\n",
        module.display(),
        threads(),
        2 * SESSIONS,
        auth_http.addr()
    );
    for (protocol, address) in by_protocol(ports) {
        let name = protocol.nginx_name();
        if protocol != Protocol::Http {
            _ = writeln!(text, "server {{ listen {address} ssl; protocol {name}; }}");
        }
    }
    let [.., web] = ports;
    let [.., backend] = backend;
    _ = write!(
        text,
        "}}\nhttp {{\naccess_log off;\nclient_max_body_size 16m;\nclient_body_temp_path nginx-bodies;\n\
         proxy_temp_path nginx-proxied;\nfastcgi_temp_path nginx-fastcgi;\nuwsgi_temp_path nginx-uwsgi;\n\
         scgi_temp_path nginx-scgi;\nkeepalive_requests 1000000;\n\
         ssl_certificate mail.pem;\nssl_certificate_key mail.key;\nssl_protocols TLSv1.2 TLSv1.3;\n\
         ssl_session_cache none;\nssl_session_tickets off;\n\
         map $http_upgrade $wanted {{ default upgrade; '' ''; }}\n\
         upstream backend {{ server {}; keepalive 64; keepalive_requests 1000000; }}\n\
         server {{ listen {} ssl http2; location / {{ proxy_pass http://backend; proxy_http_version 1.1;\n\
         proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $wanted;\n\
         proxy_read_timeout 35m; }} }}\n}}\n",
        backend.addr(),
        web.addr(),
    );
    text
}

/// Every client comes from one address. Everything else is the default, the log included. `mail_systems` are where mail
/// systems deliver and where they ask.
pub(super) fn data_plane(
    name: &str,
    ports: &Ports,
    mail_systems: &[Port; 2],
    streams: &Port,
    admin: &Port,
) -> String {
    let mut text = format!(
        "instance = \"{name}\"\nstate_directory = \"{name}-state\"\n\
         [control_plane]\nendpoints = [\"http://{}\"]\n\
         [admin]\nlisten = \"{}\"\ncert_file = \"mail.pem\"\nkey_file = \"mail.key\"\n\
         token_file = \"admin.token\"\n\
         [limits.connections]\ntotal = {SESSIONS}\nper_address = {SESSIONS}\nper_network = {SESSIONS}\n",
        streams.addr(),
        admin.addr()
    );
    let [deliveries, lookups] = mail_systems.each_ref().map(Port::addr);
    _ = write!(
        text,
        "[[deliveries]]\nname = \"lmtp\"\nprotocol = \"lmtp\"\naddress = \"{deliveries}\"\n\
         [[lookups]]\nname = \"transport\"\nprotocol = \"socketmap\"\naddress = \"{lookups}\"\n\
         next_hops = [\"in-clear lmtp:inet:127.0.0.1:24\", \"under-tls lmtp:inet:127.0.0.1:24\"]\n"
    );
    for (protocol, address) in by_protocol(ports) {
        let name = protocol.name();
        if protocol == Protocol::Http {
            _ = write!(
                text,
                "[[web]]\nname = \"{name}\"\naddress = \"{address}\"\n\
                 certificates = [{{ cert_file = \"mail.pem\", key_file = \"mail.key\" }}]\n"
            );
            continue;
        }
        _ = write!(
            text,
            "[[listeners]]\nname = \"{name}\"\nprotocol = \"{name}\"\naddress = \"{address}\"\n\
             tls = \"implicit\"\ncertificates = [{{ cert_file = \"mail.pem\", key_file = \"mail.key\" }}]\n"
        );
    }
    text
}

pub(super) fn control_plane(operators: &Port, streams: &Port) -> String {
    format!(
        "[store]\nkind = \"embedded\"\n[operators]\nlisten = \"{}\"\n\
         [data_planes]\nlisten = \"{}\"\n[routing]\nsource = \"file\"\nfile = \"routing.toml\"\n",
        operators.addr(),
        streams.addr()
    )
}

/// One server as two destinations, each for the names of a domain. Mail for either ends in the sink, if there is one.
pub(super) fn routing(in_clear: &Ports, under_tls: &Ports, sink: Option<SocketAddr>) -> String {
    let mut text = "default_destination = \"in-clear\"\n[names]\nbare_names = \"refuse\"\n\
                    [[domains]]\nname = \"clear.example\"\n\
                    [[domains]]\nname = \"tls.example\"\nunlisted = { destination = \"under-tls\" }\n"
        .to_owned();
    for (id, ports, tls) in [
        (
            "in-clear",
            in_clear,
            "tls = \"none\"\nplaintext_consent = true",
        ),
        (
            "under-tls",
            under_tls,
            "tls = \"implicit\"\nca_file = \"ca.pem\"",
        ),
    ] {
        _ = writeln!(text, "[[destinations]]\nid = \"{id}\"");
        for (protocol, address) in by_protocol(ports) {
            _ = writeln!(
                text,
                "[[destinations.endpoints]]\nprotocol = \"{}\"\nhost = \"{}\"\nport = {}\n\
                 announcement = \"{}\"\n{tls}",
                protocol.name(),
                address.ip(),
                address.port(),
                // Those beside us announce clients, too.
                if protocol == Protocol::Http {
                    "x_forwarded"
                } else {
                    "none"
                },
            );
        }
        if let Some(sink) = sink {
            _ = writeln!(
                text,
                "[[destinations.endpoints]]\nprotocol = \"lmtp\"\nhost = \"{}\"\nport = {}\n\
                 announcement = \"none\"\ntls = \"none\"\nplaintext_consent = true",
                sink.ip(),
                sink.port()
            );
        }
    }
    text + "[[http.rules]]\nname = \"accounts\"\naccount_from = [\"basic\"]\nwithout_account = \"challenge\"\n"
}

/// One a core.
pub(super) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
