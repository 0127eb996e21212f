//! Where weights are and what form they take: streamed layers give the bits of resident ones, a
//! conversion in place the bits of one while loading, and a file that goes away an error.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::{Path, PathBuf};

use bursar_files::ModelFile;
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::{KvDtype, KvShape};
use bursar_kv::{BlockTable, KvCache, KvOptions, KvPlan};
use bursar_memory::{Bytes, Ledger, Lifetime};
use bursar_model::{
    ForwardBatch, Model, ModelError, ModelPlan, PlanOptions, Purpose, Residency, SequenceRows,
    WeightsDtype,
};
use bursar_workers::Workers;

const ALL: [WeightsDtype; 4] = WeightsDtype::DESCENDING;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/models")
        .join(name)
}

fn options(file: &ModelFile, purpose: Purpose) -> PlanOptions {
    let config = file.config();
    PlanOptions {
        purpose,
        kv: KvShape {
            layers: config.layers,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            block_tokens: 16,
            dtype_k: KvDtype::F32,
            dtype_v: KvDtype::F32,
        },
        batch_tokens: 64,
        output_rows: 4,
        workers: 2,
        weights: WeightsDtype::AsIs,
        residency: Residency::Resident,
    }
}

/// A loaded model with what its passes need.
struct Loaded {
    model: Model,
    arena: Vec<u64>,
    workers: Workers,
    ledger: Ledger,
}

impl Loaded {
    fn new(file: &ModelFile, options: PlanOptions) -> Result<Self, ModelError> {
        let plan = ModelPlan::new(file, options)?;
        let ledger = Ledger::new(plan.weights_bytes() + plan.window_bytes());
        let workers = Workers::new(2);
        let mut staging = aligned(plan.staging_bytes());
        let arena = aligned(plan.activation_bytes());
        let account = ledger.root().child("model", Lifetime::Semantic);
        let staging = bytemuck::cast_slice_mut(&mut staging);
        let isa = Isa::best();
        let model = Model::load(file, plan, &account, isa, &workers, staging, &mut |_| {})?;
        // The plan says all that was taken, to the byte.
        assert_eq!(ledger.granted(), ledger.budget());
        Ok(Self {
            model,
            arena,
            workers,
            ledger,
        })
    }

    /// The bits of all outputs of two passes over the same model.
    fn outputs(&mut self) -> Result<Vec<u32>, ModelError> {
        let mut bits = Vec::new();
        for pass in 0..2 {
            match self.model.plan().options().purpose {
                Purpose::Embed => self.embed(pass, &mut bits)?,
                Purpose::Generate => self.generate(pass, &mut bits)?,
            }
        }
        Ok(bits)
    }

    fn embed(&mut self, pass: u32, bits: &mut Vec<u32>) -> Result<(), ModelError> {
        let tokens: Vec<u32> = (0..29).map(|i| (i * 7 + pass) % 23).collect();
        let sequences = [0..9, 9..10, 10..29].map(|rows| SequenceRows {
            rows,
            position: 0,
            blocks: &[],
        });
        let batch = ForwardBatch {
            tokens: &tokens,
            sequences: &sequences,
            outputs: &[],
        };
        let arena = bytemuck::cast_slice_mut(&mut self.arena);
        let workers = &self.workers;
        self.model
            .forward(&batch, arena, &mut [], workers, &mut |_, rows| {
                for row in 0..rows.rows() {
                    bits.extend(rows.row(row).iter().map(|x| x.to_bits()));
                }
            })
    }

    fn generate(&mut self, pass: u32, bits: &mut Vec<u32>) -> Result<(), ModelError> {
        let plan = KvPlan::for_context(*self.model.plan().kv(), 64, 1).unwrap();
        let ledger = Ledger::new(plan.bytes());
        let mut kv = KvCache::new(plan, &ledger.root(), KvOptions::default()).unwrap();
        let mut table = BlockTable::new();
        for (part, count) in [11, 1, 20, 1].into_iter().enumerate() {
            let tokens: Vec<u32> = (0..count)
                .map(|i| (i * 5 + pass + part as u32) % 23)
                .collect();
            let position = table.len();
            kv.append(&mut table, tokens.len()).unwrap();
            let sequences = [SequenceRows {
                rows: 0..tokens.len(),
                position,
                blocks: table.blocks(),
            }];
            let outputs: Vec<u32> = (0..count).collect();
            let batch = ForwardBatch {
                tokens: &tokens,
                sequences: &sequences,
                outputs: &outputs,
            };
            let arena = bytemuck::cast_slice_mut(&mut self.arena);
            let (cache, workers) = (kv.bytes_mut(), &self.workers);
            self.model
                .forward(&batch, arena, cache, workers, &mut |_, rows| {
                    for row in 0..rows.rows() {
                        bits.extend(rows.row(row).iter().map(|x| x.to_bits()));
                    }
                })?;
        }
        kv.free(&mut table);
        Ok(())
    }
}

