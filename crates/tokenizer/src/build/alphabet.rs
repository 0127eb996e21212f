//! The printable alphabet in which byte-level vocabularies are written: each byte is a character,
//! itself where that is visible, else one from U+0100 on.
//!
//! Source: GPT-2's `encoder.py`, `bytes_to_unicode`.

/// The byte that a character of the alphabet stands for.
fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    let byte = match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => code,
        // The bytes left over, in order: 00-20, 7F, 80-A0, AD.
        0x100..=0x120 => code - 0x100,
        0x121 => 0x7f,
        0x122..=0x142 => code - 0x122 + 0x80,
        0x143 => 0xad,
        _ => return None,
    };
    u8::try_from(byte).ok()
}

/// Puts the bytes that `text` spells into `bytes`; `false` if a character is not in the alphabet.
pub(crate) fn spell(text: &str, bytes: &mut Vec<u8>) -> bool {
    bytes.clear();
    for c in text.chars() {
        match byte_of(c) {
            Some(byte) => bytes.push(byte),
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let mut seen = [false; 256];
        for c in '\0'..=char::MAX {
            if let Some(byte) = byte_of(c) {
                assert!(!seen[usize::from(byte)], "{c:?}");
                seen[usize::from(byte)] = true;
            }
        }
        assert!(seen.iter().all(|&seen| seen));
        let mut bytes = Vec::new();
        assert!(spell("\u{120}caf\u{c3}\u{a9}", &mut bytes));
        assert_eq!(bytes, " caf\u{e9}".as_bytes());
        assert!(!spell("a b", &mut bytes));
    }
}
