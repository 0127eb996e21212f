//! `bursar compare A.json B.json`: two sheets of a bench side by side, with ratios, in words, as JSON and
//! as a picture.
//!
//! - `sheet`: what a sheet holds, and what makes a file none.
//! - `plot`: the ratios as bars.

mod plot;
mod sheet;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{Align, Out, Table, measured};
use crate::picture;
use sheet::{Figure, Sheet, Wish};

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A sheet as `bursar bench ... --json FILE` writes it
    #[arg(value_name = "A.json")]
    first: PathBuf,
    /// Another one, to which the first is compared
    #[arg(value_name = "B.json")]
    second: PathBuf,
    /// Draw the ratios into FILE
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lays them side by side.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (a, b) = (
        Sheet::read(&arguments.first)?,
        Sheet::read(&arguments.second)?,
    );
    let pairs = pairs(&a, &b);
    if pairs.is_empty() {
        let [first, second] = [&a, &b].map(|sheet| sheet.path.display());
        let message = format!("{first} and {second} have no figure in common");
        return Err(Failure::failed(message).help(format!(
            "compare sheets of the same bench: these are of {} and {}",
            a.bench, b.bench
        )));
    }
    if let Some(path) = &arguments.svg {
        picture::write(path, &plot::draw(&a, &b, &pairs))?;
    }
    let mut out = Out::new();
    match arguments.json {
        true => out.json(&told(&a, &b, &pairs))?,
        false => print(&a, &b, &pairs, &mut out)?,
    }
    out.flush()
}

/// A figure of both sheets.
#[derive(Clone, Debug)]
struct Pair<'a> {
    name: &'a str,
    a: &'a Figure,
    b: &'a Figure,
}

/// How the first does beside the second.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Better,
    Worse,
    /// Each one's median lies within the other's measurements.
    Alike,
    /// Nobody said which is to be wished for.
    Neither,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Better => "better",
            Verdict::Worse => "worse",
            Verdict::Alike => "alike",
            Verdict::Neither => "",
        }
    }
}

impl Pair<'_> {
    /// The first by the second; `None` where the second is 0 and the first is not, or one is negative.
    fn ratio(&self) -> Option<f64> {
        let (a, b) = (self.a.median, self.b.median);
        if a == b {
            return Some(1.0);
        }
        (a >= 0.0 && b > 0.0).then(|| a / b)
    }

    fn verdict(&self) -> Verdict {
        let (a, b) = (self.a, self.b);
        if a.holds(b.median) && b.holds(a.median) {
            return Verdict::Alike;
        }
        // The goal says what is wished for; where there is none, the unit and the name do.
        match self.a.wish(self.name).or(self.b.wish(self.name)) {
            None => Verdict::Neither,
            Some(wish) if (wish == Wish::Less) == (a.median < b.median) => Verdict::Better,
            Some(_) => Verdict::Worse,
        }
    }
}

/// The figures that both have, in the order of the first.
fn pairs<'a>(a: &'a Sheet, b: &'a Sheet) -> Vec<Pair<'a>> {
    let pair = |(name, figure): &'a (String, Figure)| {
        let other = b.figure(name)?;
        // The same name in another unit is another figure.
        (other.unit == figure.unit).then_some(Pair {
            name,
            a: figure,
            b: other,
        })
    };
    a.figures.iter().filter_map(pair).collect()
}

