//! Chat templates against what `transformers` renders.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use bursar_tokenizer::chat::{ChatError, ChatInput, ChatTemplate, ChatTokens};
use serde_json::Value;

#[test]
fn templates_render_as_by_transformers() {
    let golden = common::json("chat.json");
    let tokens = ChatTokens {
        bos: Some("<s>".into()),
        eos: Some("</s>".into()),
        ..ChatTokens::default()
    };
    let mut wrong = Vec::new();
    for case in golden["cases"].as_array().unwrap() {
        let name = case["template"].as_str().unwrap();
        let title = case["title"].as_str().unwrap();
        let source = golden["templates"][name].as_str().unwrap();
        let template = ChatTemplate::new(source, tokens.clone())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut variant = case["variant"].as_object().unwrap().clone();
        let tools = variant.remove("tools");
        let add_generation_prompt = variant.remove("add_generation_prompt").is_some();
        let got = template.render(&ChatInput {
            messages: golden["conversations"][title].as_array().unwrap(),
            tools: tools.as_ref().and_then(Value::as_array).map(Vec::as_slice),
            add_generation_prompt,
            extra: Some(&variant),
            now: golden["now"].as_i64(),
            documents: None,
        });
        match (got, case["want"].as_str(), case["error"].as_str()) {
            (Ok(got), Some(want), None) if got == want => {}
            (Err(ChatError::Refused(got)), None, Some(want)) if got == want => {}
            // A failure of the template is a failure, whatever the words.
            (Err(ChatError::Failed(_)), None, Some(_)) => {}
            (got, want, error) => {
                wrong.push(format!(
                    "{name}, {title}: {got:#?}\n  want {want:#?} {error:?}"
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn expressions_evaluate_as_by_jinja() {
    let golden = common::json("chat.json");
    let values = golden["values"].as_object().unwrap();
    let mut wrong = Vec::new();
    for case in golden["expressions"].as_array().unwrap() {
        let source = case["source"].as_str().unwrap();
        let want = case["want"].as_str();
        let input = ChatInput {
            extra: Some(values),
            ..ChatInput::<Value>::new(&[])
        };
        let got = ChatTemplate::new(source, ChatTokens::default())
            .and_then(|template| template.render(&input));
        if got.as_deref().ok() != want {
            wrong.push(format!(
                "{source}\n  got {got:?}\n  want {want:?} {:?}",
                case["error"]
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of them:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
