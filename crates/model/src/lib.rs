//! Architectures as op lists over planned buffers, weights, and the CPU backend.
