//! Memory taken back from a model while it serves: what comes free is free, what was asked is answered
//! as ever, and it is written down who gave what for whom.

use bursar_engine::{Climb, EngineHandle, EngineOptions, Goal, Ladder, SoloEngine};
use bursar_memory::{Bytes, Ledger, ReclaimBooks, Rung};

use crate::load::{Setup, greedy, read, start};
use crate::prefixes::{Synth, tokens};

struct Served {
    engine: SoloEngine,
    handle: EngineHandle,
    ledger: Ledger,
    ladder: Ladder,
    _synth: Synth,
}

fn serve(name: &str) -> Served {
    let synth = Synth::new(name);
    let books = ReclaimBooks::new();
    let options = EngineOptions {
        reclaim: Some(books.clone()),
        ..EngineOptions::default()
    };
    let setup = Setup {
        parallel: 8,
        batch_tokens: 128,
        options,
        ..Setup::default()
    };
    let (engine, ledger) = start(&synth.file, setup);
    let ladder = Ladder::new(&ledger, &engine.controller(), &books);
    Served {
        handle: engine.handle(),
        engine,
        ledger,
        ladder,
        _synth: synth,
    }
}

impl Served {
    fn ask(&self, seed: u32) -> (Vec<u32>, usize) {
        let stream = self.handle.submit(greedy(&tokens(seed, 300), 12));
        let answer = read(stream.unwrap_or_else(|e| panic!("{e}")));
        (answer.tokens, answer.end.expect("an end").1.cached_tokens)
    }

    fn climb(&self, goal: Goal, bytes: Bytes, up_to: Rung) -> Bytes {
        let climb = Climb {
            bytes,
            goal,
            up_to,
            reason: "a test",
        };
        let models = [self.handle.clone()];
        self.ladder.climb(&climb, &models, &mut |_| Vec::new())
    }
}

#[test]
fn what_a_model_is_promised_less_is_free_for_others() {
    let served = serve("ladder-budget");
    let (want, _) = served.ask(1);
    let kv = served.handle.snapshot().kv.expect("it writes");
    let free = served.ledger.free();
    let spare = served.handle.spare();
    assert!(spare.get() > kv.bytes_total.get() / 2, "{spare}");
    let wanted = Bytes(spare.get() / 2);
    // While a sequence runs.
    let stream = served.handle.submit(greedy(&tokens(2, 300), 200));
    let stream = stream.unwrap_or_else(|e| panic!("{e}"));
    served.climb(Goal::Budget, free + wanted, Rung::ShrinkKv);
    assert!(served.ledger.free() >= free + wanted);
    let now = served.handle.snapshot().kv.expect("it writes");
    assert!(now.blocks_capacity < now.blocks_total && now.blocks_total == kv.blocks_total);
    assert!(now.bytes_promised < kv.bytes_promised);
    assert_eq!(read(stream).tokens.len(), 200);
    // More than there is: as much as can be spared, and the longest sequence still fits.
    served.climb(Goal::Budget, Bytes::gib(8), Rung::ShrinkKv);
    let least = served.handle.snapshot().kv.expect("it writes");
    assert!(least.blocks_capacity * least.block_tokens >= served.handle.longest());
    assert_eq!(served.handle.spare(), Bytes::ZERO);
    // What others took is theirs.
    let others = served.ledger.root().reserve(served.ledger.free());
    assert_eq!(served.ask(1).0, want);
    let report = served.ladder.books().report();
    let shrunk = report.rungs[Rung::ShrinkKv as usize];
    assert!(shrunk.times >= 2, "{report:?}");
    let event = &report.recent[0].last;
    assert_eq!(event.model.as_deref(), Some("model"));
    assert!(event.reason.contains("less promised") && event.reason.ends_with(": a test"));
    drop(others);
    served.engine.shut_down().unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn forgotten_prefixes_go_back_to_the_system_and_are_computed_again() {
    let served = serve("ladder-system");
    let (want, _) = served.ask(1);
    let (again, cached) = served.ask(1);
    assert!(again == want && cached >= 288);
    let granted = served.ledger.granted();
    let returned = served.climb(Goal::System, Bytes::gib(8), Rung::DropPrefixes);
    assert!(returned > Bytes::ZERO && served.ledger.granted() < granted);
    let kv = served.handle.snapshot().kv.expect("it writes");
    assert_eq!((kv.blocks_cached, kv.slabs_committed), (0, 0));
    // What the last step left in the arena went too.
    let arena = served.ledger.snapshot();
    let arena = arena.find("process/activations").expect("an account");
    assert_eq!(arena.measured, Some(Bytes::ZERO));
    // The promise stays: it is not for others in this process.
    assert_eq!(kv.blocks_capacity, kv.blocks_total);
    assert_eq!(served.ask(1), (want, 0));
    let report = served.ladder.books().report();
    let dropped = report.rungs[Rung::DropPrefixes as usize];
    assert_eq!(dropped.times, 1);
    assert!(dropped.bytes <= returned && dropped.bytes > Bytes::ZERO);
    served.engine.shut_down().unwrap_or_else(|e| panic!("{e}"));
}
