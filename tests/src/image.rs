//! Images of the Dockerfile: built by buildah, and run as a container's runtime would run them.
//!
//! No registry is asked. What the Dockerfile would take from there, a system with the libraries and the few programs that
//! its steps need, is made of this machine's own; and the programs are those that the tests have. Everything else is as
//! anybody builds it. Only root can do this.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Spawn, find_program};
use crate::tools::repository;
use crate::world::{COMMAND_LINE, CONTROL_PLANE, DATA_PLANE};

/// What goes into them.
const PROGRAMS: [&str; 3] = [DATA_PLANE, CONTROL_PLANE, COMMAND_LINE];

/// What the Dockerfile's steps call.
const STEPS_CALL: [&str; 12] = [
    "sh", "bash", "make", "install", "ldd", "mktemp", "cat", "cp", "rm", "mkdir", "sed", "env",
];

/// Runs the words behind `--` in a file system of their own: a root that is not written to, and beside it what is mounted,
/// pairs of a place here and one there. It stays as their parent, since a change of the user takes away the signal that the
/// kernel sends when a parent dies.
const CONTAIN: &str = r#"
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
  mount --bind "$1" "$root$2"
  shift 2
done
shift
mount -o remount,bind,ro "$root"
setpriv --no-new-privs env -i "$@" &
child=$!
trap 'kill -TERM $child' TERM
status=0
wait $child || status=$?
[ $status -le 128 ] || { status=0; wait $child || status=$?; }
exit $status
"#;

/// All images, in a store of their own.
#[derive(Debug)]
pub struct Images {
    folder: TempDir,
}

impl Images {
    /// Builds them with the programs in a folder.
    ///
    /// # Errors
    /// When buildah is not installed (`tests/tools/install test`) or refuses.
    pub fn build(programs: &Path) -> io::Result<Self> {
        let images = Self {
            folder: tempfile::tempdir()?,
        };
        let base = images.folder.path().join("base");
        lay_base_out(&base, programs)?;
        let file = images.folder.path().join("Basefile");
        fs::write(&file, "FROM scratch\nCOPY . /\nENV PATH=/usr/bin:/bin\n")?;
        let mut build = images.building("base");
        build.arg("--file").arg(&file).arg(&base);
        run(&mut build)?;
        let context = images.folder.path().join("programs");
        fs::create_dir(&context)?;
        for name in PROGRAMS {
            fs::copy(programs.join(name), context.join(name))?;
        }
        let context = format!("programs={}", context.display());
        for target in ["dataplane", "controlplane", "cli"] {
            let mut build = images.building(target);
            build.args(["--target", target, "--layers", "--network", "host"]);
            build.args(["--build-arg", "RUST_IMAGE=localhost/base"]);
            build.args(["--build-context", &context]).arg(repository());
            run(&mut build)?;
        }
        Ok(images)
    }

    /// One of them, as a container has it.
    ///
    /// # Errors
    /// When there is no such image.
    pub fn image(&self, target: &str) -> io::Result<Image> {
        let name = format!("localhost/{target}");
        let container = run(self.buildah().args(["from", "--pull-never", &name]))?;
        let root = run(self.buildah().args(["mount", container.trim()]))?;
        let said = run(self.buildah().args(["inspect", "--type", "image", &name]))?;
        let said: Value = serde_json::from_str(&said)?;
        let root = PathBuf::from(root.trim());
        let kept = files(&root)?;
        // What a runtime puts there.
        fs::create_dir(root.join("proc"))?;
        fs::create_dir(root.join("dev"))?;
        Ok(Image {
            root,
            files: kept,
            config: said["OCIv1"]["config"].clone(),
        })
    }

    fn building(&self, name: &str) -> Command {
        let mut command = self.buildah();
        command.args(["build", "--quiet", "--isolation", "chroot", "--tag"]);
        command.arg(format!("localhost/{name}"));
        command
    }

