//! Memory taken straight from the operating system: the only mmap of the whole program.
//!
//! A [`Region`] is address space of which a prefix can be used; what has been written of it is
//! resident, and [`Region::decommit`] gives pages back and says how many bytes really went. A region
//! charges nothing; a [`Mapping`](crate::mapping::Mapping) is one that is charged.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use crate::bytes::Bytes;
use crate::refusal::Refusal;

/// The size of a huge page on the machines this runs on (x86-64, and aarch64 with 4 KiB pages).
pub const HUGE_PAGE_LEN: usize = 2 << 20;

/// Pages that [`resident_len`] asks about in one system call; one byte of stack each.
const PAGES_PER_QUERY: usize = 4096;

/// Whether the kernel may back memory with huge pages.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum HugePages {
    /// It is asked to: fewer TLB misses for what is read as a whole, such as weights. Memory goes back
    /// in whole huge pages only.
    Advise,
    /// It must not: for memory that is given back in small pieces, which would be filled again behind
    /// our back.
    Never,
    /// As the machine is set up.
    Default,
}

/// Why memory could not be mapped or used.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The kernel refused.
    #[error(
        "{what} of {len} failed: {source}; the limits of the process (ulimit -v, \
         vm.overcommit_memory, vm.max_map_count) may be lower than its budget"
    )]
    Os {
        /// The step that failed.
        what: &'static str,
        /// Of how many bytes.
        len: Bytes,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A range that is not within the region.
    #[error("bytes {start}..{end} are outside a region of {len} bytes")]
    OutOfRange {
        /// Where the range starts.
        start: usize,
        /// Where it ends.
        end: usize,
        /// How long the region is.
        len: usize,
    },
    /// More than this address space has.
    #[error("{0} do not fit the address space")]
    TooLarge(Bytes),
    /// The rest of the last page did not fit the budget.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The length of a page of this machine in bytes.
pub fn page_len() -> usize {
    rustix::param::page_size()
}

/// What a mapping of `len` bytes is charged: whole pages.
pub fn charge_of(len: Bytes) -> Bytes {
    // Past u64::MAX no reservation succeeds either way.
    len.checked_round_up(page_len() as u64).unwrap_or(len)
}

fn os_error(what: &'static str, len: usize) -> impl FnOnce(rustix::io::Errno) -> RegionError {
    move |errno| RegionError::Os {
        what,
        len: Bytes::from(len),
        source: errno.into(),
    }
}

/// Address space that belongs to us, usable up to where it has been committed.
///
/// ```text
/// 0               committed                      len
/// |--- usable -------|------- no access -----------|
/// ```
///
/// Untouched bytes of the usable part read as zero and take no memory. The region itself charges
/// nothing: whoever commits holds the reservation.
pub struct Region {
    /// Aligned to a huge page where the region is that long, to a page otherwise; dangling where
    /// `mapped` is 0.
    base: NonNull<u8>,
    /// As asked for.
    len: usize,
    /// `len` in whole pages.
    mapped: usize,
    /// Usable bytes from the start: `len`, or whole pages below it.
    committed: usize,
    huge: HugePages,
}

// SAFETY: a region owns its memory alone; nothing in it is bound to a thread.
unsafe impl Send for Region {}
// SAFETY: shared access only reads (`as_slice`, `resident`); all that changes memory takes `&mut`.
unsafe impl Sync for Region {}

impl Region {
    /// Takes `len` bytes of address space, none of it usable yet.
    ///
    /// # Errors
    /// Where the kernel refuses or `len` is beyond the address space.
    #[allow(clippy::disallowed_methods, reason = "the one place that maps memory")]
    pub fn reserve(len: usize, huge: HugePages) -> Result<Region, RegionError> {
        let too_large = || RegionError::TooLarge(Bytes::from(len));
        let mapped = len
            .checked_next_multiple_of(page_len())
            .ok_or_else(too_large)?;
        if mapped == 0 {
            return Ok(Region {
                base: NonNull::dangling(),
                len,
                mapped,
                committed: 0,
                huge,
            });
        }
        // Too short for a huge page of its own, it must not share one with a neighbour either.
        let huge = if mapped < HUGE_PAGE_LEN {
            HugePages::Never
        } else {
            huge
        };
        // Room to move the start to a huge page's, cut off again below.
        let slack = if mapped >= HUGE_PAGE_LEN {
            HUGE_PAGE_LEN
        } else {
            0
        };
        let wide = mapped.checked_add(slack).ok_or_else(too_large)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no other
        // memory.
        let start = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), wide, ProtFlags::empty(), flags)
        }
        .map_err(os_error("mapping", wide))?;
        let start = start.cast::<u8>();
        let head = if slack > 0 {
            start.align_offset(HUGE_PAGE_LEN)
        } else {
            0
        };
        let tail = slack - head;
        // SAFETY: `head` and `tail` are whole pages at either end of the mapping just made
        // (`head + mapped + tail == wide`), to which nothing else points.
        unsafe {
            give_address_space_back(start, head);
            give_address_space_back(start.add(head + mapped), tail);
        }
        // SAFETY: `head` is within the mapping, see above.
        let base = unsafe { start.add(head) };
        let base = NonNull::new(base).expect("the kernel maps nothing at address 0");
        let region = Region {
            base,
            len,
            mapped,
            committed: 0,
            huge,
        };
        let advice = match huge {
            HugePages::Advise => Advice::LinuxHugepage,
            HugePages::Never => Advice::LinuxNoHugepage,
            HugePages::Default => return Ok(region),
        };
        // A kernel built without huge pages answers EINVAL: then there is nothing to ask for.
        // SAFETY: advice on huge pages changes no contents.
        let _ = unsafe { rustix::mm::madvise(region.base.as_ptr().cast(), mapped, advice) };
        Ok(region)
    }

    /// Address space in bytes, as asked for.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no address space at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Usable bytes from the start.
    pub fn committed(&self) -> usize {
        self.committed
    }

    /// The unit in which memory goes back: a huge page where the kernel may use them, else a page.
    pub fn unit(&self) -> usize {
        match self.huge {
            HugePages::Never => page_len(),
            HugePages::Advise | HugePages::Default => HUGE_PAGE_LEN,
        }
    }

    /// Makes everything up to the end of `range` usable. What was usable before stays as it is.
    ///
    /// # Errors
    /// Where the range is not within the region, or the kernel refuses.
    pub fn commit(&mut self, range: Range<usize>) -> Result<(), RegionError> {
        self.check(&range)?;
        if range.end <= self.committed {
            return Ok(());
        }
        // No overflow: at most `mapped`.
        let to = range.end.next_multiple_of(page_len());
        // SAFETY: `..to` is within this region's mapping.
        unsafe {
            rustix::mm::mprotect(
                self.base.as_ptr().cast(),
                to,
                MprotectFlags::READ | MprotectFlags::WRITE,
            )
        }
        .map_err(os_error("committing", to))?;
        self.committed = to.min(self.len);
        Ok(())
    }

    /// Gives the memory of the whole [units](Region::unit) within `range` back to the operating
    /// system and says how many bytes went. They stay usable and read as zero; the bytes of the range
    /// outside whole units are kept.
    ///
    /// The figure is measured, not taken from the range: pages never written had nothing to give.
    /// (Pages read but never written are counted too; they share one page of zeros.)
    ///
    /// # Errors
    /// Where the range is not usable, or the kernel refuses to release or to count.
    pub fn decommit(&mut self, range: Range<usize>) -> Result<Bytes, RegionError> {
        self.check_committed(&range)?;
        let unit = self.unit();
        // The region's last unit may be a part of one; no neighbour shares its pages.
        let start = range.start.next_multiple_of(unit);
        let end = if range.end == self.len {
            self.mapped
        } else {
            range.end / unit * unit
        };
        if start >= end {
            return Ok(Bytes::ZERO);
        }
        let before = self.resident_pages(start..end)?;
        // SAFETY: whole pages within this region; `&mut self` says that nobody looks at them, and
        // private anonymous memory reads as zero afterwards.
        unsafe {
            rustix::mm::madvise(
                self.base.as_ptr().add(start).cast(),
                end - start,
                Advice::LinuxDontNeed,
            )
        }
        .map_err(os_error("decommitting", end - start))?;
        let after = self.resident_pages(start..end)?;
        Ok(Bytes::from(before.saturating_sub(after) * page_len()))
    }

    /// Cuts the region off behind `len` bytes: address space and memory beyond their last page go
    /// back to the operating system, whatever the unit. Says how many bytes of memory went.
    ///
    /// # Errors
    /// Where it is shorter than that, or the kernel refuses to count; it is as it was then.
    pub fn truncate(&mut self, len: usize) -> Result<Bytes, RegionError> {
        self.check(&(0..len))?;
        // No overflow: at most `mapped`.
        let keep = len.next_multiple_of(page_len());
        let gone = self.resident_pages(keep..self.mapped)? * page_len();
        // SAFETY: whole pages at the end of this region, which nobody looks at (`&mut self`) and
        // nobody will reach again: all ranges are checked against the new lengths.
        unsafe { give_address_space_back(self.base.as_ptr().add(keep), self.mapped - keep) };
        self.len = len;
        self.mapped = keep;
        self.committed = self.committed.min(len);
        Ok(Bytes::from(gone))
    }

    /// Backs the pages of `range` with memory now instead of at first touch. Contents stay.
    ///
    /// # Errors
    /// Where the range is not usable, or the kernel has no memory.
    pub fn populate(&mut self, range: Range<usize>) -> Result<(), RegionError> {
        self.check_committed(&range)?;
        let page = page_len();
        let start = range.start / page * page;
        let end = range.end.next_multiple_of(page);
        if start >= end {
            return Ok(());
        }
        // SAFETY: whole pages within this region; faulting them in changes no contents.
        let populated = unsafe {
            rustix::mm::madvise(
                self.base.as_ptr().add(start).cast(),
                end - start,
                Advice::LinuxPopulateWrite,
            )
        };
        match populated {
            Ok(()) => Ok(()),
            // Before Linux 5.14 every page is touched by hand.
            Err(rustix::io::Errno::INVAL) => {
                for offset in (start..end).step_by(page) {
                    // SAFETY: within the usable part; `&mut self` makes this the only access. Volatile,
                    // so that writing back what was read is not optimised away.
                    unsafe {
                        let at = self.base.as_ptr().add(offset);
                        at.write_volatile(at.read_volatile());
                    }
                }
                Ok(())
            }
            Err(errno) => Err(os_error("populating", end - start)(errno)),
        }
    }

    /// How many bytes of `range` are backed by memory now, in whole pages.
    ///
    /// # Errors
    /// Where the range is not within the region, or the kernel does not tell.
    pub fn resident(&self, range: Range<usize>) -> Result<Bytes, RegionError> {
        self.check(&range)?;
        let page = page_len();
        let pages = range.start / page * page..range.end.next_multiple_of(page);
        Ok(Bytes::from(self.resident_pages(pages)? * page))
    }

    /// The usable bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `..committed` is readable, lives as long as `self`, and is written through
        // `&mut self` only. Where nothing is mapped, `base` is dangling and the length 0.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.committed) }
    }

    /// The usable bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`, and `&mut self` makes it the only access.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.committed) }
    }

    /// Where it starts, for who cuts it up (`span.rs`).
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    fn check(&self, range: &Range<usize>) -> Result<(), RegionError> {
        self.check_below(range, self.len)
    }

    fn check_committed(&self, range: &Range<usize>) -> Result<(), RegionError> {
        self.check_below(range, self.committed)
    }

    fn check_below(&self, range: &Range<usize>, len: usize) -> Result<(), RegionError> {
        if range.start <= range.end && range.end <= len {
            return Ok(());
        }
        Err(RegionError::OutOfRange {
            start: range.start,
            end: range.end,
            len,
        })
    }

    /// `pages` is within the mapping and starts and ends at pages.
    fn resident_pages(&self, pages: Range<usize>) -> Result<usize, RegionError> {
        let page = page_len();
        let mut answers = [0_u8; PAGES_PER_QUERY];
        let mut resident = 0;
        for start in pages.clone().step_by(PAGES_PER_QUERY * page) {
            let len = (pages.end - start).min(PAGES_PER_QUERY * page);
            // SAFETY: the range is mapped, starts at a page, and `answers` has a byte for each of
            // its pages.
            let code = unsafe {
                libc::mincore(
                    self.base.as_ptr().add(start).cast::<c_void>(),
                    len,
                    answers.as_mut_ptr().cast(),
                )
            };
            if code != 0 {
                return Err(RegionError::Os {
                    what: "counting the resident pages",
                    len: Bytes::from(len),
                    source: std::io::Error::last_os_error(),
                });
            }
            resident += answers[..len / page]
                .iter()
                .filter(|answer| **answer & 1 == 1)
                .count();
        }
        Ok(resident)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("len", &self.len)
            .field("committed", &self.committed)
            .field("huge", &self.huge)
            .finish_non_exhaustive()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is this region's alone, and every slice of it borrowed from it.
        unsafe { give_address_space_back(self.base.as_ptr(), self.mapped) }
    }
}

