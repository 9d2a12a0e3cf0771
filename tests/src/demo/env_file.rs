//! `target/demo/env`: how those outside the repository find what runs.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::cyrus;
use crate::dovecot::{Dovecot, Role, Service};
use crate::postfix::Postfix;
use crate::world::{COMMAND_LINE, DataPlane, Entrance, World, program};

/// Writes the file so that it is there whole or not at all.
pub(super) fn write(world: &World, path: &Path) -> io::Result<()> {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, text(world))?;
    fs::rename(unfinished, path)
}

fn text(world: &World) -> String {
    let mut env = Env::default();
    env.comment(
        "What `make demo-up` has started. `make demo-down` stops it and removes this file.",
    );
    describe_clients_side(&mut env, world);
    describe_planes(&mut env, world);
    env.line("FERRYPOST_SOURCE", world.source().role().name());
    env.line("FERRYPOST_TARGET", world.target().role().name());
    describe_server(
        &mut env,
        "SOURCE",
        world.source(),
        world.postfix(Role::Source),
    );
    describe_server(
        &mut env,
        "TARGET",
        world.target(),
        world.postfix(Role::Target),
    );
    for (side, role) in [("SOURCE", Role::Source), ("TARGET", Role::Target)] {
        if let Some(cyrus) = world.cyrus(role) {
            env.comment("JMAP, CalDAV and CardDAV by Cyrus, over TLS");
            let port = cyrus.addr(cyrus::Service::Https).port().to_string();
            env.line(&format!("{side}_HTTPS_PORT"), &port);
        }
    }
    env.comment("Accounts on both servers. All live on the source by default; none has a record.");
    env.line("DEMO_ACCOUNTS", &world.accounts().join(" "));
    env.line("DEMO_PASSWORD", world.password());
    env.text
}

fn describe_clients_side(env: &mut Env, world: &World) {
    env.line("FERRYPOST_HOST", "127.0.0.1");
    env.path("FERRYPOST_CA", &world.authority());
    if let Some(control_plane) = world.control_planes().first() {
        env.line("FERRYPOST_GRPC", &control_plane.operators().to_string());
        env.line("FERRYPOST_GRPC_SCHEME", "http");
    }
    env.path("FERRYPOST_GRPC_TOKEN_FILE", &world.operator_token_file());
    describe_command_line(env, world);
    env.path("FERRYPOST_ADMIN_TOKEN_FILE", &world.admin_token_file());
}

/// What the command line reads, once it is exported.
fn describe_command_line(env: &mut Env, world: &World) {
    let (Ok(program), Some(replica)) = (program(COMMAND_LINE), world.control_planes().first())
    else {
        return;
    };
    env.comment("The command line: set -a; . target/demo/env; $FERRYPOST_CLI stats");
    env.path("FERRYPOST_CLI", &program);
    env.line(
        "FERRYPOST_ENDPOINT",
        &format!("http://{}", replica.operators()),
    );
    env.path("FERRYPOST_TOKEN_FILE", &world.operator_token_file());
}

fn describe_planes(env: &mut Env, world: &World) {
    let count = world.data_planes().len();
    env.line("FERRYPOST_DATAPLANES", &count.to_string());
    for (n, data_plane) in (1..).zip(world.data_planes()) {
        for entrance in Entrance::ALL {
            let port = data_plane.addr(entrance).port().to_string();
            env.line(&format!("FERRYPOST_{n}_{}_PORT", entrance.name()), &port);
        }
        if let Some(submission) = data_plane.submission() {
            let port = submission.port().to_string();
            env.line(&format!("FERRYPOST_{n}_SUBMISSION_PORT"), &port);
        }
        if let Some(submissions) = data_plane.submissions() {
            let port = submissions.port().to_string();
            env.line(&format!("FERRYPOST_{n}_SUBMISSIONS_PORT"), &port);
        }
        describe_ways_of_mail(env, n, data_plane);
        if let Some(web) = data_plane.web() {
            let port = web.port().to_string();
            env.line(&format!("FERRYPOST_{n}_HTTPS_PORT"), &port);
        }
        let admin = data_plane.admin().to_string();
        env.line(&format!("FERRYPOST_{n}_ADMIN"), &admin);
        let plane = &data_plane.plane;
        if let Some(id) = plane.id() {
            env.line(&format!("FERRYPOST_{n}_PID"), &id.to_string());
        }
        env.path(&format!("FERRYPOST_{n}_LOG"), plane.log().path());
        env.path(&format!("FERRYPOST_{n}_CONFIG"), plane.config());
    }
    if let Some(control_plane) = world.control_planes().first() {
        let admin = control_plane.admin().to_string();
        env.line("FERRYPOST_CONTROLPLANE_ADMIN", &admin);
        let plane = &control_plane.plane;
        if let Some(id) = plane.id() {
            env.line("FERRYPOST_CONTROLPLANE_PID", &id.to_string());
        }
        env.path("FERRYPOST_CONTROLPLANE_LOG", plane.log().path());
        env.path("FERRYPOST_CONTROLPLANE_CONFIG", plane.config());
    }
    env.path("FERRYPOST_ROUTING_CONFIG", &world.routing_config());
}

