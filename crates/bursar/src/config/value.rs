//! What a setting's value may be, and how it is read from text.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bursar_engine::{Admission, DtypeChoice, Eviction, ResidencyChoice, WeightsDtype};
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::KvDtype;
use bursar_kv::Preset;
use bursar_memory::heap_pool::Strategy;
use bursar_memory::{Bytes, MemorySpec};

/// What the cache is sized by where no preset is.
const CUSTOM: &str = "custom";

/// A value that has been read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// A size, or a share of what this process may use.
    Memory(MemorySpec),
    /// A count of tokens, sequences or threads.
    Count(usize),
    /// How keys and values are stored.
    KvDtype(KvDtype),
    /// Which vector instructions to use.
    Isa(Isa),
    /// A folder or file.
    Path(PathBuf),
    /// Where a server listens.
    Address(SocketAddr),
    /// A length of time.
    Time(Duration),
    /// How sequences are let in.
    Admission(Admission),
    WeightsDtype(DtypeChoice),
    WeightsResidency(ResidencyChoice),
    /// A size of the cache; none is custom.
    Preset(Option<Preset>),
    /// On or off.
    Switch(bool),
    /// A part of a whole, 0 to 1.
    Share(f64),
    /// How long a model stays that nobody uses; `None` is until its place is needed.
    KeepAlive(Option<Duration>),
    /// Names of models.
    Names(Vec<String>),
    /// Which models go for others.
    Eviction(Eviction),
    /// Which heap a block comes from.
    Strategy(Strategy),
    /// Sizes, or shares of the budget.
    Sizes(Vec<MemorySpec>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Memory(spec) => spec.fmt(f),
            Value::Count(count) => count.fmt(f),
            Value::KvDtype(dtype) => f.write_str(dtype.name()),
            Value::Isa(isa) => isa.fmt(f),
            Value::Path(path) => path.display().fmt(f),
            Value::Address(address) => address.fmt(f),
            Value::Time(time) | Value::KeepAlive(Some(time)) => match time.subsec_millis() {
                0 => write!(f, "{}s", time.as_secs()),
                _ => write!(f, "{}ms", time.as_millis()),
            },
            Value::KeepAlive(None) => f.write_str("-1"),
            Value::Names(names) => f.write_str(&names.join(",")),
            Value::Eviction(Eviction::Cheapest) => f.write_str("cheapest"),
            Value::Eviction(Eviction::Lru) => f.write_str("lru"),
            Value::Strategy(strategy) => f.write_str(strategy.name()),
            Value::Sizes(sizes) => {
                let sizes: Vec<String> = sizes.iter().map(MemorySpec::to_string).collect();
                f.write_str(&sizes.join(","))
            }
            Value::WeightsDtype(DtypeChoice::Auto) => f.write_str("auto"),
            Value::WeightsDtype(DtypeChoice::Held(dtype)) => f.write_str(dtype.name()),
            Value::WeightsResidency(residency) => f.write_str(match residency {
                ResidencyChoice::Auto => "auto",
                ResidencyChoice::Resident => "resident",
                ResidencyChoice::Streamed => "streamed",
            }),
            Value::Admission(Admission::Grow) => f.write_str("grow"),
            Value::Admission(Admission::Reserve) => f.write_str("reserve"),
            Value::Preset(Some(preset)) => f.write_str(preset.name()),
            Value::Preset(None) => f.write_str(CUSTOM),
            Value::Switch(on) => on.fmt(f),
            Value::Share(share) => write!(f, "{}%", (share * 1e4).round() / 100.0),
        }
    }
}

impl Value {
    /// As JSON: bytes and counts as numbers, everything else as text.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Memory(MemorySpec::Bytes(bytes)) => bytes.get().into(),
            Value::Count(count) => (*count).into(),
            Value::Switch(on) => (*on).into(),
            other => other.to_string().into(),
        }
    }
}

