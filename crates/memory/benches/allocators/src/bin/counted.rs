//! What Bursar runs on: the C library's allocator, set up and counted by `bursar_memory::counting`.

use bursar_memory::counting::{self, ProcessAllocator};

#[global_allocator]
static ALLOCATOR: ProcessAllocator = counting::process_allocator();

fn main() {
    counting::configure();
    allocators::run("system tuned, counted", || {
        counting::purge();
    });
}
