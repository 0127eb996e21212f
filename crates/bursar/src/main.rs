//! The command line: parses arguments, composes the parts, reports.

fn main() {}
