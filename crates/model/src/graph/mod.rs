//! The program of a model: ops over declared buffers, and the plan that gives each buffer its
//! place in the step arena. `lower` fits it to the forms of the weights. The same list is sized here and executed by `backend`.

pub(crate) mod lower;
pub mod op;
pub mod plan;

pub use op::{Buffer, BufferId, EmbedIndex, NormKind, Op, Program, Rows, Stage, TensorId};
pub use plan::{ArenaPlan, StepLimits};
