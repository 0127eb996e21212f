#!/bin/sh
# Prints what each process allocator keeps resident, in KiB; three runs each, in turn.
# Needs a C compiler for the two that are written in C.
set -eu
cd "$(dirname "$0")"
cargo build --quiet --release
bin="${CARGO_TARGET_DIR:-target}/release"
lean="narenas:1,dirty_decay_ms:0,muzzy_decay_ms:0"
later="narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0"
for _ in 1 2 3; do
    "$bin/system"
    "$bin/system" tuned
    "$bin/counted"
    "$bin/jemalloc" "jemalloc"
    _RJEM_MALLOC_CONF="$later" "$bin/jemalloc" "jemalloc 1 arena"
    _RJEM_MALLOC_CONF="$lean" "$bin/jemalloc" "jemalloc 1, decay 0"
    _RJEM_MALLOC_CONF="$lean,tcache:false" "$bin/jemalloc" "jemalloc 1, 0, no tc"
    "$bin/mimalloc" "mimalloc"
    MIMALLOC_PURGE_DELAY=0 MIMALLOC_ARENA_EAGER_COMMIT=0 "$bin/mimalloc" "mimalloc delay 0"
done
