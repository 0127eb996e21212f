//! rlsf: a two-level segregated fit in Rust, as Bursar's own heap is. It gives nothing back.

#[global_allocator]
static ALLOCATOR: rlsf::GlobalTlsf = rlsf::GlobalTlsf::new();

fn main() {
    allocators::run("rlsf", || ());
}