/// The names of figures of `sheet` that are not among the pairs.
fn alone<'a>(sheet: &'a Sheet, pairs: &[Pair<'_>]) -> Vec<&'a str> {
    let names = sheet.figures.iter().map(|(name, _)| name.as_str());
    names
        .filter(|name| pairs.iter().all(|pair| pair.name != *name))
        .collect()
}

fn print(a: &Sheet, b: &Sheet, pairs: &[Pair<'_>], out: &mut Out) -> Result<(), Failure> {
    for (letter, sheet) in [("A", a), ("B", b)] {
        out.line(format!(
            "{letter}: {}, {}",
            sheet.path.display(),
            sheet.about()
        ))?;
    }
    for differs in sheet::differences(a, b) {
        out.line(format!(
            "note: {} differs: A {}, B {}",
            differs.what, differs.a, differs.b
        ))?;
    }
    let mut table = Table::new(&[
        ("FIGURE", Align::Left),
        ("A", Align::Right),
        ("B", Align::Right),
        ("UNIT", Align::Left),
        ("A/B", Align::Right),
        ("A IS", Align::Left),
        ("GOAL", Align::Left),
    ]);
    for pair in pairs {
        let [(a, unit), (b, _)] =
            [pair.a, pair.b].map(|figure| measured(figure.median, &figure.unit));
        table.row([
            pair.name.to_owned(),
            a,
            b,
            unit,
            pair.ratio()
                .map_or("-".to_owned(), |ratio| format!("{ratio:.3}")),
            pair.verdict().word().to_owned(),
            goal(pair),
        ]);
    }
    out.line("")?;
    out.line(table)?;
    for (letter, sheet) in [("A", a), ("B", b)] {
        let names = alone(sheet, pairs);
        if !names.is_empty() {
            out.line(format!("only in {letter}: {}", names.join(", ")))?;
        }
    }
    Ok(())
}

/// What the figure should be, and whether it is: `<= 20: A met, B missed`.
fn goal(pair: &Pair<'_>) -> String {
    let word = |met: Option<bool>| match met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "not judged",
    };
    match pair.a.goal.as_ref().or(pair.b.goal.as_ref()) {
        Some(goal) => format!("{goal}: A {}, B {}", word(pair.a.met), word(pair.b.met)),
        None => String::new(),
    }
}

fn told(a: &Sheet, b: &Sheet, pairs: &[Pair<'_>]) -> Value {
    let figure = |pair: &Pair<'_>| {
        json!({
            "name": pair.name,
            "unit": pair.a.unit,
            "a": pair.a.median,
            "b": pair.b.median,
            "ratio": pair.ratio(),
            "a_is": Some(pair.verdict().word()).filter(|word| !word.is_empty()),
            "goal": pair.a.goal.as_ref().or(pair.b.goal.as_ref()),
            "a_met": pair.a.met,
            "b_met": pair.b.met,
        })
    };
    let differences = sheet::differences(a, b).into_iter();
    let differs = differences.map(|d| json!({ "what": d.what, "a": d.a, "b": d.b }));
    json!({
        "a": { "file": a.path.display().to_string(), "about": a.about() },
        "b": { "file": b.path.display().to_string(), "about": b.about() },
        "differs": differs.collect::<Vec<_>>(),
        "figures": pairs.iter().map(figure).collect::<Vec<_>>(),
        "only_in_a": alone(a, pairs),
        "only_in_b": alone(b, pairs),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(medians: [f64; 3], unit: &str, goal: Option<&str>) -> Figure {
        Figure {
            unit: unit.to_owned(),
            median: medians[1],
            least: medians[0],
            most: medians[2],
            goal: goal.map(str::to_owned),
            met: None,
        }
    }

    #[track_caller]
    fn check(name: &str, unit: &str, goal: Option<&str>, a: f64, b: f64, expected: Verdict) {
        let (a, b) = (figure([a; 3], unit, goal), figure([b; 3], unit, None));
        let pair = Pair { name, a: &a, b: &b };
        assert_eq!(pair.verdict(), expected, "{name} {unit}");
    }

    #[test]
    fn the_unit_says_what_is_better_unless_a_goal_does() {
        check("take", "ns", None, 2.0, 4.0, Verdict::Better);
        check("take", "ns", None, 4.0, 2.0, Verdict::Worse);
        check("copy", "GB/s", None, 4.0, 2.0, Verdict::Better);
        check("tokens_per_s", "", None, 1.0, 2.0, Verdict::Worse);
        check("ratio", "", None, 4.0, 2.0, Verdict::Neither);
        check("hit_ratio", "", Some(">= 0.75"), 0.8, 0.7, Verdict::Better);
        check(
            "waste_ratio",
            "",
            Some("at most 0.04"),
            0.8,
            0.7,
            Verdict::Worse,
        );
        check("take", "ns", None, 3.0, 3.0, Verdict::Alike);
    }

    #[test]
    fn measurements_that_overlap_are_alike() {
        let a = figure([1.0, 2.0, 4.0], "ns", None);
        let b = figure([1.5, 3.0, 9.0], "ns", None);
        let pair = |a, b| Pair { name: "take", a, b }.verdict();
        assert_eq!(pair(&a, &b), Verdict::Alike);
        let b = figure([2.5, 3.0, 9.0], "ns", None);
        assert_eq!(pair(&a, &b), Verdict::Better);
    }

    #[test]
    fn ratios_exist_where_they_mean_something() {
        let ratio = |a: f64, b: f64| {
            let (a, b) = (figure([a; 3], "", None), figure([b; 3], "", None));
            let name = "";
            Pair { name, a: &a, b: &b }.ratio()
        };
        assert_eq!(ratio(1.0, 4.0), Some(0.25));
        assert_eq!(ratio(0.0, 4.0), Some(0.0));
        assert_eq!(ratio(0.0, 0.0), Some(1.0));
        assert_eq!(ratio(4.0, 0.0), None);
        assert_eq!(ratio(-1.0, 2.0), None);
    }
}
