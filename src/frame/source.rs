//! Files that frames come from, and what stands for one where there are millions.
//!
//! Pure data. Not here: reading them (`camera`), remembering them (`store`).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Where a frame came from when that can come again, such as a file that is still in its folder after a restart.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceRef {
    /// The file's name inside the camera's folder.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// When it was last written, nanoseconds since 1970.
    pub modified_ns: i64,
}

/// Stands for a [`SourceRef`] in 16 bytes, the same in every version of the program: stores hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileKey(pub [u8; FileKey::BYTES]);

impl FileKey {
    /// Its length.
    pub const BYTES: usize = 16;
}

impl SourceRef {
    /// What stands for it.
    pub fn key(&self) -> FileKey {
        let mut digest = Sha256::new();
        // Fixed lengths first, so that no name can be taken for another file's size or time.
        digest.update(self.bytes.to_le_bytes());
        digest.update(self.modified_ns.to_le_bytes());
        digest.update(self.name.as_bytes());
        let mut key = [0; FileKey::BYTES];
        key.copy_from_slice(&digest.finalize()[..FileKey::BYTES]);
        FileKey(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stays_what_stores_hold_and_differs_where_anything_does() {
        let file = SourceRef { name: "a.png".into(), bytes: 3, modified_ns: -1 };
        // head -c 16 of sha256sum over 3 and -1 in eight bytes each, little-endian, and the name.
        let hex: String = file.key().0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "1de3c00ecf3a782697aea529d3995867");
        for other in [
            SourceRef { name: "b.png".into(), ..file.clone() },
            SourceRef { bytes: 4, ..file.clone() },
            SourceRef { modified_ns: 1, ..file.clone() },
        ] {
            assert_ne!(other.key(), file.key());
        }
    }
}
