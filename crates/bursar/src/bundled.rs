//! The models that come with the program, so that it answers without a download. A build without them
//! (`--no-default-features`) says so where one would be used.

use bursar_files::{ModelFile, ProgramBytes};

use crate::failure::Failure;

#[cfg(feature = "pocket")]
static FILES: [(&str, &[u8]); 2] = [
    (bursar_pocket::CHAT.name, bursar_pocket::CHAT.bytes),
    (bursar_pocket::EMBED.name, bursar_pocket::EMBED.bytes),
];
#[cfg(feature = "pocket")]
static BYTES: [&[u8]; 2] = [bursar_pocket::CHAT.bytes, bursar_pocket::EMBED.bytes];

#[cfg(not(feature = "pocket"))]
static FILES: [(&str, &[u8]); 0] = [];
#[cfg(not(feature = "pocket"))]
static BYTES: [&[u8]; 0] = [];

/// A model that comes with the program.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bundled {
    /// What it is called.
    pub(crate) name: &'static str,
    bytes: &'static [u8],
}

impl Bundled {
    /// Opens it.
    pub(crate) fn open(self) -> Result<ModelFile, Failure> {
        let file = ProgramBytes {
            bytes: self.bytes,
            release,
        };
        Ok(ModelFile::open_bundled(self.name, file)?)
    }
}

/// Gives all pages of a model back that are there: with a page that is touched the kernel maps its
/// neighbours too, so those just read would leave some behind.
fn release(read: &'static [u8]) {
    let holds = |file: &&&[u8]| file.as_ptr_range().contains(&read.as_ptr());
    if let Some(file) = BYTES.iter().find(holds) {
        bursar_memory::program::release(file);
    }
}

/// The bundled model of this name.
pub(crate) fn named(name: &str) -> Option<Bundled> {
    FILES
        .iter()
        .find(|file| file.0 == name)
        .map(|&(name, bytes)| Bundled { name, bytes })
}

/// The one that generates text.
pub(crate) fn chat() -> Result<Bundled, Failure> {
    used(
        "pocket-chat",
        "it has read little, and its answers are seldom right",
    )
}

/// The one that makes vectors.
pub(crate) fn embedding() -> Result<Bundled, Failure> {
    used("pocket-embed", "it was trained on Rust and Python code")
}

fn used(name: &'static str, caveat: &str) -> Result<Bundled, Failure> {
    let Some(bundled) = named(name) else {
        return Err(Failure::usage(
            "no model is given, and this bursar was built without its bundled ones",
        )
        .help("give a .gguf file, or a folder with config.json and .safetensors files"));
    };
    eprintln!("note: no model given; using the small bundled {name}: {caveat}");
    Ok(bundled)
}

/// The bytes of all of them, which are part of the program but not of its code.
pub(crate) fn bytes() -> &'static [&'static [u8]] {
    &BYTES
}

#[cfg(all(test, feature = "pocket"))]
mod tests {
    use super::*;

    #[test]
    fn both_open_and_are_what_they_are_used_for() {
        let chat = named("pocket-chat")
            .expect("bundled")
            .open()
            .expect("opens");
        assert!(chat.config().generates && chat.chat_template().is_some());
        let embedding = named("pocket-embed")
            .expect("bundled")
            .open()
            .expect("opens");
        assert!(embedding.config().embedding.is_some() && embedding.has_data());
        assert_eq!(named("pocket"), None);
        assert_eq!(bytes().len(), 2);
    }
}
