//! Broken requests: each is refused with a 4xx that names the field, and the server answers the next
//! good request.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test takes what it needs")]
mod common;

use common::Setup;
use common::client::{get, head, post, read, send};

/// A good request as fields with their JSON text.
type Base = &'static [(&'static str, &'static str)];

const CHAT: Base = &[
    ("model", "\"llama\""),
    ("messages", r#"[{"role":"user","content":"The miller"}]"#),
    ("max_tokens", "1"),
];
const COMPLETION: Base = &[
    ("model", "\"llama\""),
    ("prompt", "\"The miller\""),
    ("max_tokens", "1"),
];
const EMBEDDING: Base = &[("model", "\"embedding\""), ("input", "\"The miller\"")];

/// A field, what stands there, and what the message must name if not the field.
struct Case {
    path: &'static str,
    body: Vec<u8>,
    name: String,
}

/// `base` with `field` as given; left out if `None`.
fn with(base: Base, field: &str, text: Option<&[u8]>) -> Vec<u8> {
    let mut body = Vec::new();
    let kept = base.iter().filter(|(name, _)| *name != field);
    let kept = kept.map(|(name, text)| (*name, text.as_bytes()));
    for (name, text) in kept.chain(text.map(|text| (field, text))) {
        body.push(if body.is_empty() { b'{' } else { b',' });
        body.extend_from_slice(format!("\"{name}\":").as_bytes());
        body.extend_from_slice(text);
    }
    body.push(b'}');
    body
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |path, base: Base, field: &str, text: Option<&[u8]>, name: &str| {
        cases.push(Case {
            path,
            body: with(base, field, text),
            name: name.to_owned(),
        });
    };
    let chat = "/v1/chat/completions";
    let completion = "/v1/completions";
    let embedding = "/v1/embeddings";
    let both = [(chat, CHAT), (completion, COMPLETION)];

    // Wrong types, no numbers, and numbers that are too large for any of them.
    let never_numbers = [
        "NaN",
        "-Infinity",
        "1e400",
        "-1e400",
        "\"1\"",
        "true",
        "[1]",
        "{}",
        "-3",
    ];
    for (path, base) in both {
        for field in [
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "repetition_penalty",
            "presence_penalty",
            "frequency_penalty",
            "max_tokens",
            "min_tokens",
            "n",
        ] {
            for text in never_numbers {
                add(path, base, field, Some(text.as_bytes()), field);
            }
        }
        for (field, text) in [
            ("temperature", "2.1"),
            ("temperature", "1e300"),
            ("top_p", "1.5"),
            ("top_p", "0"),
            ("top_p", "1e-300"),
            ("min_p", "1.01"),
            ("top_k", "0.5"),
            ("repetition_penalty", "0"),
            ("repetition_penalty", "101"),
            ("presence_penalty", "2.5"),
            ("n", "0"),
            ("n", "1000000"),
            ("n", "1.5"),
            ("max_tokens", "1e300"),
            ("max_tokens", "99999999999999999999"),
            ("max_tokens", "5000"),
            ("min_tokens", "2"),
            ("seed", "\"1\""),
            ("seed", "0.5"),
            ("seed", "18446744073709551616"),
            ("seed", "1e400"),
            ("stream", "1"),
            ("stream", "\"true\""),
            ("stream_options", "{\"include_usage\":true}"),
            ("stop", "1"),
            ("stop", "\"\""),
            ("stop", "[\"a\",2]"),
            ("stop", "[\"a\",\"\"]"),
            (
                "stop",
                "[\"1\",\"2\",\"3\",\"4\",\"5\",\"6\",\"7\",\"8\",\"9\",\"10\",\"11\",\"12\",\"13\",\"14\",\"15\",\"16\",\"17\"]",
            ),
            ("stop", "\"\\ud800\""),
            ("stop_token_ids", "[-1]"),
            ("stop_token_ids", "[100000]"),
            ("stop_token_ids", "\"1\""),
            ("ignore_eos", "\"yes\""),
            ("logit_bias", "[]"),
            ("logit_bias", "{\"x\":1}"),
            ("logit_bias", "{\"-1\":1}"),
            ("logit_bias", "{\"100000\":1}"),
            ("logit_bias", "{\"1\":101}"),
            ("logit_bias", "{\"1\":NaN}"),
            ("logit_bias", "{\"1\":\"1\"}"),
            ("priority", "1e10"),
            ("priority", "\"high\""),
            ("response_format", "{\"type\":\"json_object\"}"),
            ("response_format", "\"text\""),
            ("response_format", "{}"),
            ("model", "1"),
            ("model", "null"),
            ("model", "\"gpt-4o\""),
            ("model", "\"embedding\""),
        ] {
            add(path, base, field, Some(text.as_bytes()), field);
        }
        add(path, base, "model", None, "model");
    }

    for (text, name) in [
        ("null", "messages"),
        ("[]", "messages"),
        ("{}", "messages"),
        ("\"hello\"", "messages"),
        ("[1]", "messages[0]"),
        ("[{}]", "messages[0].role"),
        ("[{\"role\":\"user\"}]", "messages[0].content"),
        (
            "[{\"role\":\"user\",\"content\":null}]",
            "messages[0].content",
        ),
        ("[{\"role\":\"user\",\"content\":1}]", "messages[0].content"),
        (
            "[{\"role\":\"user\",\"content\":[]}]",
            "messages[0].content",
        ),
        (
            "[{\"role\":\"user\",\"content\":[\"x\"]}]",
            "messages[0].content[0]",
        ),
        (
            "[{\"role\":\"user\",\"content\":[{\"text\":\"x\"}]}]",
            "messages[0].content[0].type",
        ),
        (
            "[{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}]",
            "messages[0].content[0].text",
        ),
        (
            "[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]",
            "messages[0].content[0].type",
        ),
        (
            "[{\"role\":\"wizard\",\"content\":\"x\"}]",
            "messages[0].role",
        ),
        ("[{\"role\":1,\"content\":\"x\"}]", "messages[0].role"),
        (
            "[{\"role\":\"user\",\"content\":\"\\ud800\"}]",
            "messages[0].content",
        ),
        (
            "[{\"role\":\"user\",\"content\":\"x\",\"name\":1}]",
            "messages[0].name",
        ),
        (
            "[{\"role\":\"user\",\"content\":\"x\",\"tool_calls\":1}]",
            "messages[0].tool_calls",
        ),
    ] {
        add(chat, CHAT, "messages", Some(text.as_bytes()), name);
    }
    let invalid = b"[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]";
    add(chat, CHAT, "messages", Some(invalid), "messages[0].content");
    add(chat, CHAT, "messages", None, "messages");
    let long = format!(
        "[{{\"role\":\"user\",\"content\":\"{}\"}}]",
        "mill ".repeat(2000)
    );
    add(chat, CHAT, "messages", Some(long.as_bytes()), "messages");
    for (field, text) in [
        ("logprobs", "1"),
        ("top_logprobs", "5"),
        ("tools", "[{\"type\":\"function\"}]"),
        ("tools", "{}"),
        ("max_completion_tokens", "0"),
        ("max_completion_tokens", "-1"),
        ("max_completion_tokens", "5000"),
        ("chat_template_kwargs", "1"),
        ("modalities", "[\"audio\"]"),
    ] {
        add(chat, CHAT, field, Some(text.as_bytes()), field);
    }

    for (text, name) in [
        ("null", "prompt"),
        ("\"\"", "prompt"),
        ("[]", "prompt"),
        ("[\"\"]", "prompt[0]"),
        ("[\"a\",\"\"]", "prompt[1]"),
        ("[\"a\",1]", "prompt[1]"),
        ("[[]]", "prompt[0]"),
        ("[1,\"a\"]", "prompt[1]"),
        ("[1,-1]", "prompt[1]"),
        ("[1,2.5]", "prompt[1]"),
        ("[1,100000]", "prompt[1]"),
        ("[1,1e400]", "prompt[1]"),
        ("[[1],[4294967296]]", "prompt[1][0]"),
        ("{}", "prompt"),
        ("7", "prompt[0]"),
        ("\"\\udfff\"", "prompt"),
        ("[\"\\ud83d\"]", "prompt[0]"),
    ] {
        let name = if text == "7" { "prompt" } else { name };
        add(
            completion,
            COMPLETION,
            "prompt",
            Some(text.as_bytes()),
            name,
        );
    }
    add(
        completion,
        COMPLETION,
        "prompt",
        Some(b"\"\xc3\x28\""),
        "prompt",
    );
    add(completion, COMPLETION, "prompt", None, "prompt");
    let long = format!("[{}1]", "1,".repeat(3000));
    add(
        completion,
        COMPLETION,
        "prompt",
        Some(long.as_bytes()),
        "prompt",
    );
    for (field, text) in [
        ("logprobs", "true"),
        ("logprobs", "-1"),
        ("logprobs", "21"),
        ("echo", "1"),
        ("best_of", "3"),
        ("suffix", "\"x\""),
        ("suffix", "1"),
        ("max_tokens", "0"),
    ] {
        add(completion, COMPLETION, field, Some(text.as_bytes()), field);
    }

    for (text, name) in [
        ("null", "input"),
        ("\"\"", "input"),
        ("[]", "input"),
        ("[\"a\",\"\"]", "input[1]"),
        ("[\"a\",null]", "input[1]"),
        ("[[]]", "input[0]"),
        ("[[1],[-1]]", "input[1][0]"),
        ("[999999]", "input[0]"),
        ("[0.5]", "input[0]"),
        ("{}", "input"),
        ("false", "input"),
        ("\"\\ud800x\"", "input"),
    ] {
        add(embedding, EMBEDDING, "input", Some(text.as_bytes()), name);
    }
    add(
        embedding,
        EMBEDDING,
        "input",
        Some(b"[\"ok\",\"\x80\"]"),
        "input[1]",
    );
    add(embedding, EMBEDDING, "input", None, "input");
    let long = format!("[\"a\",\"{}\"]", "mill ".repeat(3000));
    add(
        embedding,
        EMBEDDING,
        "input",
        Some(long.as_bytes()),
        "input[1]",
    );
    for (field, text) in [
        ("model", "\"llama\""),
        ("model", "[]"),
        ("encoding_format", "\"hex\""),
        ("encoding_format", "1"),
        ("dimensions", "0"),
        ("dimensions", "-1"),
        ("dimensions", "1.5"),
        ("dimensions", "100000"),
        ("dimensions", "NaN"),
        ("prompt_name", "\"nonsense\""),
        ("prompt_name", "1"),
        ("truncate", "\"END\""),
    ] {
        add(embedding, EMBEDDING, field, Some(text.as_bytes()), field);
    }

    // No objects, no JSON, no end.
    let deep = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
    for path in [chat, completion, embedding, "/tokenize", "/detokenize"] {
        for body in [
            &b""[..],
            b"{",
            b"[]",
            b"null",
            b"\"x\"",
            b"{1:2}",
            b"\xff\xfe",
            b"{}}",
            &deep,
        ] {
            cases.push(Case {
                path,
                body: body.to_vec(),
                name: "body".to_owned(),
            });
        }
        let ignored = [b"{\"unknown\":".as_slice(), &deep, b"}"].concat();
        cases.push(Case {
            path,
            body: ignored,
            name: "unknown".to_owned(),
        });
    }
    for (path, body, name) in [
        ("/tokenize", r#"{"model":"llama","prompt":1}"#, "prompt"),
        ("/tokenize", r#"{"model":"llama"}"#, "prompt"),
        ("/tokenize", r#"{"prompt":"x"}"#, "model"),
        ("/detokenize", r#"{"model":"llama","tokens":"x"}"#, "tokens"),
        (
            "/detokenize",
            r#"{"model":"llama","tokens":[1,99999]}"#,
            "tokens[1]",
        ),
        ("/detokenize", r#"{"model":"llama"}"#, "tokens"),
    ] {
        cases.push(Case {
            path,
            body: body.as_bytes().to_vec(),
            name: name.to_owned(),
        });
    }
    cases
}

#[test]
fn broken_requests_are_told_so_by_field_and_leave_the_server_well() {
    let server = Setup::new().start();
    let cases = cases();
    assert!(cases.len() >= 200, "{}", cases.len());
    let good = with(COMPLETION, "temperature", Some(b"0"));
    let first = post(server.address, "/v1/completions", &good).json()["choices"].clone();
    for case in &cases {
        let shown = String::from_utf8_lossy(&case.body[..case.body.len().min(200)]).into_owned();
        let reply = post(server.address, case.path, &case.body);
        let message = reply.message();
        let told = format!("{} {shown}: {} {message}", case.path, reply.status);
        assert!((400..500).contains(&reply.status), "{told}");
        assert!(message.contains(&case.name), "{told}: not {}", case.name);
        let good = post(server.address, "/v1/completions", &good);
        assert_eq!(good.status, 200, "after {told}");
        assert_eq!(good.json()["choices"], first, "after {told}");
    }
    server.stop();
}

#[test]
fn unknown_fields_and_nulls_are_ignored() {
    let server = Setup::new().start();
    for (path, base) in [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", COMPLETION),
        ("/v1/embeddings", EMBEDDING),
    ] {
        for (field, text) in [
            ("no_such_field", "{\"a\":[1,{\"b\":null}]}"),
            ("temperature", "null"),
            ("stop", "null"),
            ("user", "\"somebody\""),
            ("n", "null"),
        ] {
            let reply = post(
                server.address,
                path,
                with(base, field, Some(text.as_bytes())),
            );
            assert_eq!(reply.status, 200, "{path} {field}: {reply:?}");
        }
    }
    server.stop();
}

#[test]
fn limits_hold() {
    let server = Setup::new().start();
    let address = server.address;
    let large = vec![b' '; 9 << 20];
    let reply = post(address, "/v1/completions", &large);
    assert_eq!(
        (reply.status, reply.json()["error"]["code"].as_str()),
        (413, Some("body_too_large"))
    );

    // Of a length that is only claimed nothing is taken.
    let reply = read(send(
        address,
        &head("/v1/completions", "Expect: 100-continue\r\n", 1 << 40),
        b"",
    ));
    assert_eq!(reply.status, 413);

    let chunked = "POST /v1/completions HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
                   Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = [
        b"900000\r\n".as_slice(),
        &vec![b' '; 0x90_0000],
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    assert_eq!(read(send(address, chunked, &body)).status, 413);

    let many: String = (0..100).map(|n| format!("X-{n}: y\r\n")).collect();
    assert_eq!(get(address, "/health", &many).status, 431);
    let long = format!("X-Long: {}\r\n", "y".repeat(64 << 10));
    assert_eq!(get(address, "/health", &long).status, 431);

    let plain = "POST /v1/completions HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\
                 Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(read(send(address, plain, b"")).status, 415);

    let reply = get(address, "/v1/completions", "");
    assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    let reply = get(address, "/no/such/place", "");
    assert_eq!(reply.status, 404);
    assert!(reply.message().contains("/no/such/place"));
    assert_eq!(get(address, "/health", "").status, 200);
    server.stop();
}
