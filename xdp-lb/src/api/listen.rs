//! The sockets that the HTTP interface is served on.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use axum::Router;
use tokio::net::{TcpListener, UnixListener};

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ListenError {
    #[error("another daemon answers on {}; give this one a socket of its own with --socket", path.display())]
    InUse { path: PathBuf },
    #[error("{} is there and is not a socket; move it away or choose another with --socket", path.display())]
    NotASocket { path: PathBuf },
    #[error("socket {}", path.display())]
    Unix { path: PathBuf, source: io::Error },
    #[error("metrics address {address}")]
    Tcp {
        address: SocketAddr,
        source: io::Error,
    },
}

/// The UNIX socket, removed when dropped.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: Option<UnixListener>,
}

impl Socket {
    /// Opens the socket, for root alone. One that an earlier daemon left behind is replaced.
    ///
    /// # Errors
    ///
    /// If another daemon answers there, or the file system does not allow it.
    pub fn open(path: &Path) -> Result<Self, ListenError> {
        let failed = |source| ListenError::Unix {
            path: path.to_owned(),
            source,
        };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        match fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(ListenError::NotASocket {
                    path: path.to_owned(),
                });
            }
            Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
                return Err(ListenError::InUse {
                    path: path.to_owned(),
                });
            }
            Ok(_) => fs::remove_file(path).map_err(failed)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            listener: Some(listener),
        })
    }

    /// Serves until the task is dropped.
    ///
    /// # Errors
    ///
    /// Never in practice: axum goes on after errors of single connections.
    pub async fn serve(&mut self, router: Router) -> io::Result<()> {
        match self.listener.take() {
            Some(listener) => axum::serve(listener, router).await,
            None => Ok(()),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may have been removed by hand, which is what is wanted here.
        let _ = fs::remove_file(&self.path);
    }
}

/// Opens a TCP address and serves there, on a task of its own.
///
/// # Errors
///
/// If the address cannot be bound.
pub async fn serve_tcp(address: SocketAddr, router: Router) -> Result<(), ListenError> {
    let failed = |source| ListenError::Tcp { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}
