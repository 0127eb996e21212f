//! Models that are part of a program, instead of files.

use std::sync::Mutex;

use bursar_files::{ModelFile, ProgramBytes};

static MODEL: &[u8] = include_bytes!("../../../tests/fixtures/models/llama-q8_0.gguf");
static RELEASED: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

fn note(bytes: &'static [u8]) {
    let start = bytes.as_ptr().addr() - MODEL.as_ptr().addr();
    RELEASED
        .lock()
        .expect("no panic")
        .push((start, start + bytes.len()));
}

#[test]
fn a_bundled_model_is_read_as_its_file_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, MODEL).unwrap();
    let on_disk = ModelFile::open(&path).unwrap();
    let file = ProgramBytes {
        bytes: MODEL,
        release: note,
    };
    let bundled = ModelFile::open_bundled("model", file).unwrap();
    assert_eq!(bundled.path().to_str(), Some("model"));
    assert_eq!(bundled.config(), on_disk.config());
    assert_eq!(bundled.file_bytes(), MODEL.len() as u64);
    assert!(bundled.has_data() && bundled.held_bytes() == 0);
    assert_eq!(
        bundled.tokenizer_source().unwrap(),
        on_disk.tokenizer_source().unwrap()
    );
    RELEASED.lock().unwrap().clear();
    for tensor in bundled.tensors() {
        let read = |model: &ModelFile| {
            let mut bytes = vec![0; tensor.bytes as usize];
            model.read_at(tensor, 0, &mut bytes).unwrap();
            bytes
        };
        assert_eq!(read(&bundled), read(&on_disk), "{}", tensor.name);
        let mut released = RELEASED.lock().unwrap();
        let bytes: usize = released.drain(..).map(|(start, end)| end - start).sum();
        assert_eq!(bytes as u64, tensor.bytes, "all that was read can go");
    }
}

#[test]
fn a_bundled_model_that_is_cut_off_is_refused() {
    for len in [0, 100, 5000, MODEL.len() / 2, MODEL.len() - 1] {
        let file = ProgramBytes {
            bytes: &MODEL[..len],
            release: |_| {},
        };
        assert!(
            ModelFile::open_bundled("model", file).is_err(),
            "{len} bytes"
        );
    }
}
