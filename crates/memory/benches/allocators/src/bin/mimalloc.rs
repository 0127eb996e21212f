//! mimalloc; set up by `MIMALLOC_PURGE_DELAY` and the like, purged by a forced collection.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    fn mi_collect(force: bool);
}

fn main() {
    let name = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "mimalloc".to_owned());
    // SAFETY: may be called at any time.
    allocators::run(&name, || unsafe { mi_collect(true) });
}
