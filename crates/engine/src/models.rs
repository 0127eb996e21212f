//! Several models under one budget: which of them are there, who uses them, who goes for whom.
//!
//! - `policy`: what is done next, as a pure function of plain data; `sim` drives it from a seed.
//! - `cache`, `lease`: ask for a model by name, get a lease when it is there. `state`: the books of it.
//!   `status`: what can be seen of them.
//! - `keeper`: the thread that loads and unloads as the policy says.
//! - `leaving`: how a model leaves its engine, charged until it is gone.
//! - `source`: what all this needs from those who know files, settings and engines.

mod cache;
mod keeper;
mod lease;
mod leaving;
mod policy;
#[cfg(test)]
mod sim;
mod source;
mod state;
mod status;
#[cfg(test)]
mod tests;

pub use cache::{CacheOptions, Denied, KeepAlive, ModelCache};
pub use keeper::Keeper;
pub use lease::{Acquire, Lease};
pub use leaving::unload;
pub use policy::{Eviction, Footprint};
pub use source::{Held, LoadError, ModelSource, Why, WhyKind};
pub use state::Shedded;
pub use status::{CacheTotals, ModelState, ModelStatus};