/// Bytes that can be cast to floats.
fn aligned(bytes: Bytes) -> Vec<u64> {
    vec![0; (bytes.0 as usize).div_ceil(8)]
}

fn purposes(file: &ModelFile) -> Vec<Purpose> {
    let config = file.config();
    let mut purposes = Vec::new();
    if config.embedding.is_some() {
        purposes.push(Purpose::Embed);
    }
    if config.generates {
        purposes.push(Purpose::Generate);
    }
    purposes
}

const MODELS: [&str; 8] = [
    "bert-mean.gguf",
    "llama",
    "llama-sharded",
    "llama-tied",
    "llama-q5_k_s.gguf",
    "qwen3-q4_k_m.gguf",
    "qwen3-embedding",
    "nomic-embed-code",
];

#[test]
fn streamed_layers_give_the_bits_of_resident_ones() {
    for name in MODELS {
        let file = ModelFile::open(&fixture(name)).unwrap();
        let layers = file.config().layers;
        for purpose in purposes(&file) {
            let options = options(&file, purpose);
            let want = Loaded::new(&file, options).unwrap().outputs().unwrap();
            assert!(!want.is_empty());
            for (window, held_layers, held_table) in [
                (2, 0, false),
                (3, 0, true),
                (2, 1, false),
                (2, layers, false),
            ] {
                let residency = Residency::Streamed {
                    window,
                    held_layers,
                    held_table,
                };
                let options = PlanOptions {
                    residency,
                    ..options
                };
                let mut loaded = Loaded::new(&file, options).unwrap();
                let (plan, streamed) = (loaded.model.plan(), layers - held_layers);
                assert_eq!(plan.streamed_layers(), streamed);
                assert_eq!(plan.pass_bytes() > Bytes(0), streamed > 0);
                let got = loaded.outputs().unwrap();
                assert!(got == want, "{name} {purpose:?} {residency:?}");
                let figures = loaded.model.stream_figures();
                assert_eq!(figures.is_some(), streamed > 0);
                if let Some(figures) = figures {
                    // Each pass waited for each of them once; the reader is ahead by the window.
                    let passes = if purpose == Purpose::Embed { 2 } else { 8 };
                    let fetched = (passes * streamed) as u64;
                    assert!(figures.layers >= fetched && figures.layers <= fetched + window as u64);
                }
            }
        }
    }
}

#[test]
fn converting_in_place_gives_what_converting_while_loading_does() {
    for name in MODELS {
        let file = ModelFile::open(&fixture(name)).unwrap();
        for purpose in purposes(&file) {
            let options = options(&file, purpose);
            let mut sizes = Vec::new();
            for weights in ALL {
                let options = PlanOptions { weights, ..options };
                let mut loaded = Loaded::new(&file, options).unwrap();
                sizes.push(loaded.model.plan().weights_bytes());
                let want = loaded.outputs().unwrap();
                let digest = *loaded.model.weights_digest();

                let mut other = Loaded::new(&file, self::options(&file, purpose)).unwrap();
                let plain = *other.model.weights_digest();
                let plan = other.model.plan().converted(weights).unwrap();
                assert_eq!(plan.weights_bytes(), loaded.model.plan().weights_bytes());
                assert_eq!(
                    plan.activation_bytes(),
                    loaded.model.plan().activation_bytes()
                );
                let changed = plan.tensors().iter().zip(other.model.plan().tensors());
                let changed = changed.clone().any(|(a, b)| a.form != b.form);
                if !changed {
                    assert_eq!(digest, plain, "{name} {weights}");
                    continue;
                }
                assert_ne!(digest, plain, "{name} {weights}");
                let before = other.model.plan().weights_bytes();
                let mut staging = aligned(other.model.conversion_staging(&plan));
                other.arena = aligned(plan.activation_bytes());
                let staging = bytemuck::cast_slice_mut(&mut staging);
                let gone = other.model.convert(plan, staging, &other.workers).unwrap();
                let after = other.model.plan().weights_bytes();
                assert_eq!(gone, before - after, "{name} {weights}");
                assert_eq!(other.ledger.granted(), after, "off the books too");
                assert_eq!(other.model.weights_resident(), Some(after));
                assert!(other.outputs().unwrap() == want, "{name} {weights}");
                assert_eq!(*other.model.weights_digest(), digest, "{name} {weights}");
            }
            assert!(sizes.is_sorted_by(|a, b| a >= b), "{name}: {sizes:?}");
        }
    }
}

