//! Embedding through the engine against the embedder alone.

use bursar_engine::{EmbedEvent, EmbedOptions, EmbedRequest, Purpose};
use bursar_kernels::isa::Isa;

use crate::fixtures::{cases, embedder, open};
use crate::load::{Setup, start};

#[test]
fn vectors_equal_the_embedders() {
    for case in cases("embedding") {
        let name = case["name"].as_str().expect("a name");
        let file = open(&case);
        let inputs = case["inputs"].as_array().expect("a list of inputs");
        let texts: Vec<&str> = inputs.iter().filter_map(|i| i["text"].as_str()).collect();
        let options = EmbedOptions::default();
        let mut alone = embedder(&file, Isa::best());
        let mut want = vec![Vec::new(); texts.len()];
        alone
            .embed(&texts, &options, &mut |index, vector| {
                want[index] = vector.to_vec();
            })
            .unwrap_or_else(|e| panic!("{e}"));
        let setup = Setup {
            purpose: Purpose::Embed,
            parallel: 1,
            batch_tokens: 128,
            ..Setup::default()
        };
        let (engine, _ledger) = start(&file, setup);
        let handle = engine.handle();
        let encoder = handle.encoder().expect("an embedding model");
        let (tokens, _) = encoder
            .encode(&texts, &options)
            .unwrap_or_else(|e| panic!("{e}"));
        let request = EmbedRequest {
            tokens: tokens.clone(),
            ..EmbedRequest::default()
        };
        // Several at once; the one that is dropped disturbs nobody.
        let submit = || {
            let stream = handle.embed(request.clone());
            stream.unwrap_or_else(|e| panic!("{e}"))
        };
        let streams = [submit(), submit(), submit()];
        drop(submit());
        for mut stream in streams {
            let mut told = vec![0; texts.len()];
            let mut got = Vec::new();
            let mut end = None;
            while let Some(event) = stream.recv_blocking() {
                match event {
                    EmbedEvent::Vector { index } => told[index] += 1,
                    EmbedEvent::Done { usage, vectors } => {
                        got.extend(vectors.iter().map(<[f32]>::to_vec));
                        end = Some(usage);
                    }
                    EmbedEvent::Failed(error) => panic!("{error}"),
                }
            }
            assert_eq!(told, vec![1; texts.len()], "{name}");
            assert_eq!(got, want, "{name}");
            let usage = end.expect("the end");
            assert_eq!(
                usage.prompt_tokens,
                tokens.iter().map(Vec::len).sum::<usize>()
            );
        }
        let mut nothing = handle
            .embed(EmbedRequest::default())
            .unwrap_or_else(|e| panic!("{e}"));
        assert!(matches!(
            nothing.recv_blocking(),
            Some(EmbedEvent::Done { .. })
        ));
    }
}
