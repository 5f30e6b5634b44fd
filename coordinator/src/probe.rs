//! `coordinator health`: asks the coordinator of this machine how it is, for supervisors and containers that have no HTTP client of their own.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coord_shared::exit::Exit;

use crate::server::ENDPOINTS_FILE;

/// Longest wait for the connection and for each part of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Why the answer is not "yes".
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The coordinator says no.
    #[error("the coordinator says no:\n{}", said.trim_end())]
    No {
        /// Its checks, what failed first.
        said: String,
    },
    /// It does not answer.
    #[error("the coordinator does not answer at {address}")]
    Silent {
        /// Where it was asked.
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    /// Something answers that is no coordinator.
    #[error("what answers at {address} is no coordinator's health listener")]
    Foreign {
        /// Where it was asked.
        address: SocketAddr,
    },
    /// It is not known where to ask.
    #[error("{} does not say where the coordinator answers about its health", path.display())]
    Nowhere {
        /// The file that would.
        path: PathBuf,
    },
}

impl ProbeError {
    /// The code of the one table.
    pub const fn exit(&self) -> Exit {
        match self {
            ProbeError::No { .. } => Exit::CheckFailed,
            ProbeError::Silent { .. } | ProbeError::Foreign { .. } => Exit::Unreachable,
            ProbeError::Nowhere { .. } => Exit::Usage,
        }
    }

    /// What to do about it.
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            ProbeError::No { .. } => None,
            ProbeError::Silent { .. } | ProbeError::Foreign { .. } => Some("is it running, with this --health-listen?"),
            ProbeError::Nowhere { .. } => {
                Some("set health_listen in coordinator.toml, or give serve and health the same --health-listen")
            }
        }
    }
}

/// Asks at `address`, else where the coordinator with this state folder says that it listens; its checks when all of them pass.
///
/// # Errors
/// See [`ProbeError`].
pub fn ask(address: Option<SocketAddr>, state: Option<&Path>, live: bool) -> Result<String, ProbeError> {
    let address = match address {
        Some(address) => address,
        None => announced(state.unwrap_or(Path::new(".")))?,
    };
    let path = if live { "/livez" } else { "/readyz" };
    let answer = get(address, path).map_err(|source| ProbeError::Silent { address, source })?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(ProbeError::Foreign { address })?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        Some("503") => Err(ProbeError::No { said: body.to_owned() }),
        Some(_) | None => Err(ProbeError::Foreign { address }),
    }
}

/// Where a coordinator that serves has written that it listens.
fn announced(state: &Path) -> Result<SocketAddr, ProbeError> {
    let path = state.join(ENDPOINTS_FILE);
    let said = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let address = said.and_then(|said| said["health"].as_str()?.parse().ok());
    address.ok_or(ProbeError::Nowhere { path })
}

fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
