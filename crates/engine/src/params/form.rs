//! The binary form of parameters: what is hashed and compared in the pool, and as short as it can be,
//! since most requests leave most parameters alone. Equal forms mean equal answers.
//!
//! ```text
//! byte 0        the form's version, 1
//! bytes 1..3    u16: bit i is set where field i is not neutral, and follows
//!               0 temperature  1 top_k  2 top_p  3 min_p
//!               4 presence  5 frequency  6 repetition  7 min_tokens  8 logit_bias
//! then          the fields that are set, in that order:
//!               floats as 4 bytes; counts as LEB128; logit_bias as a count of entries and, for each,
//!               the token less that of the entry before, then the bias
//! ```
//!
//! All numbers are little-endian. A float of minus zero is written as zero. Biases are in the order of
//! their tokens; those of one token keep the order in which they are added.

use super::{GenerateParams, Penalties};
use crate::sample::SamplingParams;

const VERSION: u8 = 1;
/// Bits that mean something.
const FIELDS: u16 = (1 << 9) - 1;
/// Version and fields.
const HEAD_BYTES: usize = 3;

/// Why bytes are not parameters.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    /// They are of another version.
    #[error("parameters are in form {0}, and only form {VERSION} is known")]
    Version(u8),
    /// They end too early.
    #[error("parameters end at byte {0}, in the middle of a field")]
    Short(usize),
    /// A field is not as it would have been written.
    #[error("parameters have a field at byte {0} that is never written so")]
    Field(usize),
}

/// Appends the form of `params` to `form`.
pub(super) fn write(params: &GenerateParams, form: &mut Vec<u8>) {
    let begin = form.len();
    form.extend([VERSION, 0, 0]);
    let mut fields = 0u16;
    let neutral = GenerateParams::default();
    let floats = |params: &GenerateParams| {
        let (sampling, penalties) = (&params.sampling, params.penalties);
        [
            (0, sampling.temperature),
            (2, sampling.top_p),
            (3, sampling.min_p),
            (4, penalties.presence),
            (5, penalties.frequency),
            (6, penalties.repetition),
        ]
    };
    let mut counts = [
        (1, params.sampling.top_k as u64),
        (7, params.min_tokens as u64),
    ]
    .into_iter()
    .peekable();
    for ((bit, value), (_, plain)) in floats(params).into_iter().zip(floats(&neutral)) {
        if let Some((at, count)) = counts.next_if(|(at, _)| *at < bit)
            && count != 0
        {
            fields |= 1 << at;
            write_count(count, form);
        }
        // By their bits, so that what is not a number has a form too.
        let bits = (value + 0.0).to_bits();
        if bits != plain.to_bits() {
            fields |= 1 << bit;
            form.extend(bits.to_le_bytes());
        }
    }
    for (at, count) in counts.filter(|(_, count)| *count != 0) {
        fields |= 1 << at;
        write_count(count, form);
    }
    if !params.logit_bias.is_empty() {
        fields |= 1 << 8;
        write_count(params.logit_bias.len() as u64, form);
        let mut write_all = |biases: &[(u32, f32)]| {
            let mut before = 0;
            for &(token, bias) in biases {
                write_count(u64::from(token - before), form);
                form.extend((bias + 0.0).to_bits().to_le_bytes());
                before = token;
            }
        };
        match params.logit_bias.is_sorted_by_key(|(token, _)| *token) {
            true => write_all(&params.logit_bias),
            false => {
                let mut sorted = params.logit_bias.clone();
                sorted.sort_by_key(|(token, _)| *token);
                write_all(&sorted);
            }
        }
    }
    form[begin + 1..begin + HEAD_BYTES].copy_from_slice(&fields.to_le_bytes());
}

/// The parameters of a form, biases in its order.
///
/// # Errors
/// Where the bytes are none that [`write`] makes.
pub(super) fn read(form: &[u8]) -> Result<GenerateParams, FormError> {
    let mut from = Reader { form, at: 0 };
    let [version, low, high] = from.take::<HEAD_BYTES>()?;
    if version != VERSION {
        return Err(FormError::Version(version));
    }
    let fields = u16::from_le_bytes([low, high]);
    if fields & !FIELDS != 0 {
        return Err(FormError::Field(1));
    }
    let has = |bit: u16| fields & (1 << bit) != 0;
    let GenerateParams {
        sampling:
            SamplingParams {
                mut temperature,
                mut top_k,
                mut top_p,
                mut min_p,
            },
        penalties:
            Penalties {
                mut presence,
                mut frequency,
                mut repetition,
            },
        mut logit_bias,
        mut min_tokens,
    } = GenerateParams::default();
    if has(0) {
        temperature = from.float(temperature)?;
    }
    if has(1) {
        top_k = from.count()?;
    }
    for (bit, value) in [
        (2, &mut top_p),
        (3, &mut min_p),
        (4, &mut presence),
        (5, &mut frequency),
        (6, &mut repetition),
    ] {
        if has(bit) {
            *value = from.float(*value)?;
        }
    }
    if has(7) {
        min_tokens = from.count()?;
    }
    if has(8) {
        let count = from.count()?;
        // Five bytes each at least: no more room is made than there can be entries.
        logit_bias.reserve_exact(count.min(form.len() / 5));
        let mut token = 0u32;
        for _ in 0..count {
            let at = from.at;
            let further = u32::try_from(from.number()?).ok();
            let next = further.and_then(|further| token.checked_add(further));
            token = next.ok_or(FormError::Field(at))?;
            let bias = f32::from_bits(u32::from_le_bytes(from.take()?));
            logit_bias.push((token, bias));
        }
    }
    if from.at != form.len() {
        return Err(FormError::Field(from.at));
    }
    Ok(GenerateParams {
        sampling: SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
        },
        penalties: Penalties {
            presence,
            frequency,
            repetition,
        },
        logit_bias,
        min_tokens,
    })
}

