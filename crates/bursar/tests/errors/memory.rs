//! What does not fit: plans, prompts, reservations, blocks, address space.

use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape};
use bursar_kv::{KvCache, KvOptions, KvPlan};
use bursar_memory::{AccountOptions, Bytes, HugePages, Ledger, Lifetime, Region};

use crate::page::{Says, Section, Told, says};
use crate::support::{Place, model};

fn ran(title: &'static str, words: &[&str], code: i32, says: Says) -> Told {
    let llama = model("llama");
    let arguments: Vec<&str> = words
        .iter()
        .map(|&word| if word == "llama" { &llama } else { word })
        .collect();
    let ran = Place::new().bursar_with(&[], &arguments);
    let quoted = words.iter().map(|word| match word.contains(' ') {
        true => format!("'{word}'"),
        false => (*word).to_owned(),
    });
    let how = format!("bursar {}", quoted.collect::<Vec<_>>().join(" "));
    Told::ran(title, &how, &ran, code, says).without(&llama, "llama")
}

fn told(
    title: &'static str,
    how: &str,
    came: &str,
    error: &dyn std::fmt::Display,
    says: Says,
) -> Told {
    Told::new(
        title,
        format!("# {how}"),
        came,
        format!("error: {error}"),
        says,
    )
}

pub(crate) fn section() -> Section {
    let ledger = Ledger::new(Bytes::mib(100));
    let model = ledger.root().child("llama", Lifetime::Semantic);
    let weights = model.child("weights", Lifetime::Semantic);
    let _weights = weights.reserve(Bytes::mib(80)).expect("room");
    let requests = AccountOptions::new(Lifetime::Episodic).ceiling(Bytes::mib(8));
    let requests = ledger
        .root()
        .child_with("requests", requests)
        .expect("no floor");
    let not_now = model.reserve(Bytes::mib(30)).expect_err("no room");
    let never = model.reserve(Bytes::mib(120)).expect_err("no room ever");
    let ceiling = requests
        .reserve(Bytes::mib(9))
        .expect_err("above the ceiling");
    let refused = "exit code 3; 429 with `Retry-After` from a server";
    Section {
        title: "Memory",
        words: "Exit code 3 says that the budget does not hold it.",
        told: vec![
            ran(
                "A plan that is larger than the budget",
                &["run", "llama", "Hi", "--memory", "8MiB"],
                3,
                says(
                    "llama needs",
                    "(--memory)",
                    "more than the budget of",
                    "help: --memory",
                ),
            )
            .about_this_process(),
            ran(
                "A context that the model has not",
                &["plan", "llama", "--context", "1000000"],
                2,
                says("context is 1000000", "context", "1000000", "it must be"),
            ),
            ran(
                "A prompt that is too long",
                &[
                    "run",
                    "llama",
                    "the miller mended a ledger",
                    "--context",
                    "16",
                ],
                1,
                says(
                    "the prompt",
                    "context",
                    "holds 16",
                    "shorten it or raise --context",
                ),
            ),
            told(
                "A reservation that does not fit now",
                "30 MiB for llama, of a budget of 100 MiB of which weights hold 80",
                refused,
                &not_now,
                says(
                    "asked for 30.0 MiB",
                    "process/llama",
                    "20.0 MiB is free of a budget of 100.0 MiB",
                    "once 10.0 MiB more is released",
                ),
            ),
            told(
                "A reservation that can never fit",
                "120 MiB of a budget of 100 MiB",
                "exit code 3; 400 `request_too_large` from a server",
                &never,
                says(
                    "asked for 120.0 MiB",
                    "process/llama",
                    "at most",
                    "--memory",
                ),
            ),
            told(
                "A reservation above an account's ceiling",
                "9 MiB for requests, which may hold 8",
                "exit code 3; 400 `request_too_large` from a server",
                &ceiling,
                says(
                    "asked for 9.0 MiB",
                    "process/requests",
                    "the ceiling of 8.0 MiB",
                    "raise that ceiling",
                ),
            ),
            blocks(),
            address_space(),
        ],
    }
}

/// Blocks of keys and values that others hold.
fn blocks() -> Told {
    let shape = KvShape {
        layers: 2,
        kv_heads: 2,
        head_dim: 64,
        block_tokens: 16,
        dtype_k: KvDtype::F16,
        dtype_v: KvDtype::F16,
    };
    let layout = KvLayout::in_slabs(shape).expect("a layout");
    let plan = KvPlan::for_context(layout, 64, 1).expect("a plan");
    let ledger = Ledger::new(plan.bytes());
    let cache = KvCache::new(plan, &ledger.root(), KvOptions::default());
    let mut cache = cache.expect("it fits");
    cache.reserve(3).expect("room");
    let error = cache.reserve(2).expect_err("one is left");
    told(
        "Keys and values of more tokens than there are blocks",
        "2 blocks more where 3 of 4 are taken",
        "the end of the request",
        &error,
        says("2 KV blocks", "KV", "1 of 4 free", "raise --kv-memory"),
    )
}

/// More address space than the system gives.
fn address_space() -> Told {
    let error = Region::reserve(1 << 60, HugePages::Never).expect_err("no such machine");
    told(
        "Address space that the system refuses",
        "a mapping of 1 EiB",
        "exit code 1",
        &error,
        says("mapping", "of", "1.0 EiB", "ulimit -v"),
    )
}
