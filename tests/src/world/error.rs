//! Why a world did not come up, or did not do what it should.

use std::path::PathBuf;

use crate::certs::CertError;
use crate::cyrus::CyrusError;
use crate::dovecot::DovecotError;
use crate::postfix::PostfixError;
use crate::wait::Late;

/// What went wrong with a world.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A program of ours was not built.
    #[error(
        "{path} is not there; build it by `{command}`, or name its folder in FERRYPOST_BIN_DIR"
    )]
    NotBuilt {
        /// Where it was looked for.
        path: PathBuf,
        /// What builds it.
        command: String,
    },
    /// A file, a process or a port.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// One of the mail servers.
    #[error("{0}")]
    Dovecot(#[from] DovecotError),
    /// The other mail servers.
    #[error("{0}")]
    Postfix(#[from] PostfixError),
    /// The servers of HTTP.
    #[error("{0}")]
    Cyrus(#[from] CyrusError),
    /// A certificate.
    #[error("{0}")]
    Certificate(#[from] CertError),
    /// Something did not come true in time.
    #[error("{0}")]
    Late(#[from] Late),
    /// An example configuration lacks a line that is filled in here.
    #[error("the example configuration {example} does not hold {line:?}")]
    Example {
        /// The example's file.
        example: &'static str,
        /// The line.
        line: String,
    },
    /// A program ended by itself.
    #[error("{name} ended with {status}; the end of {}:\n{tail}", log.display())]
    Ended {
        /// The program.
        name: String,
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The admin endpoint gave no answer that can be read.
    #[error("admin endpoint: {0}")]
    Admin(String),
}
