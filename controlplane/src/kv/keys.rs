//! Every key of the installation, built and parsed in this one place.
//!
//! ```text
//! /meta/installation  /meta/head  /meta/fleet  /meta/rewound  /config/current  /leader  /secrets/cookies
//! /accounts/<bucket>/<account>            /names/<bucket>/<canonical name>
//! /registrations/<instance>               /live/<instance>
//! /departed/<instance>/<boot>             /expelled/<instance>/<boot>
//! /claims/<instance>
//! /migrations/<migration>                 /drained/<migration>/<instance>
//! /requests/<request id>
//! /commands/<replica>/<command>           /results/<command>/<instance>
//! ```
//!
//! A *bucket* is two hex digits of a hash, so that a million accounts are 256 small ranges: etcd 3.4
//! pages one large range in quadratic time. The identifiers in a key cannot contain `/`; what can (a
//! name, a request id) stands last.

use std::sync::Arc;

use ferrypost_proto::{AccountId, BootId, InstanceId, MigrationId, ReplicaId};
use sha2::{Digest as _, Sha256};

/// How many buckets accounts and names are spread over.
pub const BUCKETS: u16 = 256;

/// The installation's id and base.
pub const INSTALLATION: &[u8] = b"/meta/installation";
/// The nonce of the last change of routing.
pub const HEAD: &[u8] = b"/meta/head";
/// Its store revision is the registration set's revision.
pub const FLEET: &[u8] = b"/meta/fleet";
/// Proof of a restore.
pub const REWOUND: &[u8] = b"/meta/rewound";
/// The routing configuration.
pub const CONFIG: &[u8] = b"/config/current";
/// The keys of cookies. A secret: nothing but the stream says it.
pub const COOKIE_KEYS: &[u8] = b"/secrets/cookies";
/// Who drives migrations. Its store revision is the fencing token.
pub const LEADER: &[u8] = b"/leader";

/// The prefix of all registrations.
pub const REGISTRATIONS: &[u8] = b"/registrations/";
/// The prefix of all unsettled goodbyes.
pub const DEPARTED: &[u8] = b"/departed/";
/// The prefix of all expelled boots.
pub const EXPELLED: &[u8] = b"/expelled/";
/// The prefix of what connected data planes have said.
pub const LIVE: &[u8] = b"/live/";
/// The prefix of refused claims.
pub const CLAIMS: &[u8] = b"/claims/";
/// The prefix of all migrations.
pub const MIGRATIONS: &[u8] = b"/migrations/";
/// The prefix of all drained reports.
pub const DRAINED: &[u8] = b"/drained/";
/// The prefix of commands to other replicas.
pub const COMMANDS: &[u8] = b"/commands/";
/// The prefix of results of commands.
pub const RESULTS: &[u8] = b"/results/";

/// A key of this version, by what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// `/meta/installation`
    Installation,
    /// `/meta/head`
    Head,
    /// `/meta/fleet`
    Fleet,
    /// `/meta/rewound`
    Rewound,
    /// `/config/current`
    Config,
    /// `/secrets/cookies`
    CookieKeys,
    /// `/accounts/<bucket>/<account>`
    Account(AccountId),
    /// `/names/<bucket>/<canonical name>`
    Name(Arc<str>),
    /// `/registrations/<instance>`
    Registration(InstanceId),
    /// `/departed/<instance>/<boot>`
    Departed(InstanceId, BootId),
    /// `/expelled/<instance>/<boot>`
    Expelled(InstanceId, BootId),
    /// `/live/<instance>`
    Live(InstanceId),
    /// `/claims/<instance>`
    Claim(InstanceId),
    /// `/migrations/<migration>`
    Migration(MigrationId),
    /// `/requests/<request id>`
    Request(Box<str>),
    /// `/drained/<migration>/<instance>`
    Drained(MigrationId, InstanceId),
    /// `/commands/<replica>/<command>`
    Command(ReplicaId, Box<str>),
    /// `/results/<command>/<instance>`
    CommandResult(Box<str>, InstanceId),
    /// `/leader`
    Leader,
}

