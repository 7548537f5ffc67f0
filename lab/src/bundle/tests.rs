//! Bundles that are whole, and each way in which one is not.

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::*;

fn bundle() -> Bundle {
    Bundle {
        versions: b"{}".to_vec(),
        cni: b"{\"a\":1}\n".to_vec(),
        verdicts: b"{\"passed\":1}".to_vec(),
        packets: vec![7; 5000],
        ..Bundle::default()
    }
}

/// An archive of these entries: name, kind, content.
fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, kind, content) in entries {
        let mut header = Header::new_ustar();
        // As it stands, `..` included, which the crate's own way of setting a name refuses.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

/// The bundle with a manifest of its own and one part replaced.
fn with(manifest: &Manifest, name: &str, content: &[u8]) -> Vec<u8> {
    let bundle = bundle();
    let manifest = serde_json::to_vec(manifest).unwrap();
    let mut entries: Vec<(&str, EntryType, &[u8])> = vec![(MANIFEST, EntryType::Regular, &manifest)];
    for (part, own) in PARTS.iter().zip(bundle.parts()) {
        entries.push((part, EntryType::Regular, if *part == name { content } else { own }));
    }
    archive(&entries)
}

fn refused(bytes: &[u8]) -> String {
    read(bytes, Limits::default()).unwrap_err()
}

#[test]
fn bundle_is_read_again_and_the_same_evidence_is_the_same_file() {
    let bytes = write(Vec::new(), &bundle()).unwrap();
    assert_eq!(read(&bytes[..], Limits::default()), Ok(bundle()));
    assert_eq!(write(Vec::new(), &bundle()).unwrap(), bytes);
}

#[test]
fn changed_part_is_refused_unless_its_checksum_was_made_again() {
    let manifest = Manifest::of(&bundle());
    let edited = b"{\"passed\":2}";
    let words = refused(&with(&manifest, "verdicts.json", edited));
    assert!(words.starts_with("verdicts.json was changed: 12 bytes, SHA-256 "), "{words}");
    let forged = Manifest::of(&Bundle { verdicts: edited.to_vec(), ..bundle() });
    let read = read(&with(&forged, "verdicts.json", edited)[..], Limits::default()).unwrap();
    assert_eq!(read.verdicts, edited);
}

#[test]
fn strange_entries_are_refused_by_name_and_kind() {
    for name in ["../../etc/passwd", "/etc/passwd", "./plan.json", "plan.json/", "extra.json"] {
        let words = refused(&archive(&[(name, EntryType::Regular, b"x")]));
        assert_eq!(words, format!("{name:?} is no part of a bundle"));
    }
    for kind in [EntryType::Symlink, EntryType::Link, EntryType::Directory, EntryType::Fifo, EntryType::Char]
    {
        assert_eq!(refused(&archive(&[("plan.json", kind, b"")])), "plan.json is no regular file");
    }
    let twice = archive(&[("plan.json", EntryType::Regular, b"a"), ("plan.json", EntryType::Regular, b"b")]);
    assert_eq!(refused(&twice), "plan.json is there twice");
}

#[test]
fn what_is_missing_or_not_in_the_manifest_is_named() {
    assert_eq!(refused(&archive(&[])), "manifest.json is missing");
    assert!(refused(b"not gzip").starts_with("no bundle: "));
    let whole = write(Vec::new(), &bundle()).unwrap();
    assert!(read(&whole[..whole.len() / 2], Limits::default()).is_err());
    let mut manifest = Manifest::of(&bundle());
    let only = serde_json::to_vec(&manifest).unwrap();
    assert_eq!(refused(&archive(&[(MANIFEST, EntryType::Regular, &only)])), "versions.json is missing");
    manifest.parts.remove("plan.json");
    assert_eq!(refused(&with(&manifest, "", b"")), "manifest.json does not name plan.json");
    manifest.parts.insert("secrets.json".into(), Entry::of(b""));
    assert_eq!(refused(&with(&manifest, "", b"")), "manifest.json: \"secrets.json\" is no part of a bundle");
    manifest.schema = "podlab.bundle/9".into();
    assert!(refused(&with(&manifest, "", b"")).contains("schema \"podlab.bundle/9\""));
}

#[test]
fn sizes_are_limited_packed_and_unpacked() {
    let bytes = write(Vec::new(), &bundle()).unwrap();
    let limited = |part, whole| read(&bytes[..], Limits { part, whole }).unwrap_err();
    assert_eq!(limited(4999, 1 << 20), "packets.pcapng has 5000 bytes, more than 4999");
    assert!(limited(5000, 6000).contains("larger than a bundle may be"));
    // A size that the archive only claims.
    let mut header = Header::new_ustar();
    header.set_path("packets.pcapng").unwrap();
    header.set_entry_type(EntryType::Regular);
    header.set_size(u64::MAX / 2);
    header.set_cksum();
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    archive.append(&header, &b"little"[..]).unwrap();
    let bytes = archive.into_inner().unwrap().finish().unwrap();
    assert!(refused(&bytes).starts_with("packets.pcapng has 9223372036854775807 bytes"));
}
