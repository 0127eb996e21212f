//! Small stacks: the whole program, its main thread and all others, on 256 KiB each, doing everything
//! that it does and reading what is nested a hundred thousand levels deep.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::serve::Served;
use crate::support::{PROGRAM, Place, Ran, model};

const LEVELS: usize = 100_000;

/// The program, its stacks limited, waiting for arguments.
fn limited(place: &Place) -> Command {
    let mut command = place.command("sh");
    command
        .args(["-c", "ulimit -s 256 && exec \"$0\" \"$@\"", PROGRAM])
        // Threads that do not say how much they need.
        .env("RUST_MIN_STACK", (256 << 10).to_string())
        .env("PATH", "/usr/bin:/bin");
    command
}

fn bursar(place: &Place, arguments: &[&str]) -> Ran {
    let output = limited(place).args(arguments).stdin(Stdio::null()).output();
    Ran::of(output.expect("the shell starts"))
}

/// M3: load, prefill, decode, sample, embed, search and their JSON.
#[test]
fn everything_runs_on_small_stacks() {
    let place = Place::new();
    place.write("notes.md", "# Mill\n\nThe miller mended a ledger.\n");
    for name in ["llama", "qwen3-q4_k_m.gguf"] {
        let words = ["run", &model(name), "The miller", "--raw", "--json"];
        let more = ["--max-tokens", "24", "--temperature", "0.8", "--seed", "5"];
        let ran = bursar(&place, &[&words[..], &more].concat()).ok();
        assert_eq!(ran.json()["completion_tokens"], 24);
        bursar(&place, &["show", &model(name), "--tensors"]).ok();
        bursar(&place, &["plan", &model(name), "--json"]).ok();
    }
    for name in ["bert-mean", "qwen3-embedding.gguf"] {
        bursar(
            &place,
            &["embed", &model(name), "notes.md", "-o", "out.npy"],
        )
        .ok();
    }
    bursar(&place, &["doctor"]).ok();
    bursar(&place, &["config", "--json"]).ok();
    let synth = ["synth", "tiny-qwen3:q4_k", "-o", "tiny.gguf"];
    bursar(&place, &synth).ok();
}

/// M3: requests, each of which may end in a body nested as deep as may be.
#[test]
fn a_server_runs_on_small_stacks() {
    let place = Place::new();
    let models = [model("llama"), model("bert-mean")];
    let served = Served::by(limited(&place), &[&models[0], &models[1]]);
    let chat = served.post(
        "/v1/chat/completions",
        r#"{"model": "llama", "max_tokens": 8, "stream": true, "seed": 1,
            "messages": [{"role": "user", "content": "The miller"}]}"#,
    );
    assert!(chat.contains("200 OK") && chat.contains("[DONE]"), "{chat}");
    let vectors = served.post(
        "/v1/embeddings",
        r#"{"model": "bert-mean", "input": ["a", "b"]}"#,
    );
    assert!(vectors.contains("\"embedding\":["), "{vectors}");
    let deep = format!("{}{}", "[".repeat(LEVELS), "]".repeat(LEVELS));
    let refused = served.post("/v1/embeddings", &format!("{{\"input\": {deep}}}"));
    assert!(refused.contains("nested deeper than"), "{refused}");
    let (code, rest) = served.stop();
    assert_eq!(code, Some(0), "{rest}");
}

/// A model of text files, one of which is replaced.
fn changed(place: &Place, name: &str, file: &str, text: &str) -> String {
    let folder = place.path(name);
    std::fs::create_dir_all(&folder).expect("a folder is made");
    for entry in std::fs::read_dir(model("llama")).expect("the fixture") {
        let from = entry.expect("an entry").path();
        let to = folder.join(from.file_name().expect("a name"));
        std::fs::copy(from, to).expect("a file is copied");
    }
    std::fs::write(folder.join(file), text).expect("a file is written");
    name.to_owned()
}

