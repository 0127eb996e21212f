//! Exit codes and words when something is wrong.

use std::io::Read;
use std::process::Stdio;

use crate::support::{PROGRAM, Place, model};

#[test]
fn bad_usage_is_2() {
    let place = Place::new();
    place.bursar("").refused(2, &["Usage: bursar"]);
    place
        .bursar("fly")
        .refused(2, &["unrecognized subcommand 'fly'"]);
    place.bursar("show").refused(2, &["<MODEL>"]);
    place
        .bursar("run --temperature hot")
        .refused(2, &["invalid value 'hot'"]);
    place
        .bursar("plan qwen9")
        .refused(2, &["unknown architecture \"qwen9\"", "qwen3-0.6b"]);
    place
        .bursar("plan qwen3-0.6b:q9")
        .refused(2, &["unknown quantisation \"q9\"", "q4_k_m"]);
    place
        .bursar("synth tiny-llama:q8_0 -o x --quant f32")
        .refused(2, &["help: give one"]);
    place.bursar("embed --json").refused(2, &["--output"]);
    let llama = model("llama");
    let ran = place.bursar_with(&[], &["run", &llama, "Hi", "--temperature", "-1"]);
    ran.refused(2, &["temperature is -1"]);
    let ran = place.bursar_with(&[], &["plan", &llama, "--context", "1000000"]);
    ran.refused(2, &["context is 1000000"]);
}

#[test]
fn what_fails_is_1_and_names_the_file() {
    let place = Place::new();
    place
        .bursar("show nothing")
        .refused(1, &["there is no model nothing", "help: "]);
    place
        .bursar("plan nothing.gguf")
        .refused(1, &["there is no model nothing.gguf"]);
    place.write("broken.gguf", "GGUF but not really");
    place
        .bursar("show broken.gguf")
        .refused(1, &["broken.gguf"]);
    place.write("empty/config.json", "{}");
    place.bursar("show empty").refused(1, &["empty"]);
    place
        .bursar("synth tiny-llama -o no/such/folder/x.gguf")
        .refused(1, &["no/such/folder"]);
    place
        .bursar("embed missing.txt")
        .refused(1, &["there is no file missing.txt"]);
    let bert = model("bert-mean");
    place
        .bursar_with(&[], &["run", &bert, "Hi"])
        .refused(1, &["only makes vectors", "bursar embed"]);
}

#[test]
fn help_and_version_are_0() {
    let place = Place::new();
    place
        .bursar("--help")
        .ok()
        .says(&["run", "embed", "plan", "Exit codes"]);
    place.bursar("--version").ok().says(&["bursar 0."]);
    assert_eq!(
        place.bursar("version --json").ok().json()["version"],
        env!("CARGO_PKG_VERSION")
    );
    for shell in ["bash", "zsh", "fish"] {
        place
            .bursar(&format!("completions {shell}"))
            .ok()
            .says(&["bursar", "embed"]);
    }
}

/// Every verb, and every verb of a verb, has a page that names its flags.
#[test]
fn every_verb_has_a_manual_page() {
    let place = Place::new();
    let pages = place.path("share/man/man1");
    place.bursar("man share/man/man1").ok();
    let mut verbs = vec!["bursar".to_owned()];
    let mut read = 0;
    while let Some(words) = verbs.pop() {
        let help = place
            .bursar(&format!("{} --help", &words["bursar".len()..]))
            .ok();
        let page = pages.join(format!("{}.1", words.replace(' ', "-")));
        let page =
            std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{words}: {error}"));
        assert!(page.starts_with(".ie") || page.starts_with(".TH"), "{page}");
        let plain = page.replace('\\', "");
        let lines = help.stdout.lines().map(str::trim_start);
        for flag in lines.filter_map(|line| line.strip_prefix("--")?.split([' ', '=', '[']).next())
        {
            assert!(plain.contains(flag), "{words}: --{flag}");
        }
        let commands = help.stdout.lines().skip_while(|line| *line != "Commands:");
        for line in commands.skip(1).take_while(|line| !line.is_empty()) {
            match line.split_whitespace().next() {
                Some(verb)
                    if verb != "help" && line.starts_with("  ") && !line.starts_with("   ") =>
                {
                    verbs.push(format!("{words} {verb}"));
                }
                _ => {}
            }
        }
        read += 1;
    }
    assert!(read > 20, "{read} pages");
}

/// `bursar show MODEL --tensors | head -1` is no reason to complain.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let mut command = place.command(PROGRAM);
    command
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    drop(child.stdout.take());
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .expect("stderr")
        .read_to_string(&mut stderr)
        .expect("text");
    assert!(child.wait().expect("it ends").success(), "{stderr}");
    assert_eq!(stderr, "");
}
