//! Block formats, packed panels, matrix products and attention for CPUs; plain data in, plain data out.
#![deny(unsafe_code)]

pub mod mat;
