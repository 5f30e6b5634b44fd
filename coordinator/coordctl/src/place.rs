//! `HOST/PATH` as an operator writes it: a host's name up to the first slash, then a path of bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A host, and perhaps a path on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host's name or id.
    pub host: String,
    /// Without leading and trailing slashes; empty: the whole host.
    pub path: Vec<u8>,
}

/// Why an argument is no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Nothing before the first slash.
    #[error("{0:?} names no host: write HOST or HOST/PATH, such as web-17/etc")]
    NoHost(String),
    /// The path climbs.
    #[error("{0:?} has a part `.` or `..`: write the path as it is on the host")]
    Climbs(String),
}

impl Place {
    /// Reads `HOST[/PATH]`.
    pub fn parse(argument: &OsStr) -> Result<Self, PlaceError> {
        let bytes = argument.as_bytes();
        let text = || bytes.escape_ascii().to_string();
        let (host, path) = match bytes.iter().position(|byte| *byte == b'/') {
            Some(at) => (&bytes[..at], &bytes[at + 1..]),
            None => (bytes, &[][..]),
        };
        let host = std::str::from_utf8(host).map_err(|_| PlaceError::NoHost(text()))?;
        if host.is_empty() {
            return Err(PlaceError::NoHost(text()));
        }
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        if parts.iter().any(|part| *part == b"." || *part == b"..") {
            return Err(PlaceError::Climbs(text()));
        }
        Ok(Self { host: host.to_owned(), path: parts.join(&b'/') })
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, PlaceError};
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn parse(bytes: &[u8]) -> Result<(String, Vec<u8>), PlaceError> {
        Place::parse(OsStr::from_bytes(bytes)).map(|place| (place.host, place.path))
    }

    #[test]
    fn host_and_path_are_told_apart_and_bytes_are_kept() {
        assert_eq!(parse(b"web-17"), Ok(("web-17".to_owned(), vec![])));
        assert_eq!(parse(b"web-17/"), Ok(("web-17".to_owned(), vec![])));
        assert_eq!(parse(b"web-17//etc/nginx/"), Ok(("web-17".to_owned(), b"etc/nginx".to_vec())));
        assert_eq!(parse(b"web-17/srv/\xff\n"), Ok(("web-17".to_owned(), b"srv/\xff\n".to_vec())));
        assert!(matches!(parse(b"/etc"), Err(PlaceError::NoHost(_))));
        assert!(matches!(parse(b"web-17/../etc"), Err(PlaceError::Climbs(_))));
    }
}