/// Why a text is not a value of its setting, and what would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// What is wrong with it.
    pub(crate) why: String,
    /// What to write instead.
    pub(crate) remedy: String,
}

impl Invalid {
    fn new(why: impl Into<String>, remedy: impl Into<String>) -> Invalid {
        Invalid {
            why: why.into(),
            remedy: remedy.into(),
        }
    }
}

/// Reads a budget: a size of at least one page, or a share.
pub(crate) fn memory(text: &str) -> Result<Value, Invalid> {
    let remedy = "write a size such as 512MiB, 2GiB or 1GB, or a share such as 80%";
    match text.parse::<MemorySpec>() {
        Ok(MemorySpec::Bytes(bytes)) if bytes < Bytes::kib(4) => {
            let why = format!("{} is less than one page of memory", bytes);
            Err(Invalid::new(why, remedy))
        }
        Ok(spec) => Ok(Value::Memory(spec)),
        Err(error) => Err(Invalid::new(error.to_string(), remedy)),
    }
}

/// Reads a count of tokens: 1 to 2^24.
pub(crate) fn tokens(text: &str) -> Result<Value, Invalid> {
    count(text, 1, 1 << 24, 1)
}

/// Reads a count of sequences: 1 to 4,096.
pub(crate) fn sequences(text: &str) -> Result<Value, Invalid> {
    count(text, 1, 4096, 1)
}

/// Reads a weight among others: 1 to 1,000.
pub(crate) fn weight(text: &str) -> Result<Value, Invalid> {
    count(text, 1, 1000, 1)
}

/// Reads a count of texts: 1 to 2^20.
pub(crate) fn texts(text: &str) -> Result<Value, Invalid> {
    count(text, 1, 1 << 20, 1)
}

/// Reads a count of sampling parameters: 0 to 65,536.
pub(crate) fn params(text: &str) -> Result<Value, Invalid> {
    count(text, 0, 1 << 16, 1)
}

/// Reads a count of heaps: 1 to 64.
pub(crate) fn heaps(text: &str) -> Result<Value, Invalid> {
    count(text, 1, 64, 1)
}

/// Reads a count of levels: 1 to 12.
pub(crate) fn depth(text: &str) -> Result<Value, Invalid> {
    count(text, 1, 12, 1)
}

/// Reads a count of threads: 1 to 1,024.
pub(crate) fn threads(text: &str) -> Result<Value, Invalid> {
    count(text, 1, 1024, 1)
}

/// Reads a count of headers: 1 to 1,024.
pub(crate) fn headers(text: &str) -> Result<Value, Invalid> {
    count(text, 1, 1024, 1)
}

/// Reads how deep JSON may be nested: 4, which chats need, to 128, which every stack holds.
pub(crate) fn json_depth(text: &str) -> Result<Value, Invalid> {
    count(text, 4, 128, 1)
}

/// Reads the tokens of a block: a multiple of 16, the tile that attention reads.
pub(crate) fn block_tokens(text: &str) -> Result<Value, Invalid> {
    count(text, 16, 1024, 16)
}

fn count(text: &str, least: usize, most: usize, unit: usize) -> Result<Value, Invalid> {
    let remedy = match unit {
        1 => format!("write a whole number from {least} to {most}"),
        _ => format!("write a multiple of {unit} from {least} to {most}"),
    };
    match text.trim().parse::<usize>() {
        Ok(count) if count < least => Err(Invalid::new(
            format!("{count} is less than {least}"),
            remedy,
        )),
        Ok(count) if count > most => {
            Err(Invalid::new(format!("{count} is more than {most}"), remedy))
        }
        Ok(count) if !count.is_multiple_of(unit) => Err(Invalid::new(
            format!("{count} is not a multiple of {unit}"),
            remedy,
        )),
        Ok(count) => Ok(Value::Count(count)),
        Err(_) => Err(Invalid::new(
            "it is not a whole number in that range",
            remedy,
        )),
    }
}

