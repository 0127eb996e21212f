//! The program as a user meets it: arguments, environment and files in; stdout, stderr and exit
//! codes out.

mod bench;
mod bench_serve;
#[cfg(feature = "pocket")]
mod bundled;
mod cgroup;
mod compare;
mod config;
mod doctor;
mod embed;
mod errors;
mod plan;
mod run;
#[path = "../../../server/tests/openapi/schema.rs"]
mod schema;
mod search;
mod serve;
mod show;
mod stacks;
mod support;
mod top;
mod tune;
