//! Work that takes long enough to keep other clients waiting goes to a thread of its own.

/// Input below this is worked on at once: it takes less than a millisecond.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// Does `work` on an input of so many bytes.
pub(crate) async fn run<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    if bytes <= INLINE_BYTES_MAX {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(format!("could not be worked on: {error}")),
    }
}