/// Reads how keys and values are stored.
pub(crate) fn kv_dtype(text: &str) -> Result<Value, Invalid> {
    let all = KvDtype::ALL;
    let typed = text.trim().to_ascii_lowercase();
    all.into_iter()
        .find(|dtype| dtype.name() == typed)
        .map(Value::KvDtype)
        .ok_or_else(|| {
            let names: Vec<_> = all.iter().map(|dtype| dtype.name()).collect();
            Invalid::new(
                "it is not a type that keys and values can be stored in",
                format!("write one of {}", names.join(", ")),
            )
        })
}

/// Reads which vector instructions to use: one of those that this machine has.
pub(crate) fn isa(text: &str) -> Result<Value, Invalid> {
    let typed = text.trim().to_ascii_lowercase();
    Isa::from_name(&typed).map(Value::Isa).ok_or_else(|| {
        let names: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
        Invalid::new(
            "this machine has no such vector instructions, or they have no kernels here",
            format!(
                "write one of {} (bursar doctor says what there is)",
                names.join(", ")
            ),
        )
    })
}

/// Reads a path.
pub(crate) fn path(text: &str) -> Result<Value, Invalid> {
    if text.is_empty() {
        return Err(Invalid::new("it is empty", "write a path"));
    }
    Ok(Value::Path(PathBuf::from(text)))
}

/// Reads an address with its port.
pub(crate) fn address(text: &str) -> Result<Value, Invalid> {
    let text = text.trim();
    let numbers = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numbers.parse().map(Value::Address).map_err(|_| {
        Invalid::new(
            "it is not an IP address with a port",
            "write an address such as 127.0.0.1:8080, [::1]:8080 or localhost:8080",
        )
    })
}

/// Reads a length of time: `500ms`, `30s`, `5m`, `1h`.
pub(crate) fn time(text: &str) -> Result<Value, Invalid> {
    let text = text.trim();
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let read = units.iter().find_map(|(unit, millis)| {
        let count = text.strip_suffix(unit)?.trim().parse::<u32>().ok()?;
        Some(Duration::from_millis(u64::from(count) * millis))
    });
    read.map(Value::Time).ok_or_else(|| {
        Invalid::new(
            "it is not a length of time",
            "write a whole number with its unit: 500ms, 30s, 5m or 1h",
        )
    })
}

/// Reads a length of time for a flag that is no setting.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match time(text) {
        Ok(Value::Time(time)) => Ok(time),
        Ok(other) => Err(format!("{other} is not a length of time")),
        Err(Invalid { why, remedy }) => Err(format!("{why}; {remedy}")),
    }
}

/// Reads how weights are held.
pub(crate) fn weights_dtype(text: &str) -> Result<Value, Invalid> {
    let typed = text.trim().to_ascii_lowercase();
    let mut forms = WeightsDtype::DESCENDING.into_iter();
    let choice = match typed.as_str() {
        "auto" => Some(DtypeChoice::Auto),
        typed => forms
            .find(|form| form.name() == typed)
            .map(DtypeChoice::Held),
    };
    choice.map(Value::WeightsDtype).ok_or_else(|| {
        Invalid::new(
            "it is not a way to hold weights",
            "write as-is, bf16, q8_0, q4_k or auto",
        )
    })
}

/// Reads where weights are.
pub(crate) fn weights_residency(text: &str) -> Result<Value, Invalid> {
    let choice = match text.trim().to_ascii_lowercase().as_str() {
        "auto" => ResidencyChoice::Auto,
        "resident" => ResidencyChoice::Resident,
        "streamed" => ResidencyChoice::Streamed,
        _ => {
            return Err(Invalid::new(
                "it is not a place for weights",
                "write resident, streamed or auto",
            ));
        }
    };
    Ok(Value::WeightsResidency(choice))
}

