//! A byte-level BPE vocabulary of any size, in the shape of a large model's: tokens of about six
//! bytes, most of them words with a leading space, and a merge for each.

use std::collections::HashSet;
use std::fmt::Write;

/// The `tokenizer.json` of a vocabulary with `tokens` tokens, the same for every run.
pub(crate) fn description(tokens: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |limit: usize| {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    };
    let mut texts: Vec<String> = (0..=255_u8).map(|byte| letter(byte).to_string()).collect();
    let mut known: HashSet<String> = texts.iter().cloned().collect();
    // Common letters first, so that words look like words.
    let frequent: Vec<usize> = "etaoinshrdlcumwfgypbvk"
        .bytes()
        .chain(*b" _,.(\n")
        .map(usize::from)
        .collect();
    let mut merges = Vec::new();
    while texts.len() < tokens {
        let left = match random(3) {
            0 => frequent[random(frequent.len())],
            _ => 256 + random(texts.len().max(257) - 256),
        };
        let right = match random(4) {
            0 => random(texts.len()),
            _ => frequent[random(frequent.len())],
        };
        let (Some(left), Some(right)) = (texts.get(left), texts.get(right)) else {
            continue;
        };
        let made = format!("{left}{right}");
        if made.chars().count() > 16 || known.contains(&made) {
            continue;
        }
        merges.push((left.clone(), right.clone()));
        known.insert(made.clone());
        texts.push(made);
    }
    let mut out = String::from(concat!(
        r#"{"version":"1.0","added_tokens":[],"normalizer":{"type":"NFC"},"#,
        r#""pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":"#,
        r#"{"Regex":"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"#,
        r#"| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},"#,
        r#""behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"#,
        r#""trim_offsets":false,"use_regex":false}]},"post_processor":null,"#,
        r#""decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":false,"#,
        r#""use_regex":false},"model":{"type":"BPE","dropout":null,"unk_token":null,"#,
        r#""continuing_subword_prefix":"","end_of_word_suffix":"","fuse_unk":false,"#,
        r#""byte_fallback":false,"ignore_merges":false,"vocab":{"#
    ));
    for (id, text) in texts.iter().enumerate() {
        let comma = if id == 0 { "" } else { "," };
        write!(out, "{comma}{}:{id}", quoted(text)).expect("a string takes all");
    }
    out.push_str("},\"merges\":[");
    for (rank, (left, right)) in merges.iter().enumerate() {
        let comma = if rank == 0 { "" } else { "," };
        write!(out, "{comma}{}", quoted(&format!("{left} {right}"))).expect("a string takes all");
    }
    out.push_str("]}}");
    out
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A byte in the alphabet of byte-level vocabularies.
fn letter(byte: u8) -> char {
    let visible = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if visible(byte) {
        return char::from(byte);
    }
    let nth = (0..byte).filter(|&before| !visible(before)).count();
    char::from_u32(0x100 + nth as u32).expect("far below the surrogates")
}
