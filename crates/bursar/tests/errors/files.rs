//! Files that cannot be read, are broken, or do not belong together.

use std::path::Path;

use bursar_files::ModelFile;

use crate::page::{Says, Section, Told, says};
use crate::support::{Place, model};

/// The fixture, one of its files changed.
fn changed(place: &Place, file: &str, change: impl Fn(&str) -> String) {
    for entry in std::fs::read_dir(model("llama")).expect("the fixture") {
        let from = entry.expect("an entry").path();
        let name = from
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        let to = place.path("llama").join(&name);
        std::fs::create_dir_all(place.path("llama")).expect("a folder is made");
        if name == file {
            let text = std::fs::read_to_string(&from).expect("a text file");
            std::fs::write(to, change(&text)).expect("a file is written");
        } else {
            std::fs::copy(&from, to).expect("a file is copied");
        }
    }
}

/// A model of which a file has been changed, to be run.
fn broken(
    title: &'static str,
    file: &str,
    words: &str,
    change: impl Fn(&str) -> String,
    says: Says,
) -> Told {
    let place = Place::new();
    changed(&place, file, change);
    let how = format!("bursar run llama Hi     # llama/{file}: {words}");
    Told::ran(title, &how, &place.bursar("run llama Hi"), 1, says)
}

fn said(title: &'static str, arguments: &str, files: &[(&str, &[u8])], says: Says) -> Told {
    let place = Place::new();
    for (name, bytes) in files {
        std::fs::write(place.path(name), bytes).expect("a file is written");
    }
    let ran = place.bursar(arguments);
    let how = format!("bursar {arguments}");
    let home = place.path(".local").display().to_string();
    Told::ran(title, &how, &ran, 1, says).without(&home, "~/.local")
}

pub(crate) fn section() -> Section {
    let gguf = std::fs::read(model("llama-f16.gguf")).expect("the fixture");
    let place = Place::new();
    let copy = |name: &str, bytes: &[u8]| {
        std::fs::write(place.path(name), bytes).expect("a file is written");
    };
    copy("short.gguf", &gguf[..gguf.len() / 2]);
    let bert = model("bert-mean");
    copy("latin1.txt", b"one\ntwo \xe9\n");
    copy("notes.txt", b"one\n");
    let embed = place.bursar_with(&[], &["embed", &bert, "latin1.txt"]);
    let no_folder = place.bursar_with(&[], &["embed", &bert, "notes.txt", "-o", "no/such/out.npy"]);
    Section {
        title: "Files and models",
        words: "Offsets are bytes from the start of the file.",
        told: vec![
            said(
                "A model that is not there",
                "show nothing",
                &[],
                says("no model", "nothing", "", "give a .gguf file"),
            ),
            said(
                "A file that is no model",
                "show broken.gguf",
                &[("broken.gguf", b"PK\x03\x04 no model")],
                says("magic", "broken.gguf at byte 0", "got", "; "),
            ),
            Told::ran(
                "A file that ends too early",
                "bursar show short.gguf     # half of a model",
                &place.bursar("show short.gguf"),
                1,
                says("tensor", "short.gguf at byte", "got", "fetch it again"),
            ),
            cut_off(&gguf),
            broken(
                "JSON that is broken",
                "config.json",
                "{\"a\": [1, 2,}",
                |_| "{\"a\": [1, 2,}".to_owned(),
                says("JSON", "line 1 column 13", "", "fetch it again"),
            ),
            broken(
                "A tokenizer that is broken",
                "tokenizer.json",
                "cut off",
                |text| text[..text.len() / 2].to_owned(),
                says("tokenizer.json", "llama", "column", "fetch it again"),
            ),
            broken(
                "Weights of another model than the configuration's",
                "config.json",
                "\"hidden_size\": 128",
                |text| text.replace("\"hidden_size\": 64", "\"hidden_size\": 128"),
                says(
                    "model.embed_tokens.weight",
                    "llama",
                    "got 320 x 64 F32, want 320 x 128",
                    "different models",
                ),
            ),
            broken(
                "A tensor that is missing",
                "config.json",
                "one more layer",
                |text| text.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3"),
                says("is missing", "tensor model.layers.", "", "; "),
            ),
            broken(
                "An architecture that is not supported",
                "config.json",
                "\"architectures\": [\"FalconForCausalLM\"]",
                |text| {
                    text.replace("LlamaForCausalLM", "FalconForCausalLM")
                        .replace("\"llama\"", "\"falcon\"")
                },
                says("not supported", "llama", "", "supported: "),
            ),
            broken(
                "A chat template that is broken",
                "tokenizer_config.json",
                "\"chat_template\": \"{% for %}\"",
                |_| "{\"chat_template\": \"{% for %}\"}".to_owned(),
                says("does not parse", "chat:1", "", "--raw"),
            ),
            said(
                "A text file that is not there",
                "embed missing.txt",
                &[],
                says("no file", "missing.txt", "", "name files that exist"),
            ),
            Told::ran(
                "A text that is not UTF-8",
                "bursar embed bert-mean latin1.txt     # in Latin-1",
                &embed,
                1,
                says("not UTF-8", "latin1.txt:2", "byte 4", "help: "),
            ),
            Told::ran(
                "A folder to write to that is not there",
                "bursar embed bert-mean notes.txt -o no/such/out.npy",
                &no_folder,
                1,
                says("cannot open", "no/such/out.npy", "", "check the path"),
            ),
        ],
    }
}

/// A file that shrinks while it is open.
fn cut_off(gguf: &[u8]) -> Told {
    let place = Place::new();
    let path = place.path("shrinks.gguf");
    std::fs::write(&path, gguf).expect("a file is written");
    let file = ModelFile::open(&path).expect("a model");
    let options = std::fs::OpenOptions::new().write(true).open(&path);
    let half = gguf.len() as u64 / 2;
    options
        .and_then(|file| file.set_len(half))
        .expect("the file is cut");
    let last = file.tensors().last().expect("tensors").clone();
    let mut bytes = vec![0; 64];
    let read = file.read_at(&last, 0, &mut bytes);
    let message = read.expect_err("nothing to read").to_string();
    let folder = path.parent().unwrap_or(Path::new("")).display().to_string();
    Told::new(
        "A file that is cut off while it is read",
        "# another process truncates shrinks.gguf after it has been opened",
        "exit code 1; the model's failure in a server",
        format!("error: {message}"),
        says(
            "cannot read 64 bytes",
            "shrinks.gguf",
            "64 bytes",
            "fetch it again",
        ),
    )
    .without(&format!("{folder}/"), "")
}
