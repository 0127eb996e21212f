//! `bursar bench serve [URL|MODEL]...`: clients that ask a running server of OpenAI's API, any of them, for
//! a stated mix of requests, and what came of that. Several servers are asked by turns, round by round, so
//! that all meet the same moods of the machine.
//!
//! - `mix`: which requests, with which lengths, when.
//! - `trace`: the same from a recorded trace.
//! - `words`: prompts of a wished length.
//! - `target`: what is asked of a server, and found out before.
//! - `child`: a server started for the measurement.
//! - `drive`: the clients.
//! - `report`: figures from what became of each request.

mod child;
mod drive;
mod mix;
mod report;
mod target;
mod trace;
mod words;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use self::child::Child;
use self::drive::{Done, Outcome, Pace};
use self::mix::{Extent, Lengths, Mix, SharedPrefix};
use self::report::Round;
use self::target::{Endpoint, Manner, MemorySource, Target};
use self::trace::Trace;
use super::sheet::Sheet;
use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, TakesSettings, duration};
use crate::failure::Failure;
use crate::http::Site;
use crate::progress::Unit;
use crate::verbs::{Shared, ask};

/// Requests where neither their number nor a time is given.
const REQUESTS: u64 = 64;
/// Most clients at once.
const CLIENTS_MAX: usize = 4096;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Servers to measure, as http://HOST:PORT, or models for a server of this program that is started for the
    /// measurement [default: one with the bundled models]
    #[arg(value_name = "URL|MODEL")]
    targets: Vec<String>,
    /// What is asked for
    #[arg(long, value_enum, value_name = "KIND", default_value = "chat")]
    endpoint: Endpoint,
    /// Model to name in requests; once, or once for each server [default: the first that fits of /v1/models]
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// Requests of a round [default: 64, or all of a trace]
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Time for which requests are sent; those under way are waited for
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Requests per second, arriving at random (Poisson), whether or not others are answered
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, conflicts_with = "concurrency")]
    rate: Option<f64>,
    /// Clients that each ask again when they have their answer [default: 4]
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Clients there are with --rate or --trace: who comes when all are busy is sent late, which is told
    #[arg(long, value_name = "N", default_value_t = 256)]
    clients: usize,
    /// Tokens of a prompt beside what it shares, as 128, or 128..512 for any count between
    #[arg(long, value_name = "N|A..B", value_parser = Lengths::parse, default_value = "128")]
    prompt_tokens: Lengths,
    /// Tokens of an answer, as 64, or 16..256
    #[arg(long, value_name = "N|A..B", value_parser = Lengths::parse, default_value = "64")]
    output_tokens: Lengths,
    /// Tokens that prompts begin with in common, as 512, or 512x4 for four different beginnings
    #[arg(long, value_name = "TOKENS[xN]", value_parser = SharedPrefix::parse)]
    shared_prefix: Option<SharedPrefix>,
    /// Share of requests whose client goes away in the middle of the answer, as 0.1 or 10%
    #[arg(long, value_name = "SHARE", value_parser = share, default_value = "0")]
    cancel: f64,
    /// Requests recorded in Mooncake's format (JSON lines: timestamp, input_length, output_length, hash_ids)
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["rate", "concurrency", "prompt_tokens", "output_tokens", "shared_prefix"]
    )]
    trace: Option<PathBuf>,
    /// Send a trace so many times as fast as it was recorded
    #[arg(long, value_name = "FACTOR", value_parser = rate, default_value = "1", requires = "trace")]
    speedup: f64,
    /// How often a client that is told 429 or 503 comes back, after the time that it is told
    #[arg(long, value_name = "N", default_value_t = 0)]
    retries: u32,
    /// How long a server may be silent
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10m")]
    timeout: Duration,
    /// Let answers end where the model ends them, not only at their wished length
    #[arg(long)]
    natural_end: bool,
    /// How much answers are left to chance
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f64,
    /// Rounds; figures are the median, the least and the most of them
    #[arg(long, value_name = "N", default_value_t = 1)]
    rounds: u64,
    /// What everything is drawn from; each round has one of its own, the same for all servers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Environment variable with the key that the server asks for [default: the first key of --api-key-file]
    #[arg(long, value_name = "VARIABLE")]
    api_key_env: Option<String>,
    /// Process of each server at a URL, in their order, to read its peak memory from the kernel [default: what
    /// the server's own GET /memory says, if it has that]
    #[arg(long = "pid", value_name = "PID,...", value_delimiter = ',')]
    processes: Vec<u32>,
    /// Write the figures to FILE as JSON, - for stdout; once for each server
    #[arg(long, value_name = "FILE")]
    json: Vec<PathBuf>,
    /// What `bursar serve` is given when a server is started, beside its models
    #[arg(last = true, value_name = "SERVE ARGUMENTS")]
    serve: Vec<OsString>,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// What decides as whom servers are asked, and what one that is started may use.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] =
        &[&table::MEMORY, &table::API_KEY_FILE, &table::TENANTS_FILE];
}

