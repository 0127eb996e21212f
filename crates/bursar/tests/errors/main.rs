//! The error catalogue: every kind of error that a user can meet is provoked once, and must say what is
//! wrong, where, by how much where there is a figure, and what to do.
//!
//! The reference page is written from it: `BURSAR_WRITE_ERRORS=1 cargo test -p bursar --test errors`.

mod files;
mod http;
mod memory;
mod page;
mod serving;
mod settings;
#[path = "../cli/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the command line")]
mod support;

use page::Section;

/// M4
#[test]
fn every_error_names_what_where_how_much_and_the_remedy() {
    let sections: [Section; 5] = [
        settings::section(),
        files::section(),
        memory::section(),
        serving::section(),
        http::section(),
    ];
    let lacks: Vec<String> = sections.iter().flat_map(Section::lacks).collect();
    assert!(lacks.is_empty(), "{}", lacks.join("\n\n"));
    page::compare(&sections);
}
