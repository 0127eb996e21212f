//! jemalloc; set up by `_RJEM_MALLOC_CONF`, purged through its control interface.

use std::ptr::null_mut;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let name = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "jemalloc".to_owned());
    allocators::run(&name, || {
        command(c"thread.tcache.flush");
        // 4096 stands for all arenas.
        command(c"arena.4096.purge");
    });
}

fn command(name: &std::ffi::CStr) {
    // SAFETY: these commands neither take nor give a value.
    let code =
        unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), null_mut(), null_mut(), null_mut(), 0) };
    // Where the thread cache is off there is none to flush.
    assert!(code == 0 || code == libc::EFAULT, "{name:?}: {code}");
}
