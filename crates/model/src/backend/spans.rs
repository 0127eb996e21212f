//! How long ops take, by kind: fine spans, recorded in a trace only.

use bursar_profile::{Site, Span};

use crate::graph::Op;

/// Times an op; the span's value is `rows`, those of the batch.
pub(crate) fn of(op: &Op, rows: usize) -> Span {
    static STREAM: Site = Site::fine("op.stream");
    static EMBED: Site = Site::fine("op.embed");
    static ADD: Site = Site::fine("op.add");
    static ROPE: Site = Site::fine("op.rope");
    static NORM: Site = Site::fine("op.norm");
    static QUANTIZE: Site = Site::fine("op.quantize");
    static PRODUCT: Site = Site::fine("op.product");
    static KV_WRITE: Site = Site::fine("op.kv_write");
    static ATTENTION: Site = Site::fine("op.attention");
    static ACTIVATION: Site = Site::fine("op.activation");
    static SELECT: Site = Site::fine("op.select");
    static POOL: Site = Site::fine("op.pool");
    let site = match op {
        Op::Fetch(_) | Op::Release(_) => &STREAM,
        Op::Embed { .. } => &EMBED,
        Op::Add { .. } => &ADD,
        Op::RopeTable { .. } | Op::Rope { .. } => &ROPE,
        Op::Norm { .. } | Op::HeadNorm { .. } => &NORM,
        Op::Quantize { .. } => &QUANTIZE,
        Op::MatMul { .. } => &PRODUCT,
        Op::KvWrite { .. } => &KV_WRITE,
        Op::Attention { .. } => &ATTENTION,
        Op::SiluMul { .. } | Op::Gelu { .. } => &ACTIVATION,
        Op::SelectRows { .. } => &SELECT,
        Op::Pool { .. } => &POOL,
    };
    site.enter(rows as u64)
}