impl Key {
    /// What a key belongs to; `None` for a key of a version that this one does not know. A key in
    /// the wrong bucket is not known either: nobody would find it again.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(key).ok()?.strip_prefix('/')?;
        let (kind, rest) = text.split_once('/').unwrap_or((text, ""));
        Some(match kind {
            "meta" => match rest {
                "installation" => Self::Installation,
                "head" => Self::Head,
                "fleet" => Self::Fleet,
                "rewound" => Self::Rewound,
                _ => return None,
            },
            "config" if rest == "current" => Self::Config,
            "secrets" if rest == "cookies" => Self::CookieKeys,
            "leader" if key == LEADER => Self::Leader,
            "accounts" => Self::Account(AccountId::parse(bucketed(rest)?).ok()?),
            "names" => Self::Name(bucketed(rest)?.into()),
            "registrations" => Self::Registration(InstanceId::parse(rest).ok()?),
            "live" => Self::Live(InstanceId::parse(rest).ok()?),
            "claims" => Self::Claim(InstanceId::parse(rest).ok()?),
            "departed" => {
                let (instance, boot) = one_life(rest)?;
                Self::Departed(instance, boot)
            }
            "expelled" => {
                let (instance, boot) = one_life(rest)?;
                Self::Expelled(instance, boot)
            }
            "migrations" => Self::Migration(MigrationId::parse(rest).ok()?),
            "requests" if !rest.is_empty() => Self::Request(rest.into()),
            "drained" => {
                let (migration, instance) = rest.split_once('/')?;
                Self::Drained(
                    MigrationId::parse(migration).ok()?,
                    InstanceId::parse(instance).ok()?,
                )
            }
            "commands" => {
                let (replica, command) = rest.split_once('/')?;
                Self::Command(ReplicaId::parse(replica).ok()?, command.into())
            }
            "results" => {
                let (command, instance) = rest.split_once('/')?;
                Self::CommandResult(command.into(), InstanceId::parse(instance).ok()?)
            }
            _ => return None,
        })
    }
}

/// What stands behind the bucket, if it is the right bucket.
fn bucketed(rest: &str) -> Option<&str> {
    let (bucket, id) = rest.split_once('/')?;
    (!id.is_empty() && bucket == hex(bucket_of(id))).then_some(id)
}

fn one_life(rest: &str) -> Option<(InstanceId, BootId)> {
    let (instance, boot) = rest.split_once('/')?;
    Some((InstanceId::parse(instance).ok()?, BootId::parse(boot).ok()?))
}

/// The bucket of an account id or a name: the first byte of its SHA-256, which no version may change.
pub fn bucket_of(id: &str) -> u8 {
    Sha256::digest(id.as_bytes())[0]
}

fn hex(bucket: u8) -> String {
    format!("{bucket:02x}")
}

/// The record of an account.
pub fn account(id: &AccountId) -> Vec<u8> {
    let id = id.as_str();
    format!("/accounts/{}/{id}", hex(bucket_of(id))).into_bytes()
}

/// The prefix of all records in a bucket.
pub fn account_bucket(bucket: u8) -> Vec<u8> {
    format!("/accounts/{}/", hex(bucket)).into_bytes()
}

/// The account of a canonical name.
pub fn name(canonical: &str) -> Vec<u8> {
    format!("/names/{}/{canonical}", hex(bucket_of(canonical))).into_bytes()
}

/// The prefix of all names in a bucket.
pub fn name_bucket(bucket: u8) -> Vec<u8> {
    format!("/names/{}/", hex(bucket)).into_bytes()
}

/// The registration of a data plane.
pub fn registration(instance: &InstanceId) -> Vec<u8> {
    format!("/registrations/{instance}").into_bytes()
}

/// The unsettled goodbye of a boot.
pub fn departed(instance: &InstanceId, boot: &BootId) -> Vec<u8> {
    format!("/departed/{instance}/{boot}").into_bytes()
}

/// The operator's word that a boot is dead.
pub fn expelled(instance: &InstanceId, boot: &BootId) -> Vec<u8> {
    format!("/expelled/{instance}/{boot}").into_bytes()
}

/// What a connected data plane has said.
pub fn live(instance: &InstanceId) -> Vec<u8> {
    format!("/live/{instance}").into_bytes()
}

/// The claim to a data plane's place that was refused.
pub fn claim(instance: &InstanceId) -> Vec<u8> {
    format!("/claims/{instance}").into_bytes()
}

/// A migration.
pub fn migration(id: &MigrationId) -> Vec<u8> {
    format!("/migrations/{id}").into_bytes()
}

/// The prefixes that together hold all migrations, each a small part of them: an identifier's first
/// random character.
pub fn migration_slices() -> impl Iterator<Item = Vec<u8>> {
    (b'0'..=b'9')
        .chain(b'a'..=b'z')
        .map(|first| format!("/migrations/move-{}", char::from(first)).into_bytes())
}

