//! Repository chores: `cargo xtask ci` runs what continuous integration runs.

fn main() {}
