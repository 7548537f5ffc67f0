//! `podnetd`.

fn main() {}