/// Reads how long a model stays that nobody uses: a length of time, 0, or -1.
pub(crate) fn keep_alive(text: &str) -> Result<Value, Invalid> {
    match (text.trim(), time(text)) {
        ("0", _) => Ok(Value::KeepAlive(Some(Duration::ZERO))),
        ("-1", _) => Ok(Value::KeepAlive(None)),
        (_, Ok(Value::Time(time))) => Ok(Value::KeepAlive(Some(time))),
        _ => Err(Invalid::new(
            "it is not a length of time",
            "write a whole number with its unit (500ms, 30s, 5m, 1h), 0 for not at all, or -1 for \
             until the model's place is needed",
        )),
    }
}

/// Reads names with commas between.
pub(crate) fn names(text: &str) -> Result<Value, Invalid> {
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    match names.iter().any(String::is_empty) {
        true => Err(Invalid::new(
            "a name is empty",
            "write names of models with commas between",
        )),
        false => Ok(Value::Names(names)),
    }
}

/// Reads which heap a block comes from.
pub(crate) fn strategy(text: &str) -> Result<Value, Invalid> {
    let typed = text.trim().to_ascii_lowercase();
    let found = Strategy::ALL.into_iter().find(|one| one.name() == typed);
    found.map(Value::Strategy).ok_or_else(|| {
        let names = Strategy::ALL.map(Strategy::name).join(", ");
        Invalid::new(
            "it is not a way of choosing a heap",
            format!("write one of {names}"),
        )
    })
}

/// Reads sizes with commas between.
pub(crate) fn sizes(text: &str) -> Result<Value, Invalid> {
    let sizes = text
        .split(',')
        .map(|size| size.trim().parse::<MemorySpec>());
    sizes
        .collect::<Result<_, _>>()
        .map(Value::Sizes)
        .map_err(|error| {
            Invalid::new(
                error.to_string(),
                "write sizes with commas between, such as 64KiB,1MiB",
            )
        })
}

/// Reads which models go for others.
pub(crate) fn eviction(text: &str) -> Result<Value, Invalid> {
    match text.trim().to_ascii_lowercase().as_str() {
        "cheapest" => Ok(Value::Eviction(Eviction::Cheapest)),
        "lru" => Ok(Value::Eviction(Eviction::Lru)),
        _ => Err(Invalid::new(
            "it is not a way of choosing models",
            "write cheapest or lru",
        )),
    }
}

/// Reads how sequences are let in.
pub(crate) fn admission(text: &str) -> Result<Value, Invalid> {
    match text.trim().to_ascii_lowercase().as_str() {
        "grow" => Ok(Value::Admission(Admission::Grow)),
        "reserve" => Ok(Value::Admission(Admission::Reserve)),
        _ => Err(Invalid::new(
            "it is not a way of letting sequences in",
            "write grow or reserve",
        )),
    }
}

/// Reads a size of the cache.
pub(crate) fn preset(text: &str) -> Result<Value, Invalid> {
    let typed = text.trim().to_ascii_lowercase();
    let found = Preset::ALL
        .into_iter()
        .find(|preset| preset.name() == typed);
    match found {
        None if typed != CUSTOM => {
            let names = Preset::ALL.map(Preset::name).join(", ");
            Err(Invalid::new(
                "it is not a size of the cache",
                format!("write one of {names}, {CUSTOM}"),
            ))
        }
        found => Ok(Value::Preset(found)),
    }
}

/// Reads whether something is on.
pub(crate) fn switch(text: &str) -> Result<Value, Invalid> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(Value::Switch(true)),
        "false" | "no" | "off" | "0" => Ok(Value::Switch(false)),
        _ => Err(Invalid::new(
            "it is neither on nor off",
            "write true or false",
        )),
    }
}