/// M3
#[test]
fn what_is_nested_without_end_is_refused_with_its_place() {
    let place = Place::new();
    let lists = format!("{}{}", "[".repeat(LEVELS), "]".repeat(LEVELS));
    let maps = format!("{}1{}", "{\"a\":".repeat(LEVELS), "}".repeat(LEVELS));

    // Settings.
    for (name, text) in [
        ("lists.toml", format!("memory = {lists}\n")),
        (
            "tables.toml",
            format!("memory = {}\n", maps.replace(':', "=").replace('"', "")),
        ),
        ("dots.toml", format!("{}a = 1\n", "a.".repeat(LEVELS))),
        ("lists.yaml", format!("memory: {lists}\n")),
        ("maps.yaml", format!("memory: {maps}\n")),
        (
            "dashes.yaml",
            format!("memory:\n  {}1\n", "- ".repeat(LEVELS)),
        ),
    ] {
        place.write(name, &text);
        bursar(&place, &["config", "--config", name]).refused(2, &[name]);
    }

    // Descriptions of models and of tokenizers: what nobody asks for is passed over, as deep as it is.
    let text = |file: &str| {
        let path = Path::new(&model("llama")).join(file);
        std::fs::read_to_string(path).expect("the fixture")
    };
    let (config, tokenizer) = (text("config.json"), text("tokenizer.json"));
    for (kind, deep) in [("lists", &lists), ("maps", &maps)] {
        let run = |file: &str, text: &str, key: &str| {
            let text = text.replacen('{', &format!("{{\"{key}\": {deep}, "), 1);
            let name = changed(&place, &format!("{kind}-{key}"), file, &text);
            bursar(&place, &["run", &name, "Hi", "--max-tokens", "1"])
        };
        let refused = run("config.json", &config, "deep");
        refused.refused(1, &["config.json", "recursion limit", "line 1 column"]);
        run("tokenizer.json", &tokenizer, "deeper").ok();
        let other = tokenizer.replacen("\"normalizer\"", "\"other\"", 1);
        let refused = run("tokenizer.json", &other, "normalizer");
        refused.refused(1, &["tokenizer.json", "column"]);
    }

    // Arrays within arrays in a GGUF file's metadata.
    let mut gguf = b"GGUF".to_vec();
    gguf.extend(3u32.to_le_bytes());
    gguf.extend(0u64.to_le_bytes());
    gguf.extend(1u64.to_le_bytes());
    gguf.extend(6u64.to_le_bytes());
    gguf.extend(b"x.deep");
    gguf.extend(9u32.to_le_bytes());
    for _ in 0..LEVELS {
        gguf.extend(9u32.to_le_bytes());
        gguf.extend(1u64.to_le_bytes());
    }
    std::fs::write(place.path("deep.gguf"), gguf).expect("a file is written");
    bursar(&place, &["show", "deep.gguf"]).refused(1, &["deep.gguf", "x.deep", "nested"]);

    // Chat templates.
    for (name, template) in [
        (
            "parens",
            format!("{{{{ {}1{} }}}}", "(".repeat(LEVELS), ")".repeat(LEVELS)),
        ),
        ("lists", format!("{{{{ {lists} }}}}")),
        ("nots", format!("{{{{ {}1 }}}}", "not ".repeat(LEVELS))),
        ("signs", format!("{{{{ {}1 }}}}", "-".repeat(LEVELS))),
        (
            "ifs",
            format!(
                "{}x{}",
                "{% if 1 %}".repeat(LEVELS),
                "{% endif %}".repeat(LEVELS)
            ),
        ),
        (
            "itself",
            "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}".to_owned(),
        ),
    ] {
        let config = serde_json::json!({ "chat_template": template }).to_string();
        let folder = changed(&place, name, "tokenizer_config.json", &config);
        let ran = bursar(&place, &["run", &folder, "Hi", "--max-tokens", "1"]);
        ran.refused(1, &["template"]);
    }
}
