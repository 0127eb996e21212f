//! `bursar tune [URL|FILE]`: what to change, from the figures of a server that runs or of a report that
//! was kept, with the lines to paste.
//!
//! - `figures`: what of a report the advisor reads.
//! - `lines`: changes as lines of a configuration file.

mod figures;
mod lines;

use std::path::{Path, PathBuf};

use bursar_memory::advisor::{Advice, Finding, advise};
use clap::Args;
use serde_json::{Value, json};

use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, Settings};
use crate::failure::Failure;
use crate::output::{Align, Out, Table};
use crate::verbs::{Shared, ask};
use lines::Lines;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A server, as http://127.0.0.1:8080, or a file with what its GET /memory said (`bursar memory
    /// --json`); by default the server at --listen
    #[arg(value_name = "URL|FILE")]
    from: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags<ask::Takes>,
}

/// Asks and advises.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let report = report(arguments, shared)?;
    let pools = figures::of_pools(&report)?;
    let advice = match pools {
        Some(figures) => advise(&figures),
        None => Advice::default(),
    };
    let params = figures::of_params(&report);
    let findings: Vec<&Finding> = advice
        .findings
        .iter()
        .chain(params.iter().map(|(finding, _)| finding))
        .collect();
    let mut lines = Lines::of(&advice.changes);
    if let Some((_, Some(capacity))) = params {
        lines.set(&table::PARAMS_POOL_CAPACITY, capacity.to_string());
    }
    let mut out = Out::new();
    match arguments.json {
        true => out.json(&told(&findings, &lines))?,
        false => print(pools.is_some(), &findings, &lines, &mut out)?,
    }
    out.flush()
}

/// What a server says of its memory, now or then.
fn report(arguments: &Arguments, shared: &Shared) -> Result<Value, Failure> {
    let mut given = arguments.settings.given().to_vec();
    if let Some(from) = &arguments.from {
        let Some(address) = address(from)? else {
            return kept(from);
        };
        let listen: &'static Setting = &table::LISTEN;
        given.retain(|(setting, _)| !std::ptr::eq(*setting, listen));
        given.push((listen, address));
    }
    let settings = Settings::resolve(&given, shared.config.as_deref(), &shared.surroundings)?;
    ask::get(&settings, "/memory")
}

/// The address of a server, if that is what is meant.
fn address(from: &Path) -> Result<Option<String>, Failure> {
    let text = from.to_string_lossy();
    if text.starts_with("https://") {
        let message = format!("{text} cannot be asked: servers here speak plain HTTP only");
        return Err(Failure::usage(message)
            .help("save what its GET /memory says in a file, and give that file"));
    }
    Ok(text.strip_prefix("http://").map(|rest| {
        // Whatever path was meant, it is /memory that is asked for.
        let host = rest.split('/').next().unwrap_or_default();
        match host.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_ok() => host.to_owned(),
            _ => format!("{host}:80"),
        }
    }))
}

fn kept(path: &Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::io("read", path, &error).help("give a file, or a server as http://127.0.0.1:8080")
    })?;
    serde_json::from_str(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Failure::failed(format!(
            "{} is no report of a server: line {line}, column {column}: {error}",
            path.display()
        ))
        .help("write one with `bursar memory --json > FILE`")
    })
}

/// A share as such, a count as such.
fn shown(finding: &Finding) -> String {
    match finding.figure.ends_with("_ratio") {
        true => format!("{:.1} %", 100.0 * finding.value),
        false => format!("{}", finding.value),
    }
}

fn print(pools: bool, findings: &[&Finding], lines: &Lines, out: &mut Out) -> Result<(), Failure> {
    if !pools {
        out.line("Pools are off (pool.enabled): of them there is nothing to say.")?;
    }
    if !findings.is_empty() {
        let mut table = Table::new(&[
            ("FIGURE", Align::Left),
            ("IS", Align::Right),
            ("", Align::Left),
            ("", Align::Left),
        ]);
        for finding in findings {
            table.row([
                finding.figure.to_owned(),
                shown(finding),
                finding.grade.name().to_owned(),
                finding.words.to_owned(),
            ]);
        }
        out.line(table)?;
        out.line("")?;
    }
    if lines.are_empty() {
        return out.line("Nothing to change.");
    }
    out.line("To paste into bursar.toml:\n")?;
    out.line(lines.toml())?;
    out.line("or into bursar.yaml:\n")?;
    out.text(lines.yaml())
}

fn told(findings: &[&Finding], lines: &Lines) -> Value {
    let finding = |finding: &&Finding| {
        json!({
            "figure": finding.figure,
            "value": finding.value,
            "grade": finding.grade.name(),
            "words": finding.words,
        })
    };
    json!({
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
        "settings": lines.as_json(),
        "toml": lines.toml(),
        "yaml": lines.yaml(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_files_are_told_apart() {
        let address = |text: &str| address(Path::new(text)).expect("plain");
        assert_eq!(address("memory.json"), None);
        let local = Some("127.0.0.1:8080".to_owned());
        assert_eq!(address("http://127.0.0.1:8080"), local);
        assert_eq!(address("http://127.0.0.1:8080/memory"), local);
        assert_eq!(address("http://[::1]:81/"), Some("[::1]:81".to_owned()));
        assert_eq!(address("http://10.0.0.1"), Some("10.0.0.1:80".to_owned()));
        let secret = super::address(Path::new("https://10.0.0.1"));
        assert!(
            secret
                .expect_err("refused")
                .message()
                .contains("plain HTTP")
        );
    }
}