/// Reads a number above 0.
fn rate(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("it is no number above 0".to_owned()),
    }
}

/// Reads `0.1` or `10%`.
fn share(text: &str) -> Result<f64, String> {
    let (number, whole) = match text.trim().strip_suffix('%') {
        Some(percent) => (percent, 100.0),
        None => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(part) if (0.0..=whole).contains(&part) => Ok(part / whole),
        _ => Err("it is no share from 0 to 1, or 0% to 100%".to_owned()),
    }
}

/// Measures and prints it.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let mix = mix(arguments)?;
    let (urls, models): (Vec<&String>, Vec<&String>) = arguments
        .targets
        .iter()
        .partition(|target| target.contains("://"));
    let sites = urls.iter().map(|url| Site::parse(url));
    let sites = sites.collect::<Result<Vec<Site>, Failure>>()?;
    let starts = sites.is_empty() || !models.is_empty();
    check_counts(arguments, &sites, starts)?;
    let key = key(arguments, shared)?;
    // Ended with this value, also where the measurement fails.
    let mut child = match starts {
        true => Some(Child::start(&serve_arguments(arguments, &models, shared))?),
        false => None,
    };
    let started = child.iter().map(|child| {
        let source = MemorySource::Process(child.id());
        (child.site.clone(), source)
    });
    let given = sites.into_iter().enumerate().map(|(place, site)| {
        let process = arguments.processes.get(place);
        let source = process.map_or(MemorySource::Told, |id| MemorySource::Process(*id));
        (site, source)
    });
    let manner = Manner {
        endpoint: arguments.endpoint,
        ignore_eos: !arguments.natural_end,
        temperature: arguments.temperature,
    };
    let mut targets = Vec::new();
    for (place, (site, source)) in started.chain(given).enumerate() {
        let models = &arguments.models;
        let model = models.get(place).or(models.first()).map(String::as_str);
        targets.push(Target::find(site, key.clone(), model, manner, source)?);
    }
    let mut rounds: Vec<Vec<Round>> = targets.iter().map(|_| Vec::new()).collect();
    for number in 0..arguments.rounds {
        let mut order: Vec<usize> = (0..targets.len()).collect();
        if number % 2 == 1 {
            order.reverse();
        }
        for place in order {
            let (target, rounds) = (&targets[place], &mut rounds[place]);
            rounds.push(measure(arguments, &mix, target, number, shared)?);
            if let Some(child) = &mut child {
                child.runs()?;
            }
        }
    }
    for (place, (target, rounds)) in targets.iter().zip(&rounds).enumerate() {
        if place > 0
            && arguments
                .json
                .first()
                .is_none_or(|path| path != OsStr::new("-"))
        {
            println!();
        }
        let mut sheet = stated(arguments, &mix, target, child.as_ref());
        report::fill(&mut sheet, rounds);
        sheet.finish(arguments.json.get(place).map(PathBuf::as_path))?;
    }
    Ok(())
}

fn mix(arguments: &Arguments) -> Result<Mix, Failure> {
    let trace = arguments.trace.as_deref();
    let trace = trace
        .map(|path| Trace::read(path, arguments.speedup))
        .transpose()?;
    Ok(Mix {
        prompt_tokens: arguments.prompt_tokens,
        output_tokens: arguments.output_tokens,
        shared_prefix: arguments.shared_prefix,
        cancel: arguments.cancel,
        rate: arguments.rate,
        trace,
    })
}

