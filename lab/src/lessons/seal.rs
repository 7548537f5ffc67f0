//! HMAC with SHA-256 (RFC 2104), for results that tell whether they were changed.

use hmac::digest::InvalidLength;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::bytes::hex;

/// The code of a message under a key of any length, in hexadecimal.
///
/// # Errors
/// The algorithm takes no key of that length, which this one does.
pub(super) fn hmac_sha256(key: &[u8], message: &[u8]) -> Result<String, InvalidLength> {
    let mut code = Hmac::<Sha256>::new_from_slice(key)?;
    code.update(message);
    Ok(hex(&code.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test cases 2 and 6.
    #[test]
    fn codes_are_those_of_the_rfc() {
        assert_eq!(
            hmac_sha256(b"Jefe", b"what do ya want for nothing?").unwrap(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hmac_sha256(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First").unwrap(),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}
