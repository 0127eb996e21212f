#!/bin/sh
# Prints what a take or a give of a recorded trace costs by each allocator and by Bursar's pools; three
# runs each, in turn. The trace is written by `bursar serve --pool-record FILE`.
set -eu
ALLOCATORS_TRACE=$(realpath "${1:?the trace}")
export ALLOCATORS_TRACE
cd "$(dirname "$0")"
cargo build --quiet --release
bin="${CARGO_TARGET_DIR:-target}/release"
for _ in 1 2 3; do
    "$bin/system"
    "$bin/jemalloc"
    "$bin/rlsf"
    "$bin/pools"
done
