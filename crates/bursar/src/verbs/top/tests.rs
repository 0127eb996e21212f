//! Whole screens, from fixed reports and sizes.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::{Value, json};

use super::paint::Colours;
use super::state::{Pane, State, Wish};
use super::view;
use crate::failure::Failure;

const MIB: u64 = 1 << 20;

fn account(name: &str, lifetime: &str, figures: [u64; 2], children: Vec<Value>) -> Value {
    let [granted, peak] = figures;
    json!({
        "name": name,
        "lifetime": lifetime,
        "granted_bytes": granted,
        "measured_bytes": (name == "weights").then_some(granted / 2),
        "peak_bytes": peak,
        "children": children,
    })
}

/// A server with two models, of which one writes and the other is being loaded.
fn memory() -> Value {
    let parts = vec![
        account("weights", "semantic", [6 * MIB, 6 * MIB], vec![]),
        account("kv", "episodic", [10 * MIB, 14 * MIB], vec![]),
    ];
    let accounts = vec![
        account("requests", "episodic", [MIB / 2, 2 * MIB], vec![]),
        account("process", "procedural", [19 * MIB, 19 * MIB], vec![]),
        account("chat", "semantic", [16 * MIB, 20 * MIB], parts),
    ];
    json!({
        "budget_bytes": 64 * MIB,
        "granted_bytes": 35 * MIB + MIB / 2,
        "granted_peak_bytes": 41 * MIB,
        "rss_bytes": 33 * MIB,
        "rss_peak_bytes": 38 * MIB,
        "pressure": "elevated",
        "pressure_detail": { "cause": "58 of 64 MiB are granted" },
        "tree": account("process", "semantic", [35 * MIB + MIB / 2, 41 * MIB], accounts),
        "models": [
            { "id": "chat", "state": "loaded", "used_bytes": 16 * MIB, "inflight": 2, "waiting": 0,
              "pinned": true, "idle_seconds": null },
            { "id": "embed", "state": "loading", "loaded_ratio": 0.25, "inflight": 0, "waiting": 1 },
        ],
        "kv": [
            { "model": "chat", "blocks_total": 64, "blocks_used": 24, "shared_blocks": 8,
              "blocks_cached": 16 },
        ],
        "rates": {
            "window_seconds": 60.0, "requests_per_second": 2.5, "tokens_in_per_second": 1234.4,
            "tokens_out_per_second": 98.0, "vectors_per_second": 0.0,
            "first_token_seconds": { "count": 9, "p50": 0.0414, "p95": 0.12 },
            "between_tokens_seconds": { "count": 9, "p50": 0.0021, "p95": 0.0099 },
        },
        "waiting": [
            { "model": "chat", "requests": 1, "reason": "all 2 places of those that run at once are taken" },
        ],
        "requests": [
            { "model": "chat", "state": "running", "age_seconds": 3.4, "prompt_tokens": 128,
              "stored_tokens": 150, "generated_tokens": 22, "max_tokens": 64, "kv_bytes": 5 * MIB },
            { "model": "chat", "state": "running", "age_seconds": 0.4, "prompt_tokens": 512,
              "stored_tokens": 256, "generated_tokens": 0, "max_tokens": 64, "kv_bytes": 5 * MIB },
            { "model": "chat", "state": "waiting", "age_seconds": 0.1,
              "reason": "all 2 places of those that run at once are taken" },
        ],
        "reclaim": { "recent": [
            { "unix_ms": 995_000, "rung": "shrink_kv", "model": "chat", "times": 3,
              "returned_bytes": 4 * MIB, "reason": "embed was asked for" },
        ] },
    })
}

fn state() -> State {
    let mut state = State::new(
        "http://127.0.0.1:8080".to_owned(),
        Duration::from_secs(1),
        Colours::Off,
    );
    for granted in [10, 20, 41] {
        state.told(Ok(json!({ "granted_bytes": granted * MIB })), 0);
    }
    state.told(Ok(memory()), 1_000_000);
    state
}

/// The same as on a terminal of that size.
fn screen(state: &State, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
    terminal
        .draw(|frame| view::draw(frame, state))
        .expect("it is drawn");
    let buffer = terminal.backend().buffer();
    let row = |y: u16| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(row).collect::<Vec<String>>().join("\n")
}

