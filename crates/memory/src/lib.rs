//! The ledger and everything that holds bytes: regions, heaps, the counting allocator.
