//! Putting a bundle together.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::{Bundle, MANIFEST, Manifest, PARTS};

/// Writes a bundle. Its manifest comes first, so that whoever looks into it sees at once what there is.
///
/// # Errors
/// The writer's below.
pub fn write<W: Write>(out: W, bundle: &Bundle) -> io::Result<W> {
    let mut archive = Builder::new(GzEncoder::new(out, Compression::default()));
    let manifest = serde_json::to_vec_pretty(&Manifest::of(bundle))?;
    append(&mut archive, MANIFEST, &manifest)?;
    for (name, part) in PARTS.iter().zip(bundle.parts()) {
        append(&mut archive, name, part)?;
    }
    archive.into_inner()?.finish()
}

fn append<W: Write>(archive: &mut Builder<W>, name: &str, part: &[u8]) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_size(part.len() as u64);
    header.set_mode(0o644);
    // No owner and no time: the same evidence is the same file.
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    archive.append_data(&mut header, name, part)
}
