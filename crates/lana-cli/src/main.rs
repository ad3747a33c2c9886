//! The lana command line.
fn main() {}
