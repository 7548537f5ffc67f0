//! Small tools for bytes: a number for a name, for file names and client identities that are the same every time
//! (FNV-1a, 128 bits), hexadecimal digits, pieces of one length.
//!
//! The number is not for secrets. Parts are hashed with their lengths, so `ab`, `c` and `a`, `bc` differ.

/// The hash of these parts.
pub(super) fn fnv128(parts: &[&str]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let step = |hash: u128, byte: u8| (hash ^ u128::from(byte)).wrapping_mul(PRIME);
    parts.iter().fold(BASIS, |hash, part| {
        let length = (part.len() as u64).to_le_bytes();
        part.bytes().chain(length).fold(hash, step)
    })
}

/// Bytes as hexadecimal digits.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The bytes of hexadecimal digits; `None` when they are none.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let even = text.len().is_multiple_of(2);
    pieces(text.as_bytes())
        .map(|[a, b]| Some(digit(a)? << 4 | digit(b)?))
        .collect::<Option<_>>()
        .filter(|_| even)
}

/// The pieces of `N` bytes that `bytes` consists of; a shorter rest is left out.
pub(super) fn pieces<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.chunks_exact(N).filter_map(|piece| piece.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_kept_apart() {
        assert_eq!(fnv128(&[]), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_ne!(fnv128(&["ab", "c"]), fnv128(&["a", "bc"]));
        assert_ne!(fnv128(&["a"]), fnv128(&["a", ""]));
    }

    #[test]
    fn hexadecimal_survives_a_round_trip() {
        assert_eq!(to_hex(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(from_hex("001fFF"), Some(vec![0, 0x1f, 0xff]));
        assert_eq!((from_hex("0"), from_hex("0g"), from_hex("")), (None, None, Some(vec![])));
    }
}
