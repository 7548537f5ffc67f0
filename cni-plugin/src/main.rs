//! podnet
fn main() {}
