//! Reads how archives are compressed.

use toml::Table;

use super::reader::{Reader, dotted, escaped};
use crate::domain::policy::{Codec, Compression, CompressionByLevel};

impl Reader {
    pub(super) fn compression(&mut self, top: &Table) -> CompressionByLevel {
        let section = self.section(top, "", "compression", &["full", "differential"]);
        CompressionByLevel {
            full: self.compression_of(&section, "full", 3, 9),
            differential: self.compression_of(&section, "differential", 1, 6),
        }
    }

    /// Compression of one level; `zstd` and `gzip` are the defaults of the codecs' levels.
    pub(super) fn compression_of(&mut self, table: &Table, key: &str, zstd: u32, gzip: u32) -> Compression {
        let name = dotted("compression", key);
        let section = self.section(table, "compression", key, &["codec", "level"]);
        let codec = match self.text(&section, &name, "codec") {
            None => Codec::Zstd,
            Some(text) => Codec::ALL.into_iter().find(|codec| codec.as_str() == text).unwrap_or_else(|| {
                self.find(&dotted(&name, "codec"), format!("'{}' is no codec", escaped(&text)), "zstd or gzip");
                Codec::Zstd
            }),
        };
        let default = match codec {
            Codec::Zstd => zstd,
            Codec::Gzip => gzip,
        };
        let most = codec.most().unsigned_abs();
        let level = self.number(&section, &name, "level", 1..=most, default);
        Compression { codec, level: i32::try_from(level).unwrap_or(codec.most()) }
    }
}
