//! What a world is to be, and how it is started.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::certs::Authority;
use crate::cyrus::{self, Cyrus};
use crate::dovecot::{Dovecot, Pace, Role, Service, Setup, scratch};
use crate::issuer::Issuer;
use crate::network::Network;
use crate::ports::Port;
use crate::postfix::{self, Arrival, Postfix};
use crate::turn::Turn;

use super::files::{Files, LOOKUPS, Routing, dav_command, hook_command, moody};
use super::link::Link;
use super::plane::{ControlPlane, DataPlane, Entrance, Plane, mark};
use super::programs::{CONTROL_PLANE, DATA_PLANE, program};
use super::web::{Shipped, Sites, Web};
use super::{BareNames, Etcd, Folder, Limits, StoreKind, World, WorldError};

/// Everybody's password.
pub const PASSWORD: &str = "correct-horse";

/// What a world is to be.
#[must_use]
pub struct Builder {
    data_planes: usize,
    control_planes: usize,
    store: StoreKind,
    delta_hook: bool,
    moods: Option<Moods>,
    links: bool,
    accounts: Vec<String>,
    bare_names: BareNames,
    limits: Limits,
    pace: Pace,
    issuer: Option<String>,
    data_plane_envs: Vec<(String, String)>,
    control_plane_envs: Vec<(String, String)>,
    survives: Option<Survival>,
    alone: bool,
    mail: Mail,
    arrival: Arrival,
    delivery: Delivery,
    shape: Shape,
    families: Families,
    web: Web,
    site_folders: Option<[PathBuf; 2]>,
}

/// How often the delta hook fails.
#[derive(Debug, Clone, Copy)]
struct Moods {
    seed: u64,
    percent: u32,
}

/// What is done with mail, each with what is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mail {
    Read,
    Submitted,
    Arrives,
    IsSplit,
}

/// By what mail systems deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Nobodys,
    Lmtp,
}

/// Where the data planes stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// In front of both servers.
    Gateways,
    /// One beside each server, in a network that the two have to themselves.
    Sidecars,
}

/// By which addresses clients enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Families {
    /// IPv4's.
    Fourth,
    /// IPv6's as well.
    Both,
}

