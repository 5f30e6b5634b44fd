//! The line that a joining machine is given: `coord1.<id>.<secret>.<sha256 of the CA's public key>`, each part in hexadecimal. It
//! authenticates both ways: the secret says who may join, the digest says who may be joined. The secret is never logged: `Debug` hides it.

use std::fmt;
use std::str::FromStr;

use ring::digest::{SHA256, digest};
use uuid::Uuid;

use crate::hex;

const PREFIX: &str = "coord1";

/// SHA-256 of a certificate authority's SubjectPublicKeyInfo (DER).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CaPin(pub [u8; 32]);

impl CaPin {
    /// The pin of a public key given as SubjectPublicKeyInfo in DER.
    pub fn of_public_key(spki_der: &[u8]) -> CaPin {
        let mut pin = [0; 32];
        pin.copy_from_slice(digest(&SHA256, spki_der).as_ref());
        CaPin(pin)
    }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaPin({self})")
    }
}

/// The 256-bit secret of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenSecret([u8; 32]);

impl TokenSecret {
    /// Wraps 32 random bytes.
    pub const fn new(bytes: [u8; 32]) -> TokenSecret {
        TokenSecret(bytes)
    }

    /// The secret's text, as the Join request carries it.
    pub fn reveal(&self) -> String {
        hex::encode(&self.0)
    }

    /// What the coordinator stores instead of the secret.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, &self.0).as_ref());
        hash
    }
}

impl FromStr for TokenSecret {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        hex::decode_array(text).map(TokenSecret).ok_or(TokenError::Part { part: "secret" })
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSecret(hidden)")
    }
}

/// A whole token line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The token's id in the catalog.
    pub id: Uuid,
    /// What only the holder knows.
    pub secret: TokenSecret,
    /// The authority that the holder must find at the other end.
    pub ca: CaPin,
}

/// Why a line is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not four parts, or another prefix.
    #[error("not a token: a token is one line that begins with {PREFIX}. and has four parts")]
    Shape,
    /// A part is not what it should be.
    #[error("the token's {part} is damaged: copy the whole line again")]
    Part {
        /// Which part.
        part: &'static str,
    },
}

impl Token {
    /// The line to hand over. It contains the secret.
    pub fn reveal(&self) -> String {
        format!("{PREFIX}.{}.{}.{}", self.id.simple(), self.secret.reveal(), self.ca)
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(line: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = line.trim().split('.').collect();
        let [PREFIX, id, secret, ca] = parts[..] else { return Err(TokenError::Shape) };
        Ok(Token {
            id: Uuid::try_parse(id).map_err(|_| TokenError::Part { part: "id" })?,
            secret: secret.parse()?,
            ca: CaPin(hex::decode_array(ca).ok_or(TokenError::Part { part: "authority digest" })?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token { id: Uuid::from_u128(7), secret: TokenSecret::new([0xab; 32]), ca: CaPin([1; 32]) }
    }

    #[test]
    fn a_token_comes_back_from_its_line() {
        assert_eq!(token().reveal().parse(), Ok(token()));
        assert_eq!(format!("  {}\n", token().reveal()).parse(), Ok(token()));
    }

    #[test]
    fn a_damaged_line_says_which_part() {
        let line = token().reveal();
        assert_eq!(line.replace("abab", "abxb").parse::<Token>(), Err(TokenError::Part { part: "secret" }));
        assert_eq!(line[..line.len() - 1].parse::<Token>(), Err(TokenError::Part { part: "authority digest" }));
        assert_eq!("hello".parse::<Token>(), Err(TokenError::Shape));
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert!(!format!("{:?}", token()).contains("abab"));
    }
}
