//! Work that takes long enough to keep other clients waiting goes to a thread of its own.

use crate::charge::Charge;

/// Input below this is worked on at once: it takes less than a millisecond.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// Does `work` on an input of so many bytes. Who asked may go away meanwhile, but the work goes on to
/// its end, and what it takes stays charged until then.
pub(crate) async fn run<T: Send + 'static>(
    bytes: usize,
    charge: &mut Charge,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    if bytes <= INLINE_BYTES_MAX {
        return work();
    }
    let lent = charge.lend();
    match tokio::task::spawn_blocking(move || (work(), lent)).await {
        Ok((result, lent)) => {
            *charge = lent;
            result
        }
        Err(error) => Err(format!("could not be worked on: {error}")),
    }
}