    fn buildah(&self) -> Command {
        let mut command = Command::new("buildah");
        let folder = self.folder.path();
        command.arg("--root").arg(folder.join("images"));
        command.arg("--runroot").arg(folder.join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    }
}

/// A system of this machine's own files: what the Dockerfile's steps call, its libraries, those of our programs, and the
/// authorities that it believes.
fn lay_base_out(base: &Path, programs: &Path) -> io::Result<()> {
    fs::create_dir_all(base.join("tmp"))?;
    let authorities = PathBuf::from("/etc/ssl/certs/ca-certificates.crt");
    let mut wanted = BTreeSet::from([authorities]);
    for name in STEPS_CALL {
        let program = find_program(Path::new(name))?;
        wanted.extend(libraries(&program)?);
        // Scripts name it by either.
        let bin = Path::new("/bin").join(name);
        wanted.extend(bin.is_file().then_some(bin));
        wanted.insert(Path::new("/usr/bin").join(name));
    }
    wanted.extend(libraries(&programs.join(DATA_PLANE))?);
    for file in wanted {
        let copy = within(base, &file);
        fs::create_dir_all(copy.parent().unwrap_or(base))?;
        // What is behind a link, as are the folders that are links here.
        fs::copy(&file, copy)?;
    }
    Ok(())
}

/// Libraries that a program is linked with; a script has none.
fn libraries(program: &Path) -> io::Result<Vec<PathBuf>> {
    let said = Command::new("ldd").arg(program).output()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let words = said.split_whitespace();
    let places = words.filter(|word| word.starts_with('/') && !word.ends_with(':'));
    Ok(places.map(PathBuf::from).collect())
}

/// What an image holds, and how it is to be run.
#[derive(Debug)]
pub struct Image {
    root: PathBuf,
    files: Vec<File>,
    config: Value,
}

/// A file of an image.
#[derive(Debug)]
pub struct File {
    /// Where it is in the image.
    pub path: PathBuf,
    /// Its octets.
    pub size: u64,
    /// Type and permissions, as the kernel has them.
    pub mode: u32,
    /// Whose it is.
    pub owner: u32,
}

impl Image {
    /// Its files, without folders.
    pub fn files(&self) -> &[File] {
        &self.files
    }

    /// A label.
    pub fn label(&self, name: &str) -> &str {
        self.config["Labels"][name].as_str().unwrap_or_default()
    }

    /// Whom it runs as: user and group, as `65532:65532`.
    pub fn user(&self) -> &str {
        self.config["User"].as_str().unwrap_or_default()
    }

    /// What it starts, in front of arguments.
    pub fn entry(&self) -> Vec<String> {
        let words = self.config["Entrypoint"].as_array().into_iter().flatten();
        words
            .filter_map(|word| Some(word.as_str()?.to_owned()))
            .collect()
    }

    /// Runs a command in it as its own user, with `variables` beside those of the image and folders of ours mounted at
    /// places that it has.
    ///
    /// # Errors
    /// When util-linux is not there.
    pub fn spawn(
        &self,
        command: &[String],
        variables: &[(String, String)],
        mounts: &[(PathBuf, &str)],
        log: &Path,
    ) -> io::Result<Spawn> {
        let contain = Spawn::new("unshare", log)?
            .args(["--mount", "--", "sh", "-ec", CONTAIN, "contain"])
            .arg(&self.root)
            .arg(self.user())
            .terminate_with_parent();
        let contain = mounts
            .iter()
            .fold(contain, |spawn, (here, there)| spawn.arg(here).arg(there));
        let own = self.config["Env"].as_array().into_iter().flatten();
        let own = own.filter_map(|variable| variable.as_str().map(str::to_owned));
        let more = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let chroot = find_program(Path::new("chroot"))?;
        Ok(contain
            .arg("--")
            .args(own.chain(more))
            .arg(chroot)
            .arg("--groups=")
            .arg(format!("--userspec={}", self.user()))
            .arg(&self.root)
            .args(command))
    }
}

fn files(root: &Path) -> io::Result<Vec<File>> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let facts = fs::symlink_metadata(&path)?;
            if facts.is_dir() {
                folders.push(path);
                continue;
            }
            let inside = path.strip_prefix(root).map_err(io::Error::other)?;
            found.push(File {
                path: Path::new("/").join(inside),
                size: facts.size(),
                mode: facts.mode(),
                owner: facts.uid(),
            });
        }
    }
    Ok(found)
}

fn within(root: &Path, place: &Path) -> PathBuf {
    root.join(place.strip_prefix("/").unwrap_or(place))
}

/// What it says.
fn run(command: &mut Command) -> io::Result<String> {
    let done = command.stdin(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(io::Error::other(format!("{command:?}: {said}")))
}
