//! Block formats, packed panels, matrix products and attention for CPUs; plain data in, plain data out.
