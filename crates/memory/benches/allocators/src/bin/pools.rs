//! Bursar's pools, over heaps and over the process allocator; for traces only.

use bursar_memory::heap_pool::Strategy;
use bursar_memory::trace::Way;

fn main() {
    for (name, buffers) in [("pools", true), ("pools, heaps alone", false)] {
        let way = Way::Pools {
            strategy: Strategy::default(),
            membranes: None,
            buffers,
        };
        if !allocators::traced(name, way) {
            eprintln!("pools: set ALLOCATORS_TRACE to a trace");
        }
    }
}