/// Refuses what does not go together.
fn check_counts(arguments: &Arguments, sites: &[Site], starts: bool) -> Result<(), Failure> {
    let servers = sites.len() + usize::from(starts);
    let of_each = |what: &str, count: usize, least: usize| {
        if count <= least || count == servers {
            return Ok(());
        }
        let message = format!("{what} is given {count} times for {servers} servers");
        Err(Failure::usage(message)
            .help("give one for each server, in the order in which they are asked"))
    };
    of_each("--model", arguments.models.len(), 1)?;
    of_each("--json", arguments.json.len(), usize::from(servers == 1))?;
    if arguments.json.len() > 1 && arguments.json.iter().any(|path| path == OsStr::new("-")) {
        return Err(
            Failure::usage("--json - writes one sheet to stdout, and there are several")
                .help("give a file for each"),
        );
    }
    if !arguments.processes.is_empty() && arguments.processes.len() != sites.len() {
        let (processes, urls) = (arguments.processes.len(), sites.len());
        return Err(
            Failure::usage(format!("--pid names {processes} processes for {urls} URLs"))
                .help("give the process of each server at a URL, in their order"),
        );
    }
    let for_start = !arguments.serve.is_empty() || given_memory(arguments).is_some();
    if for_start && !starts {
        return Err(Failure::usage(
            "--memory and what stands after -- are for a server that is started, and only URLs are given",
        )
        .help("start the server at the URL with them, or give no URL"));
    }
    if arguments.endpoint == Endpoint::Embeddings && arguments.cancel > 0.0 {
        return Err(Failure::usage(
            "--cancel leaves streams in their middle, and vectors are no streams",
        )
        .help("leave it out, or measure --endpoint chat"));
    }
    let counts = [
        ("--requests", arguments.requests == Some(0)),
        ("--rounds", arguments.rounds == 0),
        ("--concurrency", arguments.concurrency == Some(0)),
        ("--clients", arguments.clients == 0),
    ];
    if let Some((flag, _)) = counts.iter().find(|(_, is_zero)| *is_zero) {
        return Err(Failure::usage(format!("{flag} is 0")).help("give 1 or more"));
    }
    let most = arguments.concurrency.unwrap_or(0).max(arguments.clients);
    if most > CLIENTS_MAX {
        return Err(
            Failure::usage(format!("{most} clients are more than {CLIENTS_MAX}"))
                .help("measure with several of this program at once"),
        );
    }
    Ok(())
}

fn given_memory(arguments: &Arguments) -> Option<&str> {
    let memory: &'static Setting = &table::MEMORY;
    let given = arguments.settings.given();
    let given = given
        .iter()
        .find(|(setting, _)| std::ptr::eq(*setting, memory));
    given.map(|(_, text)| text.as_str())
}

fn key(arguments: &Arguments, shared: &Shared) -> Result<Option<String>, Failure> {
    let Some(name) = &arguments.api_key_env else {
        return ask::key(&shared.settings(&arguments.settings)?);
    };
    match std::env::var(name) {
        Ok(key) if !key.trim().is_empty() => Ok(Some(key.trim().to_owned())),
        _ => Err(Failure::usage(format!("the environment has no {name}"))
            .help("name the variable that holds the key, not the key itself")),
    }
}

fn serve_arguments(arguments: &Arguments, models: &[&String], shared: &Shared) -> Vec<OsString> {
    let mut all: Vec<OsString> = models.iter().map(OsString::from).collect();
    let memory = given_memory(arguments).map(OsStr::new);
    let config = shared.config.as_ref().map(|path| path.as_os_str());
    for (flag, value) in [("--memory", memory), ("--config", config)] {
        if let Some(value) = value {
            all.extend([flag.into(), value.to_owned()]);
        }
    }
    all.extend(arguments.serve.iter().cloned());
    all
}

/// The number of requests and the time, as far as they are bounded.
fn extent(arguments: &Arguments) -> Extent {
    let bounded = arguments.duration.is_some() || arguments.trace.is_some();
    Extent {
        requests: arguments.requests.or((!bounded).then_some(REQUESTS)),
        duration: arguments.duration,
    }
}

fn pace(arguments: &Arguments, mix: &Mix) -> Pace {
    let clients = match mix.is_timed() {
        true => arguments.clients,
        false => arguments.concurrency.unwrap_or(4),
    };
    Pace {
        clients,
        retries: arguments.retries,
        patience: arguments.timeout,
    }
}