/// Unmaps whole pages; where the kernel cannot, because it would have to split a merged mapping and
/// has no room for one more, the memory at least goes back.
///
/// # Safety
/// `start..start + len` are whole pages of ours that nobody will touch again.
unsafe fn give_address_space_back(start: *mut u8, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    let unmapped = unsafe { rustix::mm::munmap(start.cast(), len) };
    if unmapped.is_err() {
        // SAFETY: the caller's promise.
        let _ = unsafe { rustix::mm::madvise(start.cast(), len, Advice::LinuxDontNeed) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_usable_up_to_where_it_is_committed() {
        let page = page_len();
        let mut region = Region::reserve(10 * page + 5, HugePages::Never).unwrap();
        assert_eq!((region.len(), region.committed()), (10 * page + 5, 0));
        assert!(region.as_slice().is_empty());
        region.commit(page..page + 1).unwrap();
        assert_eq!(region.committed(), 2 * page);
        region.as_mut_slice()[2 * page - 1] = 7;
        region.commit(0..10 * page + 5).unwrap();
        assert_eq!(region.as_slice().len(), 10 * page + 5);
        assert_eq!(region.as_slice()[2 * page - 1], 7);
        assert_eq!(region.as_slice()[10 * page + 4], 0);
    }

    #[test]
    fn decommit_gives_back_what_was_written_and_no_more() {
        let page = page_len();
        let mut region = Region::reserve(64 * page, HugePages::Never).unwrap();
        region.commit(0..64 * page).unwrap();
        region.as_mut_slice()[..10 * page].fill(1);
        assert_eq!(
            region.resident(0..64 * page).unwrap(),
            Bytes::from(10 * page)
        );
        // Of pages 1..63 nine were written; the half pages at the ends stay.
        let given = region.decommit(page / 2..63 * page + page / 2).unwrap();
        assert_eq!(given, Bytes::from(9 * page));
        assert_eq!(region.as_slice()[0], 1);
        assert!(region.as_slice()[page..].iter().all(|byte| *byte == 0));
        assert_eq!(
            region
                .decommit(0..64 * page)
                .map(|b| b.0 >= page as u64)
                .ok(),
            Some(true)
        );
        assert_eq!(region.resident(0..64 * page).unwrap(), Bytes::ZERO);
    }

    #[test]
    fn the_last_part_of_a_huge_page_goes_back_too() {
        let page = page_len();
        let len = HUGE_PAGE_LEN + 3 * page;
        let mut region = Region::reserve(len, HugePages::Advise).unwrap();
        assert_eq!(region.base.as_ptr() as usize % HUGE_PAGE_LEN, 0);
        region.commit(0..len).unwrap();
        region.populate(0..len).unwrap();
        assert_eq!(region.resident(0..len).unwrap(), Bytes::from(len));
        // Not a whole huge page: nothing goes.
        assert_eq!(region.decommit(0..HUGE_PAGE_LEN - 1).unwrap(), Bytes::ZERO);
        assert_eq!(region.decommit(0..len).unwrap(), Bytes::from(len));
    }

    #[test]
    fn what_is_cut_off_goes_back() {
        let page = page_len();
        for (huge, len) in [
            (HugePages::Never, 10 * page + 5),
            (HugePages::Advise, 3 * HUGE_PAGE_LEN + 5),
        ] {
            let mut region = Region::reserve(len, huge).unwrap();
            region.commit(0..len).unwrap();
            region.as_mut_slice().fill(7);
            assert!(region.truncate(len + 1).is_err());
            assert_eq!(
                region.truncate(len - 5 - page).unwrap(),
                Bytes::from(2 * page)
            );
            assert_eq!(
                region.truncate(page + 1).unwrap(),
                Bytes::from(len - 5 - 3 * page)
            );
            assert_eq!((region.len(), region.committed()), (page + 1, page + 1));
            assert!(region.as_slice().iter().all(|byte| *byte == 7));
            assert_eq!(region.resident(0..page + 1).unwrap(), Bytes::from(2 * page));
            assert!(region.commit(0..page + 2).is_err());
            assert_eq!(region.truncate(0).unwrap(), Bytes::from(2 * page));
            assert!(region.as_slice().is_empty());
        }
    }

    #[test]
    fn ranges_outside_are_refused() {
        let page = page_len();
        let mut region = Region::reserve(4 * page, HugePages::Default).unwrap();
        assert!(region.commit(0..4 * page + 1).is_err());
        assert!(region.decommit(0..page).is_err(), "not committed yet");
        assert!(region.populate(0..page).is_err(), "not committed yet");
        region.commit(0..page).unwrap();
        region.populate(0..page).unwrap();
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = region.resident(3..2);
        assert!(backwards.is_err());
        assert!(matches!(
            Region::reserve(usize::MAX, HugePages::Never),
            Err(RegionError::TooLarge(_))
        ));
        assert!(Region::reserve(1 << 60, HugePages::Never).is_err());
    }
}