/// Where a world lies that goes on after the process that started it.
struct Survival {
    folder: PathBuf,
    marks: PathBuf,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            data_planes: 2,
            control_planes: 1,
            store: StoreKind::Embedded,
            delta_hook: true,
            moods: None,
            links: false,
            accounts: numbered_accounts(4),
            bare_names: BareNames::OfDefaultDomain,
            limits: Limits::default(),
            pace: Pace::Hurried,
            issuer: None,
            data_plane_envs: Vec::new(),
            control_plane_envs: Vec::new(),
            survives: None,
            alone: false,
            mail: Mail::Read,
            arrival: Arrival::Direct,
            delivery: Delivery::Nobodys,
            shape: Shape::Gateways,
            families: Families::Fourth,
            web: Web::Nobodys,
            site_folders: None,
        }
    }

    /// How many data planes.
    pub fn data_planes(mut self, count: usize) -> Self {
        self.data_planes = count;
        self
    }

    /// How many replicas of the control plane. More than one needs [`StoreKind::Etcd`].
    pub fn control_planes(mut self, count: usize) -> Self {
        self.control_planes = count;
        self
    }

    /// Where the control plane keeps everything.
    pub fn store(mut self, store: StoreKind) -> Self {
        self.store = store;
        self
    }

    /// Whether moves run `tests/tools/delta-hook`.
    pub fn delta_hook(mut self, runs: bool) -> Self {
        self.delta_hook = runs;
        self
    }

    /// Lets the delta hook fail in so many of a hundred moves, in one of several ways
    /// (`tests/tools/moody-hook`).
    pub fn moody_hook(mut self, seed: u64, percent: u32) -> Self {
        self.moods = Some(Moods { seed, percent });
        self
    }

    /// Puts a [`Link`] between every data plane and every replica, and between every replica and its
    /// etcd.
    pub fn links(mut self) -> Self {
        self.links = true;
        self
    }

    /// The accounts, full addresses in `example.org`.
    pub fn accounts(mut self, accounts: &[&str]) -> Self {
        self.accounts = accounts.iter().map(|&account| account.to_owned()).collect();
        self
    }

    /// So many accounts, `user1@example.org` and on.
    pub fn numbered_accounts(mut self, count: usize) -> Self {
        self.accounts = numbered_accounts(count);
        self
    }

    /// What a login without a domain means.
    pub fn bare_names(mut self, bare_names: BareNames) -> Self {
        self.bare_names = bare_names;
        self
    }

    /// Times that decide how long things take.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether the two servers take their time; they hurry unless told otherwise.
    pub fn pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// The two servers take bearer tokens, and ask here whose they are; and so do the data planes.
    pub fn issuer(mut self, issuer: &Issuer) -> Self {
        self.issuer = Some(issuer.url());
        self
    }

    /// An environment variable for every data plane.
    pub fn data_plane_env(mut self, name: &str, value: &str) -> Self {
        self.data_plane_envs
            .push((name.to_owned(), value.to_owned()));
        self
    }

    /// An environment variable for every replica of the control plane.
    pub fn control_plane_env(mut self, name: &str, value: &str) -> Self {
        self.control_plane_envs
            .push((name.to_owned(), value.to_owned()));
        self
    }

    /// Lets everything run on after this process. It lies in `folder`, which is kept, and every
    /// process is written to the file `marks` as it is started, one line `<name> <id>@<started>` each.
    pub fn survives(mut self, folder: &Path, marks: &Path) -> Self {
        self.survives = Some(Survival {
            folder: folder.to_owned(),
            marks: marks.to_owned(),
        });
        self
    }

    /// Lets no other world of this process run meanwhile: for one that loads the machine, or measures.
    pub fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Adds submission: a Postfix beside each Dovecot. Only root can start one.
    pub fn postfixes(mut self) -> Self {
        self.mail = Mail::Submitted;
        self
    }

    /// Adds submission, and mail that arrives: every data plane passes it through to the target's Postfix, and at
    /// another port takes it by SMTP for either. Only root can start one.
    pub fn inbound_mail(mut self) -> Self {
        self.mail = Mail::Arrives;
        self
    }

    /// The same, and the Postfixes ask the first data plane for the way of each recipient, and deliver to the Dovecots:
    /// themselves, or through that data plane, in a world with [deliveries](Self::deliveries).
    pub fn split_mail(mut self) -> Self {
        self.mail = Mail::IsSplit;
        self
    }

    /// Puts postscreen before the smtpds at which mail arrives.
    pub fn postscreen(mut self) -> Self {
        self.arrival = Arrival::Screened;
        self
    }

    /// Lets mail systems deliver by LMTP, through every data plane to both Dovecots.
    pub fn deliveries(mut self) -> Self {
        self.delivery = Delivery::Lmtp;
        self
    }

    /// Puts each server into a network of its own with a data plane beside it, the first with the source and the second
    /// with the target. Only root can do that.
    pub fn sidecars(mut self) -> Self {
        self.shape = Shape::Sidecars;
        self.data_planes(2)
    }

    /// Lets clients enter at `::1` as well, at the same ports.
    pub fn both_families(mut self) -> Self {
        self.families = Families::Both;
        self
    }

    /// Adds HTTP: a Cyrus beside each Dovecot, and a listener at each data plane.
    pub fn cyruses(mut self) -> Self {
        self.web = Web::Cyruses;
        self
    }

    /// Adds HTTP that these servers serve, and a listener at each data plane.
    pub fn sites(mut self, sites: Sites) -> Self {
        self.web = Web::Sites(sites);
        self
    }

    /// Lets the delta hook copy the files of the [sites](Self::sites), which lie in these folders.
    pub fn site_folders(mut self, folders: [PathBuf; 2]) -> Self {
        self.site_folders = Some(folders);
        self
    }

    /// Lets the routing configuration be a shipped one with HTTP, which these servers serve, and adds a listener at each
    /// data plane. Nothing but IMAP and HTTP leads anywhere then.
    pub fn shipped(mut self, shipped: Shipped) -> Self {
        self.web = Web::Shipped(shipped);
        self
    }

    /// Starts everything and waits until every data plane accepts clients.
    ///
    /// # Errors
    /// When something is not built or installed, or does not come up; what was started is stopped
    /// again, unless it was to survive.
    pub async fn start(self) -> Result<World, WorldError> {
        let turn = Turn::take(self.alone).await;
        let folder = match &self.survives {
            Some(survival) => Folder::Kept(survival.folder.clone()),
            None => Folder::Temporary(scratch()?),
        };
        let authority = Authority::new("Ferrypost tests")?;
        let files = Files {
            folder: folder.path(),
            authority: &authority,
            limits: &self.limits,
            issuer: self.issuer.as_deref(),
            apart: self.shape == Shape::Sidecars,
            both_families: self.families == Families::Both,
            imap_alone: matches!(self.web, Web::Shipped(_)),
        };
        files.write_shared()?;
        let password = PASSWORD.to_owned();
        let networks = match self.shape {
            Shape::Gateways => None,
            Shape::Sidecars => Some(Network::pair(files.folder).await?),
        };
        let networks = networks.as_ref();
        let of_mail = Box::pin(async {
            let (source, target) = self.start_servers(&files, &password, networks).await?;
            let postfixes = self.start_postfixes(&files, &source, &target, networks);
            let postfixes = postfixes.await?;
            Ok::<_, WorldError>((source, target, postfixes))
        });
        let of_web = Box::pin(self.start_cyruses(&files, &password));
        let ((source, target, postfixes), cyruses) = tokio::try_join!(of_mail, of_web)?;
        let data_planes = self.lay_out_data_planes(&files, networks)?;
        let routing = Routing {
            servers: [&source, &target],
            postfixes: postfixes.as_ref(),
            deliveries: self.delivery == Delivery::Lmtp,
            sidecars: networks.and(data_planes.first_chunk()),
            inbound_mail: matches!(self.mail, Mail::Arrives | Mail::IsSplit),
            bare_names: self.bare_names,
            web: &self.web,
            cyruses: cyruses.as_ref(),
        };
        files.write_routing(&routing)?;
        let etcd = match self.store {
            StoreKind::Embedded => None,
            StoreKind::Etcd => Some(Etcd::start(files.folder).await?),
        };
        let dav = cyruses.as_ref().map(|it| dav_command(&files, it));
        let hook = self.hook(&files, [&source, &target], dav.as_deref());
        let control_planes = self
            .start_control_planes(&files, etcd.as_ref(), &hook)
            .await?;
        let data_planes = self
            .start_data_planes(data_planes, &files, &control_planes, [&source, &target])
            .await?;
        let token = |file: PathBuf| fs::read_to_string(file).map(|text| text.trim().to_owned());
        let mut world = World {
            data_planes,
            control_planes,
            etcd,
            source,
            target,
            postfixes,
            cyruses,
            dav,
            accounts: self.accounts,
            password,
            operator_token: token(files.operator_token())?,
            admin_token: token(files.admin_token())?,
            drain_token: token(files.drain_token())?,
            trust: authority.client_config()?,
            journal: files.journal(),
            folder,
            _turn: turn,
        };
        for replica in 0..world.control_planes.len() {
            world.wait_for_leader(replica).await?;
        }
        for data_plane in 0..world.data_planes.len() {
            world.wait_until_ready(data_plane).await?;
        }
        Ok(world)
    }

    fn marks(&self) -> Option<&Path> {
        self.survives
            .as_ref()
            .map(|survival| survival.marks.as_path())
    }

    fn hook(
        &self,
        files: &Files<'_>,
        [source, target]: [&Dovecot; 2],
        dav: Option<&[String]>,
    ) -> Vec<String> {
        let hook = hook_command(source, target, self.site_folders.as_ref(), &files.journal());
        let hook = [dav.unwrap_or_default(), &hook].concat();
        match self.moods {
            None => hook,
            Some(moods) => moody(moods.seed, moods.percent, hook),
        }
    }

    /// The way to an address, if there are links.
    async fn link(&self, to: SocketAddr) -> io::Result<Option<Link>> {
        if self.links {
            Link::to(to).await.map(Some)
        } else {
            Ok(None)
        }
    }

    async fn start_servers(
        &self,
        files: &Files<'_>,
        password: &str,
        networks: Option<&[Network; 2]>,
    ) -> Result<(Dovecot, Dovecot), WorldError> {
        let identity = files.authority.server()?;
        let [first, second] = networks.map_or([None; 2], |pair| pair.each_ref().map(Some));
        let setup = |role| Setup {
            role,
            told_as: self.web.told_as(role),
            identity: &identity,
            accounts: &self.accounts,
            password,
            pace: self.pace,
            introspection: self.issuer.as_deref(),
            survives: self.survives.is_some(),
            network: match role {
                Role::Source => first,
                Role::Target => second,
            },
        };
        let start = async |role: Role| -> Result<Dovecot, WorldError> {
            let server = Dovecot::start(files.folder, setup(role)).await?;
            if let Some(marks) = self.marks() {
                mark(marks, role.name(), server.id())?;
            }
            Ok(server)
        };
        tokio::try_join!(start(Role::Source), start(Role::Target))
    }

    async fn start_postfixes(
        &self,
        files: &Files<'_>,
        source: &Dovecot,
        target: &Dovecot,
        networks: Option<&[Network; 2]>,
    ) -> Result<Option<[Postfix; 2]>, WorldError> {
        if self.mail == Mail::Read {
            return Ok(None);
        }
        let identity = files.authority.server()?;
        let [first, second] = networks.map_or([None; 2], |pair| pair.each_ref().map(Some));
        let lookups = files.folder.join("gateway-1").join(LOOKUPS);
        let start = |beside: &Dovecot, network| {
            let setup = postfix::Setup {
                role: beside.role(),
                identity: &identity,
                accounts: beside.addr(Service::Auth),
                lookups: (self.mail == Mail::IsSplit).then_some(&*lookups),
                survives: self.survives.is_some(),
                network,
                arrival: self.arrival,
                delivers_to: None,
            };
            Postfix::start(files.folder, setup)
        };
        let (old, new) = tokio::try_join!(start(source, first), start(target, second))?;
        for (beside, server) in [(source, &old), (target, &new)] {
            if let Some(marks) = self.marks() {
                let name = format!("postfix-{}", beside.role().name());
                mark(marks, &name, server.id())?;
            }
        }
        Ok(Some([old, new]))
    }

    async fn start_cyruses(
        &self,
        files: &Files<'_>,
        password: &str,
    ) -> Result<Option<[Cyrus; 2]>, WorldError> {
        if !matches!(self.web, Web::Cyruses) {
            return Ok(None);
        }
        let identity = files.authority.server()?;
        files.write_dav_password(password)?;
        let start = async |role: Role| -> Result<Cyrus, WorldError> {
            let setup = cyrus::Setup {
                role,
                identity: &identity,
                accounts: &self.accounts,
                password,
                survives: self.survives.is_some(),
            };
            let server = Cyrus::start(files.folder, setup).await?;
            if let Some(marks) = self.marks() {
                mark(marks, &format!("cyrus-{}", role.name()), server.id())?;
            }
            Ok(server)
        };
        let (source, target) = tokio::try_join!(start(Role::Source), start(Role::Target))?;
        Ok(Some([source, target]))
    }

    async fn start_control_planes(
        &self,
        files: &Files<'_>,
        etcd: Option<&Etcd>,
        hook: &[String],
    ) -> Result<Vec<ControlPlane>, WorldError> {
        let program = program(CONTROL_PLANE)?;
        let mut replicas = Vec::new();
        for n in 1..=self.control_planes {
            let name = format!("control-plane-{n}");
            let config = plane_folder(files.folder, &name)?.join("controlplane.toml");
            let envs = &self.control_plane_envs;
            let store_link = match etcd {
                Some(etcd) => self.link(etcd.addr()).await?,
                None => None,
            };
            let store = etcd.map_or("kind = \"embedded\"".to_owned(), |etcd| {
                let at = store_link.as_ref().map_or(etcd.addr(), Link::addr);
                format!("kind = \"etcd\"\nendpoints = [\"http://{at}\"]")
            });
            let mut replica = ControlPlane {
                plane: Plane::new(&name, program.clone(), config, envs, self.marks()),
                operators: Port::reserve()?,
                data_planes: Port::reserve()?,
                admin: Port::reserve()?,
                store_link,
            };
            files.write_control_plane(&replica, &store, self.delta_hook.then_some(hook))?;
            replica.plane.start()?;
            replicas.push(replica);
        }
        Ok(replicas)
    }

    /// The data planes, which do not run yet.
    fn lay_out_data_planes(
        &self,
        files: &Files<'_>,
        networks: Option<&[Network; 2]>,
    ) -> Result<Vec<DataPlane>, WorldError> {
        let program = program(DATA_PLANE)?;
        let mut planes = Vec::new();
        for n in 1..=self.data_planes {
            let name = format!("gateway-{n}");
            let config = plane_folder(files.folder, &name)?.join("gateway.toml");
            let envs = &self.data_plane_envs;
            let network = networks.map(|pair| &pair[n - 1]);
            let plane = Plane::new(&name, program.clone(), config, envs, self.marks());
            planes.push(DataPlane {
                plane: plane.within(network),
                beside: network.map(|_| if n == 1 { Role::Source } else { Role::Target }),
                entrances: Entrance::ALL
                    .iter()
                    .map(|_| Port::reserve())
                    .collect::<io::Result<_>>()?,
                deliveries: match self.delivery {
                    Delivery::Nobodys => None,
                    Delivery::Lmtp => Some([Port::reserve()?, Port::reserve()?]),
                },
                lookups: [Port::reserve()?, Port::reserve()?],
                submission: match self.mail {
                    Mail::Read => None,
                    Mail::Submitted | Mail::Arrives | Mail::IsSplit => {
                        Some([Port::reserve()?, Port::reserve()?])
                    }
                },
                mx: match self.mail {
                    Mail::Read | Mail::Submitted => None,
                    Mail::Arrives | Mail::IsSplit => Some([Port::reserve()?, Port::reserve()?]),
                },
                web: match self.web {
                    Web::Nobodys => None,
                    Web::Cyruses | Web::Sites(_) | Web::Shipped(_) => Some(Port::reserve()?),
                },
                admin: Port::reserve()?,
                links: Vec::new(),
            });
        }
        Ok(planes)
    }

    async fn start_data_planes(
        &self,
        mut planes: Vec<DataPlane>,
        files: &Files<'_>,
        control_planes: &[ControlPlane],
        servers: [&Dovecot; 2],
    ) -> Result<Vec<DataPlane>, WorldError> {
        for plane in &mut planes {
            for control_plane in control_planes {
                let link = self.link(control_plane.data_planes()).await?;
                plane.links.extend(link);
            }
            files.write_data_plane(plane, control_planes, servers)?;
            plane.plane.start()?;
        }
        Ok(planes)
    }
}

fn numbered_accounts(count: usize) -> Vec<String> {
    (1..=count)
        .map(|n| format!("user{n}@example.org"))
        .collect()
}

fn plane_folder(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let folder = folder.join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
