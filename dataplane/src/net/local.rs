//! Listening where the operator's own programs connect: at an address, or at a socket in the file system.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
};

use super::{TcpListener, TcpStream};

/// Where something is bound.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Port 0: any free one.
    Address(SocketAddr),
    /// A socket in the file system.
    File {
        /// Where it lies.
        path: PathBuf,
        /// Who may connect: whoever may write to the file.
        mode: u32,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::File { path, .. } => path.display().fmt(f),
        }
    }
}

/// Who has connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbour {
    /// From this address, in its plain form.
    Address(SocketAddr),
    /// Whoever the socket's mode lets.
    File,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::File => f.write_str("the socket's own machine"),
        }
    }
}

/// A listening socket of either kind.
#[derive(Debug)]
pub enum LocalListener {
    /// At an address.
    Tcp(TcpListener),
    /// In the file system.
    Unix(UnixListener, SocketFile),
}

impl LocalListener {
    /// Binds it.
    ///
    /// # Errors
    /// What the system says; a file that is there already is replaced only if it is a socket at which nobody listens
    /// any more.
    pub fn bind(place: &Place) -> io::Result<Self> {
        match place {
            Place::Address(address) => Ok(Self::Tcp(super::listen(*address)?)),
            Place::File { path, mode } => {
                let (socket, file) = listen_at(path, *mode)?;
                Ok(Self::Unix(socket, file))
            }
        }
    }

    /// The address, if it has one.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<Option<SocketAddr>> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(Some),
            Self::Unix(..) => Ok(None),
        }
    }

    /// Takes the next connection. Cancel-safe.
    ///
    /// # Errors
    /// What the system says. None of them is the listener's end: the caller pauses and goes on.
    pub async fn accept(&self) -> io::Result<(LocalStream, Neighbour)> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = super::accept(socket).await?;
                Ok((LocalStream::Tcp(stream), Neighbour::Address(peer)))
            }
            Self::Unix(socket, _) => {
                let (stream, _) = socket.accept().await?;
                Ok((LocalStream::Unix(stream), Neighbour::File))
            }
        }
    }
}

/// The file of a listening socket. It is removed with it, unless another has taken its place.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at a file that has its mode before anybody finds it.
#[expect(
    clippy::disallowed_methods,
    reason = "`net` is the seam: it opens the sockets of this crate"
)]
fn listen_at(path: &Path, mode: u32) -> io::Result<(UnixListener, SocketFile)> {
    if is_taken(path)? {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{}", std::process::id()));
    let hidden = PathBuf::from(hidden);
    // Of a process that had our number and died here.
    match fs::remove_file(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(&hidden)?;
    let renamed = fs::set_permissions(&hidden, fs::Permissions::from_mode(mode))
        .and_then(|()| fs::rename(&hidden, path))
        .and_then(|()| inode(path));
    match renamed {
        Ok(inode) => {
            let path = path.to_owned();
            Ok((socket, SocketFile { path, inode }))
        }
        Err(error) => {
            _ = fs::remove_file(&hidden);
            Err(error)
        }
    }
}

/// Whether somebody listens there, or the file is none of a socket.
#[expect(
    clippy::disallowed_methods,
    reason = "`net` is the seam: it opens the sockets of this crate"
)]
fn is_taken(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => return Ok(true),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        // A process that died leaves its file behind.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
        Ok(_) => Ok(true),
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A connection of either kind.
#[derive(Debug)]
pub enum LocalStream {
    /// To an address.
    Tcp(TcpStream),
    /// To a file.
    Unix(UnixStream),
}

impl LocalStream {
    /// Ready when a read may find something.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, from),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, from),
        }
    }

    /// What was written is with the kernel.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "what is tested here is the seam itself"
)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn file(path: &Path, mode: u32) -> Place {
        let path = path.to_owned();
        Place::File { path, mode }
    }

    #[tokio::test]
    async fn a_socket_in_the_file_system_is_as_open_as_its_mode_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = LocalListener::bind(&file(&path, 0o620)).unwrap();
        let mode = fs::symlink_metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o620);
        let mut near = UnixStream::connect(&path).await.unwrap();
        let (mut far, neighbour) = listener.accept().await.unwrap();
        assert_eq!(neighbour, Neighbour::File);
        near.write_all(b"x").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'x');
        far.shutdown().await.unwrap();
        assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
        drop(listener);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn only_a_socket_at_which_nobody_listens_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let place = file(&path, 0o600);
        let dead = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let refused = LocalListener::bind(&place).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        drop(dead);
        let first = LocalListener::bind(&place).unwrap();
        fs::remove_file(&path).unwrap();
        let _second = LocalListener::bind(&place).unwrap();
        drop(first);
        assert!(path.exists(), "that one is another's");
        let text = folder.path().join("text");
        fs::write(&text, "mine").unwrap();
        let refused = LocalListener::bind(&file(&text, 0o600)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read_to_string(&text).unwrap(), "mine");
    }
}