#[track_caller]
fn check(state: &State, (width, height): (u16, u16), expected: &str) {
    let drawn = screen(state, width, height);
    assert_eq!(drawn, expected.trim_matches('\n'), "\n{drawn}\n");
    assert_eq!(drawn, view::text(state, width, height), "as it is printed");
}

#[test]
fn a_small_screen_has_all_of_it() {
    check(
        &state(),
        (80, 24),
        "
bursar top  http://127.0.0.1:8080                              pressure elevated
budget 64.0 MiB ███████████████████████████----·················· 55.5 % granted
granted 35.5 MiB, at most 41.0 MiB; resident 33.0 MiB, at most 38.0 MiB
─ Granted, last 3 s ────────────────────────────────────────────── most 41.0 MiB
                                                                            ▁▃█▆
─ ▸ Ledger ───────────────────────────────────     GRANTED   MEASURED       PEAK
process          ██████████████████████████----   35.5 MiB          -   41.0 MiB
  requests       ▏▏····························  512.0 KiB          -    2.0 MiB
  process        ██████████████················   19.0 MiB          -   19.0 MiB
  chat           ████████████---···············   16.0 MiB          -   20.0 MiB
    weights      ██▒▒··························    6.0 MiB    3.0 MiB    6.0 MiB
    kv           ███████---····················   10.0 MiB          -   14.0 MiB
─ Models, keys and values ──────────────────────────────────────────────────────
chat                   loaded      16.0 MiB  2 in flight, pinned
  keys and values      ▓▓█████▒▒▒▒······· 24 used (8 shared), 16 cached, 24 free
embed                  loading   ██████████·······························  25 %
─ Requests 1-3 of 6 ────────────────────────────────────────────────────────────
2.5 requests/s, 1,234 tokens/s in, 98 tokens/s out (last 60 s)
first token 41 ms, p95 120 ms; between tokens 2.1 ms, p95 9.9 ms
chat: 1 waiting; the first: all 2 places of those that run at once are taken
─ Memory taken back ────────────────────────────────────────────────────────────
memory is short because 58 of 64 MiB are granted
    5 s ago  shrink_kv x 3, chat, 4.0 MiB back: embed was asked for
q quit   tab next pane   j k scroll   ? help
",
    );
}

#[test]
fn a_wide_screen_has_two_columns() {
    check(&state(), (150, 16),
        "
bursar top  http://127.0.0.1:8080                                                                                                    pressure elevated
budget 64.0 MiB ██████████████████████████████████████████████████████████████████----------··········································· 55.5 % granted
granted 35.5 MiB, at most 41.0 MiB; resident 33.0 MiB, at most 38.0 MiB
─ Granted, last 3 s ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────── most 41.0 MiB
                                                                                                                                                  ▁▃█▆
─ ▸ Ledger ─────────────────────────────     GRANTED   MEASURED       PEAK  ─ Models, keys and values ────────────────────────────────────────────────
process          █████████████████████---   35.5 MiB          -   41.0 MiB  chat                   loaded      16.0 MiB  2 in flight, pinned
  requests       ▏▏······················  512.0 KiB          -    2.0 MiB    keys and values      ▓▓███▒▒▒···· 24 used (8 shared), 16 cached, 24 free
  process        ███████████·············   19.0 MiB          -   19.0 MiB  embed                  loading   █████████··························  25 %
  chat           █████████---············   16.0 MiB          -   20.0 MiB  ─ Requests 1-3 of 6 ──────────────────────────────────────────────────────
    weights      ██▒▒····················    6.0 MiB    3.0 MiB    6.0 MiB  2.5 requests/s, 1,234 tokens/s in, 98 tokens/s out (last 60 s)
    kv           ██████--················   10.0 MiB          -   14.0 MiB  first token 41 ms, p95 120 ms; between tokens 2.1 ms, p95 9.9 ms
                                                                            chat: 1 waiting; the first: all 2 places of those that run at once are ta…
                                                                            ─ Memory taken back 1-1 of 2 ─────────────────────────────────────────────
                                                                            memory is short because 58 of 64 MiB are granted
q quit   tab next pane   j k scroll   ? help
",
    );
}