#[test]
fn several_conversions_in_a_row_leave_a_history() {
    let file = ModelFile::open(&fixture("llama")).unwrap();
    let mut loaded = Loaded::new(&file, options(&file, Purpose::Generate)).unwrap();
    let mut digests = vec![*loaded.model.weights_digest()];
    for weights in [WeightsDtype::Bf16, WeightsDtype::Q8_0, WeightsDtype::Q4K] {
        let plan = loaded.model.plan().converted(weights).unwrap();
        if plan.weights_bytes() == loaded.model.plan().weights_bytes() {
            continue;
        }
        let mut staging = aligned(loaded.model.conversion_staging(&plan));
        loaded.arena = aligned(plan.activation_bytes());
        let staging = bytemuck::cast_slice_mut(&mut staging);
        loaded
            .model
            .convert(plan, staging, &loaded.workers)
            .unwrap();
        assert!(!loaded.outputs().unwrap().is_empty());
        assert!(!digests.contains(loaded.model.weights_digest()));
        digests.push(*loaded.model.weights_digest());
    }
    // bf16 first and 8 bits after is not 8 bits at once.
    let options = PlanOptions {
        weights: WeightsDtype::Q8_0,
        ..options(&file, Purpose::Generate)
    };
    let direct = Loaded::new(&file, options).unwrap();
    assert!(!digests.contains(direct.model.weights_digest()));
}

#[test]
fn a_file_that_goes_away_while_it_is_streamed_is_an_error() {
    for cut in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        std::fs::copy(fixture("llama-q5_k_s.gguf"), &path).unwrap();
        let file = ModelFile::open(&path).unwrap();
        let options = PlanOptions {
            residency: Residency::Streamed {
                window: 2,
                held_layers: 0,
                held_table: false,
            },
            ..options(&file, Purpose::Generate)
        };
        let mut loaded = Loaded::new(&file, options).unwrap();
        loaded.outputs().unwrap();
        let whole = std::fs::read(&path).unwrap();
        if cut {
            let file = std::fs::OpenOptions::new().write(true).open(&path);
            file.unwrap().set_len(whole.len() as u64 / 2).unwrap();
        } else {
            // The same length, other bytes.
            let changed: Vec<u8> = whole.iter().map(|byte| byte ^ 1).collect();
            std::fs::write(&path, changed).unwrap();
        }
        // Layers read before are still in the window: the error comes once they are used up.
        for _ in 0..2 {
            let error = loaded.outputs().expect_err("the file is not what it was");
            assert!(matches!(error, ModelError::File(_)), "{error}");
        }
        if !cut {
            // No harm outlasts a read that failed: what is opened anew runs.
            std::fs::write(&path, whole).unwrap();
            let file = ModelFile::open(&path).unwrap();
            Loaded::new(&file, options).unwrap().outputs().unwrap();
        }
    }
}

#[test]
fn a_streamed_model_is_not_converted_in_place() {
    let file = ModelFile::open(&fixture("llama")).unwrap();
    let options = PlanOptions {
        residency: Residency::Streamed {
            window: 2,
            held_layers: 0,
            held_table: true,
        },
        ..options(&file, Purpose::Generate)
    };
    let mut loaded = Loaded::new(&file, options).unwrap();
    let plan = loaded.model.plan().converted(WeightsDtype::Q8_0).unwrap();
    let refused = loaded.model.convert(plan, &mut [], &loaded.workers);
    assert!(matches!(refused, Err(ModelError::Unsuited { .. })));
    assert!(
        !loaded.outputs().unwrap().is_empty(),
        "it goes on as it was"
    );
}
