//! The program's own pages: code and constants, mapped from files by the loader.
//!
//! A plan counts all of them, because any may be touched. Left alone, a process touches a third, and
//! the rest comes one fault at a time, whenever a path is first taken; made resident at the start,
//! the figure is true from then on. They stay shared with other processes, and the kernel may still
//! take them back.
//!
//! Bundled models are pages of the program too, but of another kind: read once, piece by piece, as a
//! file is. They are neither counted nor made resident, and [`release`] gives back what was touched.

#![allow(unsafe_code)]

use std::io;
use std::ops::Range;

use bursar_profile::Probe;
use rustix::mm::Advice;

use crate::bytes::Bytes;

/// Backs every page of the program and its libraries with memory now instead of at first touch, and
/// says how many bytes they are. Whole pages of `apart` are left out.
///
/// # Errors
/// Where the kernel does not tell what is mapped, or cannot (before Linux 5.14).
pub fn make_resident(apart: &[&'static [u8]]) -> io::Result<Bytes> {
    let code = Probe::default().code().ok_or(io::ErrorKind::Unsupported)?;
    let apart: Vec<Range<usize>> = apart.iter().map(|bytes| whole_pages(bytes)).collect();
    let mut populated = 0;
    for mapping in &code.mappings {
        for part in without(mapping.clone(), &apart) {
            let start = std::ptr::without_provenance_mut(part.start);
            // SAFETY: this advice reads pages in, as if each had been read once; it changes neither
            // contents nor what is mapped, wherever it is given.
            unsafe { rustix::mm::madvise(start, part.len(), Advice::LinuxPopulateRead) }?;
            populated += part.len();
        }
    }
    Ok(Bytes(populated as u64))
}

/// Whole pages of `apart` in bytes: what [`make_resident`] leaves out.
pub fn pages_of(apart: &[&'static [u8]]) -> Bytes {
    let bytes = apart.iter().map(|bytes| whole_pages(bytes).len() as u64);
    Bytes(bytes.sum())
}

/// Gives the memory behind whole pages of `bytes` back; they are read from the program's file again
/// when they are touched. Does nothing with bytes that are not constants of the program.
pub fn release(bytes: &'static [u8]) {
    let pages = whole_pages(bytes);
    if pages.is_empty() || !is_constant(&pages) {
        return;
    }
    let start = std::ptr::without_provenance_mut(pages.start);
    // SAFETY: all pages are within one private mapping of a file that cannot be written through, and
    // hold nothing but bytes that were never written: what is read next, from the file, is the same.
    // Where the kernel refuses, the pages stay.
    let _ = unsafe { rustix::mm::madvise(start, pages.len(), Advice::LinuxDontNeed) };
}

/// Whether all of a range is in one mapping of a file, private and not writable.
fn is_constant(pages: &Range<usize>) -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return false;
    };
    maps.lines().any(|line| {
        // `address perms offset device inode path`
        let mut words = line.split_ascii_whitespace();
        let (Some(addresses), Some(flags)) = (words.next(), words.next()) else {
            return false;
        };
        let path = words.nth(3).unwrap_or_default();
        let address = |text| usize::from_str_radix(text, 16).ok();
        let holds = addresses.split_once('-').is_some_and(|(start, end)| {
            address(start).is_some_and(|start| start <= pages.start)
                && address(end).is_some_and(|end| pages.end <= end)
        });
        let constant = flags.starts_with("r-") && flags.ends_with('p');
        holds && constant && path.starts_with('/') && !path.starts_with("/dev/")
    })
}

/// The addresses of the pages that hold nothing but these bytes.
fn whole_pages(bytes: &'static [u8]) -> Range<usize> {
    let page = crate::region::page_len();
    let start = bytes.as_ptr().addr();
    let end = (start + bytes.len()) / page * page;
    let start = start.next_multiple_of(page);
    start..end.max(start)
}

/// What is left of a range.
fn without(range: Range<usize>, apart: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut parts = vec![range];
    for hole in apart.iter().filter(|hole| !hole.is_empty()) {
        parts = parts
            .into_iter()
            .flat_map(|part| {
                let before = part.start..part.end.min(hole.start);
                let after = part.start.max(hole.end)..part.end;
                [before, after]
            })
            .filter(|part| !part.is_empty())
            .collect();
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::*;

    #[test]
    fn all_of_the_program_is_there_afterwards() {
        let Ok(bytes) = make_resident(&[]) else {
            return;
        };
        let code = Probe::default().code().unwrap();
        assert!(bytes > Bytes::ZERO);
        // Written pages are copies, and do not count among those of the files.
        let there = code.resident_bytes + code.written_bytes;
        assert!(there * 10 >= code.mapped_bytes * 9, "{code:?}");
    }

    #[test]
    fn ranges_are_cut_out_of_ranges() {
        let check = |range: Range<usize>, apart: &[(usize, usize)], expected: &[(usize, usize)]| {
            let apart: Vec<Range<usize>> = apart.iter().map(|&(start, end)| start..end).collect();
            let left = without(range, &apart);
            let left: Vec<(usize, usize)> =
                left.iter().map(|part| (part.start, part.end)).collect();
            assert_eq!(left, expected);
        };
        check(2..10, &[], &[(2, 10)]);
        check(2..10, &[(4, 6)], &[(2, 4), (6, 10)]);
        check(2..10, &[(0, 3), (9, 20), (5, 5)], &[(3, 9)]);
        check(2..10, &[(10, 20), (0, 2)], &[(2, 10)]);
        check(2..10, &[(0, 10)], &[]);
    }

    #[test]
    fn what_is_released_is_still_the_same() {
        static CONSTANT: [u8; 1 << 20] = pattern();
        const fn pattern() -> [u8; 1 << 20] {
            let mut bytes = [0; 1 << 20];
            let mut at = 0;
            while at < bytes.len() {
                bytes[at] = (at >> 8) as u8;
                at += 256;
            }
            bytes
        }
        let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        let before = sum(&CONSTANT);
        release(&CONSTANT);
        release(&CONSTANT[..10]);
        assert_eq!(sum(&CONSTANT), before);
        assert!(pages_of(&[&CONSTANT]) >= Bytes((1 << 20) - (64 << 10)));
        // Bytes that only pretend to be the program's are left alone.
        static HEAP: OnceLock<Vec<u8>> = OnceLock::new();
        let heap = HEAP.get_or_init(|| vec![7; 1 << 20]);
        release(heap);
        assert_eq!(sum(heap), 7 << 20);
    }
}
