//! What executes programs. One backend today: the CPU.

pub mod cpu;
mod spans;
