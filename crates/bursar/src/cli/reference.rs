//! `docs/reference/verbs.md`: every verb with its arguments and flags, as the program's own help has them.

use std::fmt::Write;
use std::path::Path;

use clap::{Arg, Command};

const STALE: &str = "docs/reference/verbs.md is out of date; write it anew with \
                     `BURSAR_WRITE_VERBS=1 cargo test -p bursar reference`";

/// The heading of flags that are settings, and have a page of their own.
const SETTINGS: &str = "Settings";

fn write(mut root: Command) -> String {
    root.build();
    let mut out = String::from(
        "# Verbs\n\n\
         Every verb with its own arguments and flags, from the program itself\n\
         (`BURSAR_WRITE_VERBS=1 cargo test -p bursar reference`). [What they are for](cli.md) says more, with examples. \
         Flags that\nare [settings](settings.md) can also be given in the environment and in a file, and are only named \
         here.\n",
    );
    write_global(&root, &mut out);
    for verb in shown(&root) {
        write_verb(verb, "bursar", &mut out);
    }
    out
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    let verbs = command.get_subcommands();
    verbs.filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
}

fn write_global(root: &Command, out: &mut String) {
    out.push_str("\nEverywhere:\n\n| flag | what it does |\n|---|---|\n");
    for arg in root.get_arguments().filter(|arg| arg.is_global_set()) {
        let _ = writeln!(out, "| `{}` | {} |", form(arg), help(arg));
    }
}

fn write_verb(verb: &Command, above: &str, out: &mut String) {
    let name = format!("{above} {}", verb.get_name());
    let about = verb.get_about().map(ToString::to_string);
    let _ = write!(out, "\n## {name}\n\n{}.\n", about.unwrap_or_default());
    let own = |arg: &&Arg| !arg.is_hide_set() && !arg.is_global_set() && arg.get_id() != "help";
    let setting = |arg: &&Arg| arg.get_help_heading() == Some(SETTINGS);
    let (settings, own): (Vec<&Arg>, Vec<&Arg>) =
        verb.get_arguments().filter(own).partition(setting);
    if !own.is_empty() {
        out.push_str("\n| argument or flag | what it does |\n|---|---|\n");
    }
    for arg in own {
        let _ = writeln!(out, "| `{}` | {} |", form(arg), help(arg));
    }
    if !settings.is_empty() {
        let names = settings.iter().filter_map(|arg| arg.get_long());
        let names: Vec<String> = names.map(|name| format!("`--{name}`")).collect();
        let _ = write!(out, "\nSettings: {}.\n", names.join(", "));
    }
    for verb in shown(verb) {
        write_verb(verb, &name, out);
    }
}

/// How it is typed.
fn form(arg: &Arg) -> String {
    let value = match arg.get_value_names() {
        Some(names) if arg.get_action().takes_values() => names.join(" ").replace('|', " or "),
        _ => String::new(),
    };
    let names = match (arg.get_short(), arg.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("--{long}"),
        (None, None) => return value,
    };
    format!("{names} {value}").trim_end().to_owned()
}

fn help(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut words = help.replace('|', "\\|").replace('\n', " ");
    let values: Vec<String> = arg
        .get_possible_values()
        .iter()
        .filter(|_| arg.get_action().takes_values())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !values.is_empty() {
        let _ = write!(words, ": {}", values.join(", "));
    }
    words
}

/// The committed page says the same, or is written anew.
pub(super) fn compare(root: Command) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/verbs.md");
    let text = write(root);
    if std::env::var_os("BURSAR_WRITE_VERBS").is_some() {
        std::fs::write(&page, text).expect("the page is written");
        return;
    }
    let there = std::fs::read_to_string(&page).unwrap_or_default();
    for (line, (there, now)) in (1..).zip(there.lines().zip(text.lines())) {
        assert_eq!(there, now, "line {line}: {STALE}");
    }
    assert_eq!(there.len(), text.len(), "{STALE}");
}
