//! What is typed or configured wrongly.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bursar_kernels::isa::Isa;

use crate::page::{Says, Section, Told, says};
use crate::support::{PROGRAM, Place, Ran};

fn typed(title: &'static str, arguments: &str, says: Says) -> Told {
    let ran = Place::new().bursar(arguments);
    Told::ran(title, &format!("bursar {arguments}"), &ran, 2, says)
}

/// With a configuration file of this text.
fn filed(title: &'static str, name: &str, text: &[u8], says: Says) -> Told {
    let place = Place::new();
    std::fs::write(place.path(name), text).expect("a file is written");
    let shown = String::from_utf8_lossy(text)
        .trim_end()
        .replace('\n', "\\n");
    let how = format!("bursar config     # {name}: {shown}");
    Told::ran(title, &how, &place.bursar("config"), 2, says)
}

pub(crate) fn section() -> Section {
    let place = Place::new();
    let variable = place.bursar_with(&[("BURSAR_CONTEXT", "-1")], &["config"]);
    let unknown = place.bursar_with(&[("BURSAR_CONTXT", "9")], &["config"]);
    let mut bytes = place.command(PROGRAM);
    let bytes = bytes
        .args(["run", "a.gguf"])
        .arg(OsStr::from_bytes(b"Gr\xfc\xdfe"));
    let bytes = Ran::of(bytes.output().expect("the program starts"));
    place.write("bursar.toml", "parallel = 2\n");
    place.write("bursar.yaml", "parallel: 3\n");
    let two = place.bursar("config");
    let other = if cfg!(target_arch = "aarch64") {
        "avx2"
    } else {
        "neon"
    };
    let known = Isa::available().iter().map(|isa| isa.name().to_owned());
    let known = known.collect::<Vec<_>>().join(", ");
    Section {
        title: "Settings and arguments",
        words: "Flags, `BURSAR_*` variables, `bursar.toml` and `bursar.yaml`.",
        told: vec![
            typed(
                "A verb that there is not",
                "fly",
                says("unrecognized subcommand", "'fly'", "", "try '--help'"),
            ),
            Told::ran(
                "An argument that is not text",
                r"bursar run a.gguf $'Gr\xfc\xdfe'",
                &bytes,
                2,
                says("not UTF-8 text", "argument 3", "byte 2", "give text"),
            ),
            typed(
                "A size that is none",
                "config --memory 5XB",
                says("'XB'", "(--memory)", "5XB", "write a size such as"),
            ),
            Told::ran(
                "A number out of its range",
                "BURSAR_CONTEXT=-1 bursar config",
                &variable,
                2,
                says("context", "(BURSAR_CONTEXT)", "-1", "whole number"),
            ),
            Told::ran(
                "A variable that no setting has",
                "BURSAR_CONTXT=9 bursar config",
                &unknown,
                2,
                says(
                    "no setting",
                    "BURSAR_CONTXT",
                    "",
                    "did you mean BURSAR_CONTEXT?",
                ),
            ),
            typed(
                "Vector instructions that this machine has not",
                &format!("config --isa {other}"),
                says("no such vector instructions", "(--isa)", "", "write one of"),
            )
            .without(&known, "scalar, ..."),
            typed(
                "An architecture that there is not",
                "plan qwen9",
                says("unknown architecture", "qwen9", "", "known: qwen3-0.6b"),
            ),
            filed(
                "A key that there is not",
                "bursar.toml",
                b"memroy = '1GiB'\n",
                says(
                    "no setting memroy",
                    "bursar.toml:1",
                    "",
                    "did you mean memory?",
                ),
            ),
            filed(
                "A value that a setting cannot have",
                "bursar.toml",
                b"parallel = 2\nkv.dtype = 'f8'\n",
                says("kv.dtype", "bursar.toml:2", "\"f8\"", "write one of f32"),
            ),
            filed(
                "A file that is not TOML",
                "bursar.toml",
                b"parallel = 2\ncontext = \n",
                says("must be quoted", "bursar.toml:2", "", "write it as TOML"),
            ),
            filed(
                "A file that is not YAML",
                "bursar.yaml",
                b"parallel: 2\nkv: [1,\n",
                says("unclosed bracket", "bursar.yaml:2", "", "write it as TOML"),
            ),
            filed(
                "A file that is not text",
                "bursar.toml",
                b"memory = '\xff'\n",
                says(
                    "not UTF-8 text",
                    "bursar.toml",
                    "byte 10",
                    "write it as TOML",
                ),
            ),
            Told::ran(
                "Two files, either of which could be meant",
                "bursar config     # with bursar.toml and bursar.yaml",
                &two,
                2,
                says(
                    "either could be meant",
                    "bursar.yaml",
                    "",
                    "keep one of them",
                ),
            ),
            typed(
                "A file that is not there",
                "config --config none.toml",
                says("cannot read", "none.toml", "", "give an existing file"),
            ),
        ],
    }
}
