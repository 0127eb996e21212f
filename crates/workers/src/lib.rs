//! Spin-then-park fork-join over borrowed slices; the caller is worker 0.
