//! ESP (RFC 4303) with AES-256-GCM (RFC 4106), computed by a process: for kernels that have no ESP of their own. What is on
//! the wire is the same.
//!
//! Tunnel mode, IPv4 or IPv6 inside, one key for each direction of each pair of nodes. Keys are as old as the lab: there is no key
//! exchange (IKE) and no rekeying; a sender that has used up its sequence numbers stops.

use aes_gcm::aead::{AeadInOut, KeyInit, Nonce};
use aes_gcm::{Aes256Gcm, Key};

/// SPI and sequence number; the sender's counter, which is the nonce's changing part.
const HEADER: usize = 8;
const IV: usize = 8;
/// The authentication tag (RFC 4106, 6: 16 bytes must be supported).
const TAG: usize = 16;
/// Padding length and next header.
const TRAILER: usize = 2;
/// "IPv4" and "IPv6" as a next header: a whole packet is inside.
const IPV4: u8 = 4;
const IPV6: u8 = 41;
/// Sequence numbers that may come out of order.
const WINDOW: u32 = 64;
/// Key and salt.
pub(crate) const SECRET: usize = 32 + 4;

/// One direction of a pair of nodes: the number that names it, and its secret.
struct Association {
    spi: u32,
    cipher: Aes256Gcm,
    salt: [u8; 4],
}

impl Association {
    fn new(spi: u32, secret: &[u8; SECRET]) -> Association {
        let (mut key, mut salt) = (Key::<Aes256Gcm>::default(), [0; 4]);
        key.copy_from_slice(&secret[..32]);
        salt.copy_from_slice(&secret[32..]);
        Association { spi, cipher: Aes256Gcm::new(&key), salt }
    }

    fn nonce(&self, iv: &[u8]) -> Nonce<Aes256Gcm> {
        let mut nonce = Nonce::<Aes256Gcm>::default();
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(iv);
        nonce
    }
}

/// What an IP packet is as a next header, by its version.
fn next_header(packet: &[u8]) -> Option<u8> {
    match packet.first()? >> 4 {
        4 => Some(IPV4),
        6 => Some(IPV6),
        _ => None,
    }
}

/// Encrypts what goes to one node.
pub(crate) struct Sender {
    association: Association,
    sequence: u32,
}

impl Sender {
    pub(crate) fn new(spi: u32, secret: &[u8; SECRET]) -> Sender {
        Sender { association: Association::new(spi, secret), sequence: 0 }
    }

    /// The ESP packet around an IP packet; None when the sequence numbers are used up, or for what is no IP packet.
    pub(crate) fn seal(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let next = next_header(packet)?;
        self.sequence = self.sequence.checked_add(1)?;
        let mut out = Vec::with_capacity(HEADER + IV + packet.len() + TRAILER + 3 + TAG);
        out.extend(self.association.spi.to_be_bytes());
        out.extend(self.sequence.to_be_bytes());
        let iv = u64::from(self.sequence).to_be_bytes();
        let mut inside = packet.to_vec();
        let padding = (inside.len() + TRAILER).next_multiple_of(4) - inside.len() - TRAILER;
        inside.extend((1..=padding).map(|n| n as u8));
        inside.extend([padding as u8, next]);
        self.association.cipher.encrypt_in_place(&self.association.nonce(&iv), &out, &mut inside).ok()?;
        out.extend(iv);
        out.extend(inside);
        Some(out)
    }
}

/// Decrypts what comes from one node.
pub(crate) struct Receiver {
    association: Association,
    highest: u32,
    /// Bit n: `highest - n` has been there.
    seen: u64,
}

impl Receiver {
    pub(crate) fn new(spi: u32, secret: &[u8; SECRET]) -> Receiver {
        Receiver { association: Association::new(spi, secret), highest: 0, seen: 0 }
    }

    /// The IP packet inside; None for what is not of this association, was tampered with, or has been there before.
    pub(crate) fn open(&mut self, esp: &[u8]) -> Option<Vec<u8>> {
        let (header, rest) = esp.split_at_checked(HEADER)?;
        let (iv, sealed) = rest.split_at_checked(IV)?;
        let word = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
        let (spi, sequence) = (word(&header[..4])?, word(&header[4..])?);
        if spi != self.association.spi || !self.is_new(sequence) {
            return None;
        }
        let mut inside = sealed.to_vec();
        self.association.cipher.decrypt_in_place(&self.association.nonce(iv), header, &mut inside).ok()?;
        let [.., padding, next] = inside[..] else { return None };
        let len = inside.len().checked_sub(TRAILER + usize::from(padding))?;
        inside.truncate(len);
        if next_header(&inside) != Some(next) {
            return None;
        }
        self.note(sequence);
        Some(inside)
    }