/// The prefixes that together hold all request ids, each a part of them: an id's first character.
pub fn request_slices() -> impl Iterator<Item = Vec<u8>> {
    (b' '..=b'~').map(|first| format!("/requests/{}", char::from(first)).into_bytes())
}

/// The migration that a request id has started. `id` is 1 to 128 printable ASCII characters.
pub fn request(id: &str) -> Vec<u8> {
    format!("/requests/{id}").into_bytes()
}

/// A data plane's drained report.
pub fn drained(migration: &MigrationId, instance: &InstanceId) -> Vec<u8> {
    format!("/drained/{migration}/{instance}").into_bytes()
}

/// A command for a data plane that `replica` serves.
pub fn command(replica: &ReplicaId, id: &str) -> Vec<u8> {
    format!("/commands/{replica}/{id}").into_bytes()
}

/// The result of a command.
pub fn command_result(command: &str, instance: &InstanceId) -> Vec<u8> {
    format!("/results/{command}/{instance}").into_bytes()
}

#[cfg(test)]
mod tests {
    use ferrypost_runtime::Random;

    use super::*;

    fn instance() -> InstanceId {
        InstanceId::parse("dp-1.mail").unwrap()
    }

    #[test]
    fn every_key_is_parsed_back() {
        let random = Random::seeded(1);
        let account_id = AccountId::generate(random.bytes());
        let migration_id = MigrationId::generate(random.bytes());
        let boot = BootId::generate(random.bytes());
        let replica = ReplicaId::parse("cp-1").unwrap();
        let cases = [
            (INSTALLATION.to_vec(), Key::Installation),
            (HEAD.to_vec(), Key::Head),
            (FLEET.to_vec(), Key::Fleet),
            (REWOUND.to_vec(), Key::Rewound),
            (CONFIG.to_vec(), Key::Config),
            (COOKIE_KEYS.to_vec(), Key::CookieKeys),
            (LEADER.to_vec(), Key::Leader),
            (account(&account_id), Key::Account(account_id)),
            (name("a/b@example.org"), Key::Name("a/b@example.org".into())),
            (registration(&instance()), Key::Registration(instance())),
            (
                departed(&instance(), &boot),
                Key::Departed(instance(), boot.clone()),
            ),
            (
                expelled(&instance(), &boot),
                Key::Expelled(instance(), boot),
            ),
            (live(&instance()), Key::Live(instance())),
            (claim(&instance()), Key::Claim(instance())),
            (
                migration(&migration_id),
                Key::Migration(migration_id.clone()),
            ),
            (request("ticket/7 !"), Key::Request("ticket/7 !".into())),
            (
                drained(&migration_id, &instance()),
                Key::Drained(migration_id, instance()),
            ),
            (command(&replica, "c1"), Key::Command(replica, "c1".into())),
            (
                command_result("c1", &instance()),
                Key::CommandResult("c1".into(), instance()),
            ),
        ];
        for (key, meaning) in cases {
            assert_eq!(Key::parse(&key), Some(meaning), "{}", key.escape_ascii());
        }
    }

    #[test]
    fn what_is_not_ours_is_not_parsed() {
        let wrong_bucket = format!("/names/{:02x}/alice", bucket_of("alice") ^ 1);
        for key in [
            "",
            "meta/head",
            "/meta/other",
            "/leader/",
            "/accounts/00/alice",
            wrong_bucket.as_str(),
            "/names/2b/",
            "/requests/",
            "/live/UPPER",
            "/later/thing",
        ] {
            assert_eq!(Key::parse(key.as_bytes()), None, "{key}");
        }
    }

    /// The hash is part of the layout: another one would lose every record.
    #[test]
    fn buckets_stay_where_they_are() {
        assert_eq!(bucket_of("alice"), 0x2b);
        assert_eq!(name("alice"), b"/names/2b/alice");
        assert!(name("alice").starts_with(&name_bucket(0x2b)));
    }

    #[test]
    fn every_migration_lies_in_one_slice() {
        let id = MigrationId::generate(Random::seeded(5).bytes());
        let key = migration(&id);
        let slices: Vec<_> = migration_slices()
            .filter(|slice| key.starts_with(slice))
            .collect();
        assert_eq!(slices.len(), 1);
        assert!(slices[0].starts_with(MIGRATIONS));
    }
}
