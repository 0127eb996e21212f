//! The settings that a verb takes as flags, made from the table for clap.

use std::marker::PhantomData;

use clap::builder::{Arg, ArgAction};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::table::{Fallback, SWITCHES, Setting};

/// Which settings a verb takes.
pub(crate) trait TakesSettings {
    /// In the order in which `--help` shows them.
    const SETTINGS: &'static [&'static Setting];
}

/// The settings given on the command line, as text; flatten it into a verb's arguments.
#[derive(Debug)]
pub(crate) struct SettingFlags<T> {
    given: Vec<(&'static Setting, String)>,
    verb: PhantomData<T>,
}

impl<T> SettingFlags<T> {
    /// What was given: each setting with its text.
    pub(crate) fn given(&self) -> &[(&'static Setting, String)] {
        &self.given
    }
}

/// The flags of a setting that is on or off: whether it is one, and the flag that turns it off.
fn switch(setting: &'static Setting) -> (bool, Option<&'static str>) {
    let found = SWITCHES
        .iter()
        .find(|(other, _)| std::ptr::eq(*other, setting));
    (found.is_some(), found.and_then(|(_, off)| *off))
}

impl<T: TakesSettings> Args for SettingFlags<T> {
    fn augment_args(command: Command) -> Command {
        T::SETTINGS.iter().fold(command, |command, setting| {
            let (is_switch, off) = switch(setting);
            let default = match setting.default {
                Fallback::Value(text) => text,
                Fallback::Derived(words) => words,
            };
            let mut arg = Arg::new(setting.key)
                .long(setting.flag)
                .value_name(setting.placeholder)
                .action(ArgAction::Set)
                // Some values begin with a minus.
                .allow_negative_numbers(true)
                .help_heading("Settings")
                .help(setting.help)
                .long_help(format!(
                    "{}\n\n[default: {default}; file: {}; environment: {}]",
                    setting.help, setting.key, setting.env
                ));
            if is_switch {
                arg = arg
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true");
            }
            let command = command.arg(arg);
            match off {
                Some(off) => command.arg(
                    Arg::new(off)
                        .long(off)
                        .action(ArgAction::SetTrue)
                        .conflicts_with(setting.key)
                        .help_heading("Settings")
                        .help(format!("The same as --{}=false", setting.flag)),
                ),
                None => command,
            }
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<T: TakesSettings> FromArgMatches for SettingFlags<T> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = T::SETTINGS
            .iter()
            .filter_map(|setting| {
                if switch(setting).1.is_some_and(|off| matches.get_flag(off)) {
                    return Some((*setting, "false".to_owned()));
                }
                let text = matches.get_one::<String>(setting.key)?;
                Some((*setting, text.clone()))
            })
            .collect();
        Ok(SettingFlags {
            given,
            verb: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
