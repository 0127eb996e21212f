//! Servers that do not start.

use std::net::TcpListener;

use crate::page::{Section, Told, says};
use crate::support::{Place, model};

pub(crate) fn section() -> Section {
    let place = Place::new();
    let llama = model("llama");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken
        .local_addr()
        .map(|address| (taken, address.to_string()));
    let (_held, address) = taken.expect("its address");
    place.write("keys", "secret\n");
    let serve = |title, words: &[&str], code, says| {
        let arguments = [&["serve", &llama], words].concat();
        let ran = place.bursar_with(&[], &arguments);
        let how = format!("bursar serve llama {}", words.join(" "));
        Told::ran(title, &how, &ran, code, says).without(&address, "127.0.0.1:8080")
    };
    let listen = ["--listen", "127.0.0.1:0"];
    let with = |words: &[&'static str]| [&listen[..], words].concat();
    Section {
        title: "Starting a server",
        words: "Found out before any model is loaded, but for the last one.",
        told: vec![
            serve(
                "An address that others can reach, without a key",
                &["--listen", "0.0.0.0:8080"],
                2,
                says("no API key", "0.0.0.0:8080", "", "give --api-key-file"),
            ),
            serve(
                "A port that is in use",
                &["--listen", &address],
                1,
                says("in use", "127.0.0.1:8080", "", "--listen"),
            ),
            serve(
                "Blocks for the pools that no heap has room for",
                &with(&["--pool-heap-size", "1MiB", "--pool-warmup-sizes", "2MiB"]),
                2,
                says(
                    "pool.warmup_sizes",
                    "pool.heap_size",
                    "2.0 MiB",
                    "make heaps longer",
                ),
            ),
            serve(
                "A file of keys that is not there",
                &with(&["--api-key-file", "none"]),
                1,
                says("cannot read", "none", "", "one per line"),
            ),
            serve(
                "A key that can be guessed",
                &with(&["--api-key-file", "keys"]),
                1,
                says("6 characters", "line 1 of keys", "at least", "openssl rand"),
            ),
            serve(
                "A folder for preempted sequences that is not there",
                &with(&["--kv-spill", "no/such"]),
                1,
                says("spill file", "no/such", "", "--kv-spill"),
            ),
        ],
    }
}
