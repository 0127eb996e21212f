//! The paged KV cache: layout, blocks, tables.
