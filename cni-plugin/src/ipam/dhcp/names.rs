//! Lists of domain names in DNS's own encoding (RFC 1035, section 4.1.4), as options carry them.

/// How many names a list may have, and how many labels a name.
const MOST: usize = 64;

/// The names in `bytes`, pointers into `bytes` followed. Reading ends at the first that makes no sense.
pub(super) fn decode(bytes: &[u8]) -> Vec<String> {
    let (mut names, mut at) = (Vec::new(), 0);
    while at < bytes.len() && names.len() < MOST {
        let Some((name, next)) = one(bytes, at) else { break };
        if !name.is_empty() {
            names.push(name);
        }
        at = next;
    }
    names
}

/// The name at `at`, and where the next begins.
fn one(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut labels, mut next) = (Vec::new(), None);
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some((labels.join("."), next.unwrap_or(at + 1))),
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + length)?;
                let plain = label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
                if !plain || labels.len() == MOST {
                    return None;
                }
                labels.push(String::from_utf8_lossy(label).into_owned());
                at += 1 + length;
            }
            0xc0.. => {
                let target = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
                next = next.or(Some(at + 2));
                // Only ever backwards, so it comes to an end.
                if target >= at {
                    return None;
                }
                at = target;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipam::dhcp::timing::Random;

    #[test]
    fn loops_and_odd_labels_end_the_list() {
        assert_eq!(decode(&[1, b'a', 0, 1, b'b', 0xc0, 0]), ["a", "b.a"]);
        for bad in [&[0xc0, 0][..], &[1, b'a', 0xc0, 0], &[1, b' ', 0], &[9, b'a', 0], &[0x40, 0], &[0xc0]] {
            assert!(decode(bad).is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn random_bytes_are_read_without_a_panic() {
        let mut random = Random::new(3);
        for _ in 0..20_000 {
            let length = random.below(80);
            let bytes: Vec<u8> = (0..length)
                .map(|_| match random.below(3) {
                    0 => random.below(8) as u8,
                    1 => 0xc0,
                    _ => b'a' + random.below(26) as u8,
                })
                .collect();
            assert!(decode(&bytes).iter().all(|name| !name.is_empty() && name.len() < 64 * 64 + 64));
        }
    }
}
