//! How many tokens a batch of texts may have, where bytes are given: found by planning, because a
//! plan is exact and a rule of thumb is not.

use bursar_memory::Bytes;

use crate::EngineError;

/// Tokens come in whole blocks of a pass's own keys and values.
const STEP: usize = 16;
/// More tokens in one pass make nothing faster on any machine there is.
const MOST: usize = 1 << 17;

/// The most tokens, at least `least` of them, whose activations are no more than `bytes`; the error is
/// what `least` tokens take if that is more. `bytes_of` plans a batch, and grows with its tokens.
pub(super) fn tokens_within(
    bytes: Bytes,
    least: usize,
    bytes_of: impl Fn(usize) -> Result<Bytes, EngineError>,
) -> Result<Result<usize, Bytes>, EngineError> {
    let least = least.div_ceil(STEP).max(1);
    let needed = bytes_of(least * STEP)?;
    if needed > bytes {
        return Ok(Err(needed));
    }
    // `low` fits, `high` does not or is too many.
    let (mut low, mut high) = (least, (MOST / STEP).max(least) + 1);
    while low + 1 < high {
        let middle = low.midpoint(high);
        if bytes_of(middle * STEP)? <= bytes {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(Ok(low * STEP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_fit_are_found() {
        for slope in [1_u64, 7, 4096, 1 << 20] {
            let bytes_of = |tokens: usize| Ok(Bytes(1000 + slope * tokens as u64));
            for least in [1, 16, 17, 500] {
                for room in [0, 1000, 1016, 5000, 1 << 20, 1 << 33] {
                    let found = tokens_within(Bytes(room), least, bytes_of).expect("planned");
                    let first = least.next_multiple_of(STEP);
                    let fits = |tokens: usize| 1000 + slope * tokens as u64 <= room;
                    match found {
                        Ok(tokens) => {
                            assert!(fits(tokens) && tokens >= first && tokens % STEP == 0);
                            assert!(!fits(tokens + STEP) || tokens == MOST);
                        }
                        Err(needed) => {
                            assert!(!fits(first));
                            assert_eq!(needed, Bytes(1000 + slope * first as u64));
                        }
                    }
                }
            }
        }
    }
}