/// Seven bits a byte, the lowest first; all but the last have the eighth set (LEB128).
fn write_count(mut count: u64, form: &mut Vec<u8>) {
    loop {
        let low = (count & 0x7f) as u8;
        count >>= 7;
        if count == 0 {
            form.push(low);
            return;
        }
        form.push(low | 0x80);
    }
}

struct Reader<'a> {
    form: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FormError> {
        let bytes = self.form[self.at..].first_chunk::<N>();
        let bytes = bytes.ok_or(FormError::Short(self.form.len()))?;
        self.at += N;
        Ok(*bytes)
    }

    /// A float that is not `plain`, or it would not be there.
    fn float(&mut self, plain: f32) -> Result<f32, FormError> {
        let at = self.at;
        let value = f32::from_bits(u32::from_le_bytes(self.take()?));
        match value.to_bits() == plain.to_bits() || value.to_bits() == (-0.0f32).to_bits() {
            true => Err(FormError::Field(at)),
            false => Ok(value),
        }
    }

    fn number(&mut self) -> Result<u64, FormError> {
        let begin = self.at;
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            let low = u64::from(byte & 0x7f);
            if low << shift >> shift != low || (byte == 0 && shift > 0) {
                break;
            }
            number |= low << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(FormError::Field(begin))
    }

    /// A count that is not 0, or it would not be there.
    fn count(&mut self) -> Result<usize, FormError> {
        let at = self.at;
        let count = usize::try_from(self.number()?).ok();
        count.filter(|count| *count > 0).ok_or(FormError::Field(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn form(params: &GenerateParams) -> Vec<u8> {
        let mut form = Vec::new();
        write(params, &mut form);
        form
    }

    prop_compose! {
        fn any_params()(
            floats in prop::array::uniform6(prop_oneof![
                Just(0.0f32), Just(-0.0), Just(1.0), -100.0f32..100.0
            ]),
            top_k in prop_oneof![Just(0usize), 0..300usize, any::<usize>()],
            min_tokens in prop_oneof![Just(0usize), any::<usize>()],
            logit_bias in prop::collection::vec(
                (prop_oneof![0..400u32, any::<u32>()], -100.0f32..100.0), 0..12
            ),
        ) -> GenerateParams {
            let [temperature, top_p, min_p, presence, frequency, repetition] = floats;
            GenerateParams {
                sampling: SamplingParams { temperature, top_k, top_p, min_p },
                penalties: Penalties { presence, frequency, repetition },
                logit_bias,
                min_tokens,
            }
        }
    }

    proptest! {
        /// A2: what is read back is what was written, but for the order of biases, and is written the
        /// same again.
        #[test]
        fn what_was_written_is_read_back(params in any_params()) {
            let written = form(&params);
            let back = read(&written).expect("it was just written");
            let mut sorted = params.clone();
            sorted.logit_bias.sort_by_key(|(token, _)| *token);
            prop_assert_eq!(&back, &sorted);
            prop_assert_eq!(form(&back), written);
        }

        /// A2: forms are equal exactly where parameters are.
        #[test]
        fn equal_forms_are_equal_parameters(a in any_params(), b in any_params()) {
            let sorted = |params: &GenerateParams| {
                let mut params = params.clone();
                params.logit_bias.sort_by_key(|(token, _)| *token);
                params
            };
            prop_assert_eq!(form(&a) == form(&b), sorted(&a) == sorted(&b));
        }

        #[test]
        fn any_bytes_are_parameters_in_their_one_form_or_none(
            mut bytes in prop::collection::vec(any::<u8>(), 0..40), versioned: bool
        ) {
            if let (true, Some(first)) = (versioned, bytes.first_mut()) {
                *first = VERSION;
            }
            if let Ok(params) = read(&bytes) {
                // Biases of minus zero are the one thing that is read more ways than it is written.
                prop_assert!(form(&params).len() == bytes.len());
            }
        }
    }

    #[test]
    fn most_parameters_take_a_few_bytes() {
        assert_eq!(form(&GenerateParams::default()), [VERSION, 0, 0]);
        let warm = SamplingParams {
            temperature: 0.7,
            top_p: 0.9,
            ..SamplingParams::default()
        };
        let form = form(&GenerateParams::from(warm));
        assert_eq!(form.len(), 3 + 4 + 4);
        assert_eq!(form[..3], [VERSION, 0b101, 0]);
        assert_eq!(read(&[2, 0, 0]), Err(FormError::Version(2)));
        assert_eq!(read(&form[..9]), Err(FormError::Short(9)));
        assert_eq!(read(&[VERSION, 0, 2]), Err(FormError::Field(1)));
    }
}
