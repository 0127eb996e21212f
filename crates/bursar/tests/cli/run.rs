//! Answers.

use crate::support::{Place, model};

fn run<'a>(name: &'a str, more: &[&'a str]) -> Vec<String> {
    let mut arguments = vec!["run".to_owned(), model(name)];
    arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
    arguments
}

fn answer(place: &Place, name: &str, more: &[&str]) -> serde_json::Value {
    let arguments = run(name, more);
    let arguments: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .chain(["--json"])
        .collect();
    place.bursar_with(&[], &arguments).ok().json()
}

/// B4
#[test]
fn the_same_words_for_any_batch_threads_and_instructions() {
    let place = Place::new();
    let plain = [
        "The miller mended a ledger",
        "--raw",
        "--max-tokens",
        "24",
        "--seed",
        "5",
    ];
    let expected = answer(&place, "llama-q8_0.gguf", &plain);
    assert_eq!(expected["completion_tokens"], 24);
    for more in [
        ["--threads", "1"],
        ["--threads", "3"],
        ["--batch-tokens", "16"],
        ["--isa", "scalar"],
    ] {
        let more: Vec<&str> = plain.into_iter().chain(more).collect();
        assert_eq!(
            answer(&place, "llama-q8_0.gguf", &more)["text"],
            expected["text"],
            "{more:?}"
        );
    }
    let greedy = [
        plain[0],
        "--raw",
        "--max-tokens",
        "24",
        "--temperature",
        "0",
    ];
    let first = answer(&place, "llama", &greedy);
    assert_eq!(answer(&place, "llama", &greedy)["text"], first["text"]);
    assert_eq!(first["temperature"], 0.0);
}

/// B1
#[test]
fn memory_stays_within_the_plan() {
    let place = Place::new();
    let ran = answer(
        &place,
        "llama",
        &["The miller", "--raw", "--max-tokens", "64", "--ignore-eos"],
    );
    let bytes = |name: &str| ran[name].as_u64().expect(name);
    assert!(bytes("granted_bytes") <= bytes("plan_bytes"), "{ran}");
    assert!(bytes("plan_bytes") <= bytes("budget_bytes"), "{ran}");
    assert!(bytes("rss_peak_bytes") <= bytes("plan_bytes"), "{ran}");
}

#[test]
fn stop_strings_end_the_answer() {
    let place = Place::new();
    let plain = [
        "The miller mended",
        "--raw",
        "--max-tokens",
        "24",
        "--temperature",
        "0",
    ];
    let whole = answer(&place, "llama-f16.gguf", &plain)["text"]
        .as_str()
        .expect("text")
        .to_owned();
    let middle: String = whole.chars().skip(8).take(3).collect();
    let before = &whole[..whole.find(&middle).expect("it is there")];
    let more: Vec<&str> = plain.into_iter().chain(["--stop", &middle]).collect();
    let cut = answer(&place, "llama-f16.gguf", &more);
    assert_eq!(cut["text"], before);
    assert_eq!(cut["finish_reason"], "stop");
}

#[test]
fn stdin_joins_the_prompt() {
    let place = Place::new();
    let tokens = |stdin: &str, prompt: &[&str]| {
        let model = model("llama");
        let mut arguments = vec!["run", &model];
        arguments.extend(prompt);
        arguments.extend(["--raw", "--max-tokens", "1", "--json"]);
        place.bursar_fed(stdin, &arguments).ok().json()["prompt_tokens"].as_u64()
    };
    let whole = tokens("", &["The miller:\n\nbefore dawn"]);
    assert_eq!(tokens("before dawn\n", &["The miller:"]), whole);
    assert_eq!(tokens("The miller:\n\nbefore dawn", &[]), whole);
    place
        .bursar_with(&[], &["run", &model("llama")])
        .refused(2, &["there is no prompt"]);
}

#[test]
fn a_chat_template_is_used_unless_raw() {
    let place = Place::new();
    let tokens = |more: &[&str]| {
        let more: Vec<&str> = ["Hi", "--max-tokens", "1"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        answer(&place, "qwen3", &more)["prompt_tokens"].as_u64()
    };
    assert!(tokens(&[]) > tokens(&["--raw"]));
    assert!(tokens(&["--system", "Be brief."]) > tokens(&[]));
}

#[test]
fn a_broken_chat_template_is_no_reason_not_to_continue_a_text() {
    let place = Place::new();
    let folder = std::path::PathBuf::from(model("qwen3"));
    let copy = place.path("broken");
    std::fs::create_dir(&copy).expect("a folder");
    for entry in std::fs::read_dir(folder).expect("the model") {
        let path = entry.expect("an entry").path();
        std::fs::copy(&path, copy.join(path.file_name().expect("a name"))).expect("copied");
    }
    std::fs::write(copy.join("chat_template.jinja"), "{% if %}").expect("a template");
    place
        .bursar("run broken Hi --max-tokens 1")
        .refused(1, &["chat template does not parse", "--raw"]);
    place.bursar("run broken Hi --max-tokens 1 --raw").ok();
}

#[test]
fn prompts_that_cannot_be_answered_are_refused() {
    let place = Place::new();
    let long = "before dawn ".repeat(600);
    let model = model("llama");
    let ran = place.bursar_with(&[], &["run", &model, &long, "--raw", "--context", "256"]);
    ran.refused(1, &["the context holds 256"]);
    let figures = place
        .bursar_with(&[], &["run", &model, "Hi", "--max-tokens", "2", "--stats"])
        .ok();
    assert!(figures.stderr.contains("tokens/s"), "{figures:?}");
}
