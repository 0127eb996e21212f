//! The pools of a server: made before models are planned, so that the plans know what is left, and asked
//! at the end what never came back.

use bursar_memory::{Ledger, Lifetime, PoolError, Pools};

use crate::config::Settings;
use crate::failure::Failure;

/// Events of a trace that are kept, the last ones: 5 MiB of them.
const RECORDED: usize = 1 << 17;

/// Makes the pools on an account of their own.
///
/// # Errors
/// Where settings do not go together, or what was asked for does not fit. Where nobody asked for
/// anything, a budget too small for a heap is served without pools.
pub(super) fn start(settings: &Settings, ledger: &Ledger) -> Result<Pools, Failure> {
    let account = ledger.root().child("pools", Lifetime::Procedural);
    let options = settings.pools_options(ledger.budget());
    let options = options.map_err(|error| Failure::usage(error.to_string()))?;
    let pools = match Pools::start(&options, &account) {
        Ok(pools) => Ok(pools),
        Err(PoolError::Refused(refusal)) if settings.pools_are_as_usual() => {
            eprintln!("note: pools are off, since the budget has no room for a heap: {refusal}");
            Ok(Pools::off(&account))
        }
        Err(PoolError::Refused(refusal)) => Err(Failure::does_not_fit(refusal.to_string()).help(
            "have fewer or smaller heaps (pool.heaps, pool.heap_size), or none with --no-pool",
        )),
        Err(error) => Err(Failure::failed(error.to_string())),
    }?;
    if let Some(path) = settings.pool_record() {
        // A folder that is not there is said now, and not when all is over.
        std::fs::File::create(path).map_err(|error| Failure::io("write", path, &error))?;
        let started = pools.recorder().start(RECORDED, &account);
        started.map_err(|refusal| {
            Failure::does_not_fit(refusal.to_string()).help("record nothing (pool.record)")
        })?;
    }
    Ok(pools)
}

/// Writes down what was recorded, where that was wanted.
pub(super) fn write_trace(settings: &Settings, pools: &Pools) -> Result<(), Failure> {
    let (Some(path), Some(trace)) = (settings.pool_record(), pools.recorder().stop()) else {
        return Ok(());
    };
    let lost = match trace.lost_events {
        0 => String::new(),
        lost => format!(", after {lost} that are lost"),
    };
    std::fs::write(path, trace.to_json()).map_err(|error| Failure::io("write", path, &error))?;
    eprintln!(
        "{} events of the pools{lost} are in {}: bursar memory --trace {} --svg FILE draws them",
        trace.events.len(),
        path.display(),
        path.display()
    );
    Ok(())
}

/// Says on stderr which buffers are out, now that none should be.
pub(super) fn tell_leaks(pools: &Pools) {
    for leak in pools.out() {
        eprintln!("warning: never given back: {leak}");
    }
}