/// Reads a part of a whole: `30%` or `0.3`.
pub(crate) fn share(text: &str) -> Result<Value, Invalid> {
    let text = text.trim();
    let read = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().map(|share| share / 100.0),
        None => text.parse::<f64>(),
    };
    match read {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(Value::Share(share)),
        _ => Err(Invalid::new(
            "it is not a share of a whole",
            "write a share such as 30% or 0.3",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(read: fn(&str) -> Result<Value, Invalid>, text: &str, why: &str, remedy: &str) {
        let invalid = read(text).expect_err(text);
        assert!(invalid.why.contains(why), "{text}: {invalid:?}");
        assert!(invalid.remedy.contains(remedy), "{text}: {invalid:?}");
    }

    #[test]
    fn values_are_read() {
        assert_eq!(
            memory("2GiB"),
            Ok(Value::Memory(MemorySpec::Bytes(Bytes::gib(2))))
        );
        assert_eq!(memory("80%"), Ok(Value::Memory(MemorySpec::Percent(80.0))));
        assert_eq!(tokens(" 4096 "), Ok(Value::Count(4096)));
        assert_eq!(block_tokens("32"), Ok(Value::Count(32)));
        assert_eq!(kv_dtype("BF16"), Ok(Value::KvDtype(KvDtype::BF16)));
        assert_eq!(kv_dtype("q8_0"), Ok(Value::KvDtype(KvDtype::Q8_0)));
        assert_eq!(isa("scalar"), Ok(Value::Isa(Isa::scalar())));
        assert_eq!(path("models"), Ok(Value::Path("models".into())));
        assert_eq!(time("1500ms"), Ok(Value::Time(Duration::from_millis(1500))));
        assert_eq!(time(" 2 m").map(|v| v.to_string()), Ok("120s".to_owned()));
        assert_eq!(
            address("localhost:80").map(|v| v.to_string()),
            Ok("127.0.0.1:80".to_owned())
        );
        assert_eq!(preset("custom"), Ok(Value::Preset(None)));
        assert_eq!(
            preset("Large").map(|v| v.to_string()),
            Ok("large".to_owned())
        );
        assert_eq!(switch("on"), Ok(Value::Switch(true)));
        assert_eq!(switch("false"), Ok(Value::Switch(false)));
        assert_eq!(share("0.3"), share("30 %"));
        assert_eq!(share("12.5%").map(|v| v.to_string()), Ok("12.5%".into()));
        let sizes = sizes("64KiB, 1MiB").map(|v| v.to_string());
        assert_eq!(sizes, Ok("64.0 KiB,1.0 MiB".to_owned()));
        assert_eq!(strategy("Best-Fit"), Ok(Value::Strategy(Strategy::BestFit)));
        assert_eq!(
            admission("Reserve"),
            Ok(Value::Admission(Admission::Reserve))
        );
    }

    #[test]
    fn impossible_values_say_why_and_what_is_possible() {
        refused(memory, "lots", "not a size", "512MiB");
        refused(memory, "0", "less than one page", "80%");
        refused(memory, "101%", "101%", "80%");
        refused(tokens, "0", "less than 1", "from 1 to 16777216");
        refused(tokens, "-3", "not a whole number", "from 1");
        refused(sequences, "5000", "more than 4096", "from 1 to 4096");
        refused(block_tokens, "24", "not a multiple of 16", "multiple of 16");
        refused(kv_dtype, "f8", "stored in", "f32, f16, bf16, q8_0");
        refused(switch, "maybe", "neither on nor off", "true or false");
        refused(share, "130%", "not a share", "30% or 0.3");
        refused(share, "NaN", "not a share", "30%");
        refused(preset, "huge", "not a size", "small, medium, large, custom");
        refused(isa, "neon9000", "no such vector", "scalar");
        refused(path, "", "empty", "path");
        refused(time, "30", "not a length", "30s");
        refused(time, "-1s", "not a length", "500ms");
        refused(address, "8080", "not an IP address", "127.0.0.1:8080");
        refused(
            strategy,
            "first",
            "not a way",
            "round-robin, best-fit, least-used",
        );
        refused(sizes, "64KiB,lots", "not a size", "64KiB,1MiB");
        refused(heaps, "65", "more than 64", "from 1 to 64");
        refused(admission, "all", "not a way", "grow or reserve");
    }
}
