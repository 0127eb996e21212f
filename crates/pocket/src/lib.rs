//! The bundled models as bytes of the program. A crate of its own, so that sixteen megabytes are not
//! compiled again whenever anything else changes.
//!
//! `models/README.md` says what the models are, `models/SHA256SUMS` which files they must be.

#![forbid(unsafe_code)]

/// A model that comes with the program.
#[derive(Debug, PartialEq, Eq)]
pub struct Bundled {
    /// What it is called.
    pub name: &'static str,
    /// Its GGUF file. It begins on a page of its own.
    pub bytes: &'static [u8],
}

/// Keeps a file's pages apart from those of constants, so that giving them back takes nothing else.
#[repr(C, align(4096))]
struct Paged<T: ?Sized>(T);

static CHAT_FILE: &Paged<[u8]> = &Paged(*include_bytes!("../../../models/pocket-chat.gguf"));
static EMBED_FILE: &Paged<[u8]> = &Paged(*include_bytes!("../../../models/pocket-embed.gguf"));

/// Generates text.
pub static CHAT: Bundled = Bundled {
    name: "pocket-chat",
    bytes: &CHAT_FILE.0,
};

/// Makes vectors.
pub static EMBED: Bundled = Bundled {
    name: "pocket-embed",
    bytes: &EMBED_FILE.0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_whole_gguf_files_on_pages_of_their_own() {
        for model in [&CHAT, &EMBED] {
            assert!(model.bytes.starts_with(b"GGUF"), "{}", model.name);
            assert_eq!(model.bytes.as_ptr().addr() % 4096, 0, "{}", model.name);
        }
        let all = CHAT.bytes.len() + EMBED.bytes.len();
        assert!(all <= 32 << 20, "{all} bytes are too many to carry along");
    }
}