/// One round of one server.
fn measure(
    arguments: &Arguments,
    mix: &Mix,
    target: &Target,
    number: u64,
    shared: &Shared,
) -> Result<Round, Failure> {
    let (extent, seed) = (extent(arguments), arguments.seed.wrapping_add(number));
    let mut pace = pace(arguments, mix);
    let count = mix.count(extent, seed);
    if let Some(count) = count.and_then(|count| usize::try_from(count).ok()) {
        pace.clients = pace.clients.min(count).max(1);
    }
    let label = format!(
        "round {} of {}, {}",
        number + 1,
        arguments.rounds,
        target.model
    );
    // Where nobody knows how many there will be, the time is known.
    let seconds = arguments.duration.map(|duration| duration.as_secs());
    let (unit, total) = match count {
        Some(count) => (Unit::Requests, Some(count)),
        None => (Unit::Seconds, seconds),
    };
    let mut meter = shared.progress.meter(&label, unit, total);
    let begun = Instant::now();
    let (mut all, mut tokens, mut amiss): (Vec<Done>, u64, u64) = (Vec::new(), 0, 0);
    drive::round(target, mix, extent, seed, pace, |done| {
        if let Some(done) = done {
            tokens += done.output_tokens.unwrap_or(done.pieces);
            amiss += u64::from(matches!(
                done.outcome,
                Outcome::Failed(_) | Outcome::Refused
            ));
            all.push(done);
        }
        let at = match unit {
            Unit::Seconds => begun.elapsed().as_secs().min(seconds.unwrap_or(0)),
            _ => all.len() as u64,
        };
        meter.set(at, || {
            let rate = tokens as f64 / begun.elapsed().as_secs_f64().max(1e-3);
            match (arguments.endpoint.streams(), amiss) {
                (true, 0) => format!("{rate:.0} tokens/s"),
                (true, amiss) => format!("{rate:.0} tokens/s, {amiss} refused or failed"),
                (false, 0) => String::new(),
                (false, amiss) => format!("{amiss} refused or failed"),
            }
        });
        Ok(())
    })?;
    meter.finish();
    let peak = target.memory_peak_bytes();
    let endpoint = arguments.endpoint;
    Ok(report::round(&all, endpoint, mix.is_timed(), peak))
}

/// A sheet that says what was measured and how.
fn stated(arguments: &Arguments, mix: &Mix, target: &Target, child: Option<&Child>) -> Sheet {
    let mut sheet = Sheet::new("serve");
    let started = child.is_some_and(|child| child.site == target.site);
    match started {
        true => {
            sheet.set("server", "started for the measurement");
            if let Some(memory) = given_memory(arguments) {
                sheet.set("memory", memory);
            }
            let given = arguments.serve.iter().map(|word| word.to_string_lossy());
            let given = given.collect::<Vec<_>>().join(" ");
            if !given.is_empty() {
                sheet.set("serve_arguments", given);
            }
        }
        false => sheet.set("server", target.site.url()),
    }
    sheet.set("model", target.model.as_str());
    sheet.set("endpoint", arguments.endpoint.name());
    match (&mix.trace, mix.rate) {
        (Some(trace), _) => {
            let name = arguments.trace.as_deref().and_then(|path| path.file_name());
            let name = name.unwrap_or_default().to_string_lossy();
            let (requests, speedup) = (trace.len(), arguments.speedup);
            let words = format!("as in {name} ({requests} requests), {speedup} times as fast");
            sheet.set("arrivals", words);
        }
        (None, Some(rate)) => sheet.set("arrivals", format!("{rate} per second, Poisson")),
        (None, None) => {
            let clients = pace(arguments, mix).clients;
            sheet.set(
                "arrivals",
                format!("{clients} clients, one request each at a time"),
            );
        }
    }
    let extent = extent(arguments);
    if let Some(requests) = extent.requests {
        sheet.set("requests", requests);
    }
    if let Some(duration) = extent.duration {
        sheet.set("duration_seconds", duration.as_secs_f64());
    }
    if mix.trace.is_none() {
        sheet.set("prompt_tokens", mix.prompt_tokens.to_string());
        if arguments.endpoint.streams() {
            sheet.set("output_tokens", mix.output_tokens.to_string());
        }
        if let Some(prefix) = mix.shared_prefix {
            sheet.set("shared_prefix_tokens", prefix.to_string());
        }
    }
    if mix.cancel > 0.0 {
        sheet.set("cancel_share", mix.cancel);
    }
    if arguments.retries > 0 {
        sheet.set("retries", arguments.retries);
    }
    if arguments.endpoint.streams() {
        sheet.set("ignore_eos", !arguments.natural_end);
        sheet.set("temperature", arguments.temperature);
    }
    sheet.set("prompts", target.measured_by());
    sheet.set("rounds", arguments.rounds);
    sheet.set("seed", arguments.seed);
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_rates_are_read() {
        assert_eq!(share("0.25"), Ok(0.25));
        assert_eq!(share("10%"), Ok(0.1));
        assert_eq!(rate("2.5"), Ok(2.5));
        for text in ["-1", "1.5", "101%", "x", "NaN"] {
            share(text).expect_err(text);
        }
        for text in ["0", "-1", "inf", "x"] {
            rate(text).expect_err(text);
        }
    }
}
