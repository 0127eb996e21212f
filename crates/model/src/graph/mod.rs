//! The program of a model: ops over declared buffers, and the plan that gives each buffer its
//! place in the step arena. The same list is sized here and executed by `backend`.

pub mod op;
pub mod plan;

pub use op::{Buffer, BufferId, EmbedIndex, NormKind, Op, Program, Rows, Stage, TensorId};
pub use plan::{ArenaPlan, StepLimits};
