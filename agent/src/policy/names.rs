//! Names of chains and sets: the same content or the same object has the same name on every node and after every
//! restart, so what is there already can be kept.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// `kind-` and 16 hexadecimal digits of the hash of these parts.
pub(super) fn name<T: AsRef<[u8]>>(kind: &str, parts: impl IntoIterator<Item = T>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        let part = part.as_ref();
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut name = format!("{kind}-");
    for byte in &hash.finalize()[..8] {
        let _ = write!(name, "{byte:02x}");
    }
    name
}
