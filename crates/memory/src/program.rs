//! The program's own pages: code and constants, mapped from files by the loader.
//!
//! A plan counts all of them, because any may be touched. Left alone, a process touches a third, and
//! the rest comes one fault at a time, whenever a path is first taken; made resident at the start,
//! the figure is true from then on. They stay shared with other processes, and the kernel may still
//! take them back.

#![allow(unsafe_code)]

use std::io;

use bursar_profile::Probe;
use rustix::mm::Advice;

use crate::bytes::Bytes;

/// Backs every page of the program and its libraries with memory now instead of at first touch, and
/// says how many bytes they are.
///
/// # Errors
/// Where the kernel does not tell what is mapped, or cannot (before Linux 5.14).
pub fn make_resident() -> io::Result<Bytes> {
    let code = Probe::default().code().ok_or(io::ErrorKind::Unsupported)?;
    for mapping in &code.mappings {
        let start = std::ptr::without_provenance_mut(mapping.start);
        // SAFETY: this advice reads pages in, as if each had been read once; it changes neither
        // contents nor what is mapped, wherever it is given.
        unsafe { rustix::mm::madvise(start, mapping.len(), Advice::LinuxPopulateRead) }?;
    }
    Ok(Bytes(code.mapped_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_program_is_there_afterwards() {
        let Ok(bytes) = make_resident() else {
            return;
        };
        let code = Probe::default().code().unwrap();
        assert!(bytes > Bytes::ZERO);
        // Written pages are copies, and do not count among those of the files.
        let there = code.resident_bytes + code.written_bytes;
        assert!(there * 10 >= code.mapped_bytes * 9, "{code:?}");
    }
}