/// Where mail systems connect to a data plane.
fn describe_ways_of_mail(env: &mut Env, n: usize, data_plane: &DataPlane) {
    let [socketmap, lookup] = data_plane.lookups().map(Some);
    for (name, at) in [
        ("SMTP", data_plane.mx()),
        ("LMTP", data_plane.deliveries()),
        ("SOCKETMAP", socketmap),
        ("LOOKUP", lookup),
    ] {
        if let Some(at) = at {
            env.line(
                &format!("FERRYPOST_{n}_{name}_PORT"),
                &at.port().to_string(),
            );
        }
    }
}

/// The port of the Postfix beside a Dovecot, in place of the Dovecot's own submission.
fn describe_postfix(env: &mut Env, side: &str, server: &Postfix) {
    let behind = match side {
        "TARGET" => ", behind a PROXY v1 or v2 header",
        _ => "; XCLIENT is believed from loopback",
    };
    env.comment(&format!(
        "submission by Postfix with STARTTLS{behind}; takes a cleartext login, throws messages away"
    ));
    env.line(
        &format!("{side}_SUBMISSION_PORT"),
        &server.addr().port().to_string(),
    );
    env.path(&format!("{side}_SUBMISSION_LOG"), server.log().path());
    env.comment(
        "SMTP with STARTTLS, behind a PROXY v1 or v2 header; goes where Ferrypost's socketmap says",
    );
    env.line(
        &format!("{side}_SMTP_PORT"),
        &server.mx().port().to_string(),
    );
}

fn describe_server(env: &mut Env, side: &str, server: &Dovecot, postfix: Option<&Postfix>) {
    if let Some(postfix) = postfix {
        describe_postfix(env, side, postfix);
    }
    let is_shown = |service: &Service| *service != Service::Submission || postfix.is_none();
    for service in Service::ALL.into_iter().filter(is_shown) {
        let (name, speaks) = spoken(service);
        let behind = match (side, service) {
            (
                "TARGET",
                Service::Imap | Service::Imaps | Service::Pop3 | Service::Pop3s | Service::Sieve,
            ) => ", behind a PROXY v1 or v2 header",
            _ => "",
        };
        env.comment(&format!("{speaks}{behind}"));
        let port = server.addr(service).port().to_string();
        env.line(&format!("{side}_{name}_PORT"), &port);
    }
    env.path(&format!("{side}_LOG"), server.log().path());
    env.path(&format!("{side}_MAIL"), &server.mail());
}

/// A service's name here, and what it speaks. Cleartext logins are taken on all of them.
fn spoken(service: Service) -> (&'static str, &'static str) {
    match service {
        Service::Imap => ("IMAP", "IMAP with STARTTLS; takes a cleartext login"),
        Service::Imaps => ("IMAPS", "IMAP over TLS"),
        Service::Pop3 => ("POP3", "POP3 with STLS; takes a cleartext login"),
        Service::Pop3s => ("POP3S", "POP3 over TLS"),
        Service::Sieve => (
            "SIEVE",
            "ManageSieve with STARTTLS; takes a cleartext login",
        ),
        Service::Submission => (
            "SUBMISSION",
            "submission with STARTTLS; takes a cleartext login, relays to port 25 of 127.0.0.1",
        ),
        Service::Lmtp => ("LMTP", "LMTP in clear"),
        Service::Auth => ("AUTH", "Dovecot's authentication protocol, for a Postfix"),
    }
}

/// Lines that a shell reads without expanding anything.
#[derive(Default)]
struct Env {
    text: String,
}

impl Env {
    fn comment(&mut self, words: &str) {
        self.add(format_args!("# {words}"));
    }

    fn line(&mut self, name: &str, value: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/.:@_,+-".contains(c);
        if value.chars().all(plain) {
            self.add(format_args!("{name}={value}"));
        } else {
            let escaped = value.chars().fold(String::new(), |mut text, c| {
                if "\\\"$`".contains(c) {
                    text.push('\\');
                }
                text.push(c);
                text
            });
            self.add(format_args!("{name}=\"{escaped}\""));
        }
    }

    fn path(&mut self, name: &str, path: &Path) {
        self.line(name, &path.display().to_string());
    }

    fn add(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("writing to a String cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        let mut env = Env::default();
        env.line("A", "/tmp/x.pem");
        env.line("B", "alice@example.org bob@example.org");
        assert_eq!(
            env.text,
            "A=/tmp/x.pem\nB=\"alice@example.org bob@example.org\"\n"
        );
    }
}
