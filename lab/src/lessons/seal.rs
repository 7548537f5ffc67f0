//! HMAC with SHA-256 (RFC 2104), for results that tell whether they were changed.

use sha2::{Digest, Sha256};

use crate::bytes::hex;

/// Bytes of a block of SHA-256 (FIPS 180-4).
const BLOCK: usize = 64;

/// The code of a message under a key of one block at most, in hexadecimal; a longer key is hashed first.
pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> String {
    let mut padded = [0; BLOCK];
    if key.len() > BLOCK {
        padded[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        padded[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(padded.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    let outer = Sha256::new().chain_update(padded.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize();
    hex(&outer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test cases 2 and 6.
    #[test]
    fn codes_are_those_of_the_rfc() {
        assert_eq!(
            hmac_sha256(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hmac_sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
