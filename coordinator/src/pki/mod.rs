//! The fleet's own certificate authority.
//!
//! Invariants: of a request only the public key is used, never a name or an extension; every certificate has a random 128-bit
//! serial, exactly one name `spiffe://<fleet>/<kind>/<id>`, and is explicitly no authority. Not here: who may have a certificate, and
//! whether one still counts. That is the allow-list in the catalog, judged by `app`.

mod authority;
mod request;

pub use authority::{Authority, AuthorityError, CertificateOrder, IssuedCertificate};
pub use request::{RequestError, RequestedKey};
