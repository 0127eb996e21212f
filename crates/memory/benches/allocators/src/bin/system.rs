//! The C library's allocator: as it is, and with one arena, a fixed mapping threshold and trimming.

use std::alloc::System;

#[global_allocator]
static ALLOCATOR: System = System;

fn main() {
    let tuned = std::env::args().nth(1).is_some_and(|word| word == "tuned");
    if tuned {
        // SAFETY: plain settings, before any thread is started.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1);
            libc::mallopt(libc::M_MMAP_THRESHOLD, 128 << 10);
            libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
        }
    }
    let name = if tuned { "system tuned" } else { "system" };
    // SAFETY: may be called at any time.
    allocators::run(name, || unsafe {
        libc::malloc_trim(0);
    });
}