#[test]
fn the_pane_in_focus_gets_the_room() {
    let mut state = state();
    for _ in 0..2 {
        state.wish(Wish::NextPane, 0, 0);
    }
    assert_eq!(state.focus, Pane::Requests);
    check(
        &state,
        (60, 22),
        "
bursar top  http://127.0.0.1:8080          pressure elevated
budget 64.0 MiB ████████████████---·········· 55.5 % granted
granted 35.5 MiB, at most 41.0 MiB; resident 33.0 MiB, at mo
─ Granted, last 3 s ────────────────────────── most 41.0 MiB
                                                        ▁▃█▆
─ Ledger 1-3 of 6 ────────     GRANTED   MEASURED       PEAK
process          █████████-   35.5 MiB          -   41.0 MiB
  requests       ▏▏········  512.0 KiB          -    2.0 MiB
  process        █████·····   19.0 MiB          -   19.0 MiB
─ Models, keys and values ──────────────────────────────────
chat                   loaded      16.0 MiB  2 in flight, p…
  keys and values       24 used (8 shared), 16 cached, 24 f…
embed                  loading   █████················  25 %
─ ▸ Requests 1-4 of 6 ──────────────────────────────────────
2.5 requests/s, 1,234 tokens/s in, 98 tokens/s out (last 60…
first token 41 ms, p95 120 ms; between tokens 2.1 ms, p95 9…
chat: 1 waiting; the first: all 2 places of those that run …
chat                   running     3 s  prompt 128, wrote 2…
─ Memory taken back ────────────────────────────────────────
memory is short because 58 of 64 MiB are granted
    5 s ago  shrink_kv x 3, chat, 4.0 MiB back: embed was a…
q quit   tab next pane   j k scroll   ? help
",
    );
    let (lines, shown) = view::focused(&state, 60, 22);
    state.wish(Wish::Down(100), lines, shown);
    let drawn = screen(&state, 60, 22);
    assert!(drawn.contains("waiting     0 s"), "{drawn}");
}

#[test]
fn a_server_that_says_nothing_is_waited_for() {
    let mut silent = State::new(
        "http://127.0.0.1:8080".to_owned(),
        Duration::from_secs(1),
        Colours::Off,
    );
    let failure = || {
        Failure::failed("cannot ask the server at http://127.0.0.1:8080: Connection refused")
            .help("start one with `bursar serve`, or say where it listens with --listen")
    };
    silent.told(Err(failure()), 0);
    check(
        &silent,
        (60, 10),
        "
bursar top  http://127.0.0.1:8080

  cannot ask the server at http://127.0.0.1:8080:
  Connection refused

  start one with `bursar serve`, or say where it listens
  with --listen
  Trying again every 1 s.

q quit   tab next pane   j k scroll   ? help
",
    );
    // What was known stays, with a word below.
    let mut state = state();
    state.told(Err(failure()), 0);
    let drawn = screen(&state, 120, 24);
    assert!(
        drawn.contains("trying again: cannot ask the server"),
        "{drawn}"
    );
    assert!(drawn.contains("weights"), "{drawn}");
}

#[test]
fn help_lies_above_the_rest() {
    let mut state = state();
    state.wish(Wish::Help, 0, 0);
    let drawn = screen(&state, 80, 24);
    assert!(
        drawn.contains("page up, down     the same by ten lines"),
        "{drawn}"
    );
    assert!(drawn.contains("? or esc to close"), "{drawn}");
}

#[test]
fn no_size_and_no_report_are_too_odd() {
    let mut helped = state();
    helped.help = true;
    let mut odd = state();
    odd.told(
        Ok(json!({ "tree": 3, "models": {}, "kv": [null], "rates": {} })),
        u64::MAX,
    );
    odd.told(Ok(json!([])), 0);
    for state in [&state(), &helped, &odd] {
        for (width, height) in [
            (1, 1),
            (3, 2),
            (10, 5),
            (20, 3),
            (139, 7),
            (141, 8),
            (300, 90),
        ] {
            assert_eq!(
                screen(state, width, height).split('\n').count(),
                usize::from(height)
            );
        }
    }
}