    fn is_new(&self, sequence: u32) -> bool {
        match self.highest.checked_sub(sequence) {
            None => true,
            Some(age) => sequence > 0 && age < WINDOW && self.seen & 1 << age == 0,
        }
    }

    fn note(&mut self, sequence: u32) {
        match sequence.checked_sub(self.highest) {
            Some(ahead) => {
                self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
                self.highest = sequence;
            }
            None => self.seen |= 1 << (self.highest - sequence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPI: u32 = 0x0000_4321;
    const PACKET: &[u8] = b"E an IPv4 packet, or so";
    const PACKET_V6: &[u8] = b"`an IPv6 packet";

    fn ends() -> (Sender, Receiver) {
        let mut secret = [7; SECRET];
        secret[SECRET - 1] = 9;
        (Sender::new(SPI, &secret), Receiver::new(SPI, &secret))
    }

    #[test]
    fn packet_comes_out_as_it_went_in_and_cannot_be_read_between() {
        let (mut sender, mut receiver) = ends();
        for number in 1..=3_u32 {
            let sealed = sender.seal(PACKET).unwrap();
            assert_eq!(sealed[..4], SPI.to_be_bytes());
            assert_eq!(sealed[4..8], number.to_be_bytes());
            assert!(!sealed.windows(4).any(|bytes| PACKET.windows(4).any(|own| own == bytes)));
            assert_eq!((sealed.len() - TAG) % 4, 0, "RFC 4303, 2.4: what is encrypted ends on four bytes");
            assert_eq!(receiver.open(&sealed).as_deref(), Some(PACKET));
        }
    }

    #[test]
    fn packets_of_both_versions_are_told_apart_and_others_not_taken() {
        let (mut sender, mut receiver) = ends();
        for packet in [PACKET, PACKET_V6] {
            assert_eq!(receiver.open(&sender.seal(packet).unwrap()).as_deref(), Some(packet));
        }
        assert_eq!((sender.seal(b"Packet of version 5"), sender.seal(b"")), (None, None));
        // As IPv4 in the trailer, and IPv6 in itself.
        let sequence: u32 = 9;
        let (mut head, iv) = (SPI.to_be_bytes().to_vec(), u64::from(sequence).to_be_bytes());
        head.extend(sequence.to_be_bytes());
        let mut inside = [PACKET_V6, &[1, 1, IPV4]].concat();
        let own = &sender.association;
        own.cipher.encrypt_in_place(&own.nonce(&iv), &head, &mut inside).unwrap();
        assert_eq!(receiver.open(&[&head[..], &iv, &inside].concat()), None);
    }

    #[test]
    fn tampered_replayed_and_foreign_packets_are_refused() {
        let (mut sender, mut receiver) = ends();
        let sealed = sender.seal(PACKET).unwrap();
        for at in 0..sealed.len() {
            let mut spoilt = sealed.clone();
            spoilt[at] ^= 1;
            assert_eq!(receiver.open(&spoilt), None, "byte {at}");
        }
        for cut in 0..sealed.len() {
            assert_eq!(receiver.open(&sealed[..cut]), None, "{cut} bytes");
        }
        assert!(receiver.open(&sealed).is_some());
        assert_eq!(receiver.open(&sealed), None, "a second time");
        let mut other = Receiver::new(SPI, &[8; SECRET]);
        assert_eq!(other.open(&sender.seal(PACKET).unwrap()), None, "another key");
    }

    #[test]
    fn packets_out_of_order_are_taken_once_and_old_ones_not() {
        let (mut sender, mut receiver) = ends();
        let all: Vec<_> = (0..100).map(|_| sender.seal(PACKET).unwrap()).collect();
        for (number, taken) in
            [(1, true), (0, true), (1, false), (70, true), (7, true), (6, false), (69, true)]
        {
            assert_eq!(receiver.open(&all[number]).is_some(), taken, "packet {number}");
        }
        assert!(receiver.open(&all[99]).is_some() && receiver.open(&all[70]).is_none());
    }

    #[test]
    fn sender_stops_before_a_number_comes_again() {
        let (mut sender, _) = ends();
        sender.sequence = u32::MAX - 1;
        assert!(sender.seal(PACKET).is_some() && sender.seal(PACKET).is_none());
    }
}
