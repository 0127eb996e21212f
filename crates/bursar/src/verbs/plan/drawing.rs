//! A plan as a picture: the budget as a column, beside it the parts one upon the other, at the same scale, and
//! what each is made of.

use bursar_engine::{MemoryPlan, PlanPart};
use bursar_memory::Bytes;

use crate::picture::{Anchor, Picture, shortened};

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 24.0;
/// Where the columns begin, and how high the larger of them is.
const TOP: f64 = 92.0;
const HEIGHT: f64 = 400.0;
const COLUMN: f64 = 120.0;
const BUDGET_LEFT: f64 = MARGIN;
const PARTS_LEFT: f64 = BUDGET_LEFT + COLUMN + 28.0;
/// Words of the parts, at least so far from one another.
const WORDS_LEFT: f64 = PARTS_LEFT + COLUMN + 56.0;
const LINE: f64 = 22.0;
/// Letters of a note that fit beside a name and its bytes.
const NOTE_LETTERS: usize = 70;

/// The picture of the plan of a model called `name`, within a budget that comes from `source`.
pub(super) fn draw(name: &str, plan: &MemoryPlan, source: &str) -> String {
    let (total, budget) = (plan.total(), plan.budget());
    let verdict = match plan.fits() {
        true => format!("fits, {} left", budget.saturating_sub(total)),
        false => format!("does not fit, {} too much", total.saturating_sub(budget)),
    };
    let parts: Vec<&PlanPart> = plan
        .parts()
        .iter()
        .filter(|part| !part.bytes.is_zero())
        .collect();
    let remedies = plan.remedies(Bytes::ZERO);
    let words = LINE * parts.len() as f64;
    let foot = TOP + HEIGHT.max(words) + 30.0;
    let height = match remedies.len() {
        0 => foot + 6.0,
        count => foot + 26.0 + LINE * count as f64,
    };
    let title = format!("{name} takes {total} of {budget}: {verdict}");
    let mut picture = Picture::new(WIDTH, height, &title);
    picture.words("title", (MARGIN, 34.0), Anchor::Start, &title);
    let asked = match plan.kv() {
        Some(_) => format!(
            "{} of {} tokens, keys in {}, values in {}; the budget is {source}",
            match plan.parallel() {
                1 => "one sequence".to_owned(),
                many => format!("{many} sequences"),
            },
            plan.context(),
            plan.request().kv_dtype_k.name(),
            plan.request().kv_dtype_v.name(),
        ),
        None => format!(
            "texts of {} tokens, {} in a batch; the budget is {source}",
            plan.context(),
            plan.batch_tokens()
        ),
    };
    picture.words("dim", (MARGIN, 54.0), Anchor::Start, &asked);

    let scale = HEIGHT / total.max(budget).get().max(1) as f64;
    let y = |bytes: Bytes| TOP + HEIGHT - bytes.get() as f64 * scale;
    let column = |picture: &mut Picture, left: f64, words: &str| {
        let middle = (left + COLUMN / 2.0, TOP + HEIGHT + 20.0);
        picture.words("dim", middle, Anchor::Middle, words);
    };
    let size = (COLUMN, TOP + HEIGHT - y(budget));
    picture.rectangle("free", (BUDGET_LEFT, y(budget)), size, &budget.to_string());
    column(&mut picture, BUDGET_LEFT, &format!("budget {budget}"));
    column(&mut picture, PARTS_LEFT, &format!("plan {total}"));

    // From the floor up, the largest first: the small ones lie side by side at the top.
    let mut stacked = parts;
    stacked.sort_by_key(|part| std::cmp::Reverse(part.bytes));
    let mut below = Bytes::ZERO;
    let mut middles = Vec::with_capacity(stacked.len());
    for part in &stacked {
        let above = below.saturating_add(part.bytes);
        let size = (COLUMN, y(below) - y(above));
        let hint = format!("{} {}", part.name, part.bytes);
        picture.rectangle(class(part.name), (PARTS_LEFT, y(above)), size, &hint);
        picture.line(
            "edge",
            (PARTS_LEFT, y(above)),
            (PARTS_LEFT + COLUMN, y(above)),
        );
        middles.push((y(below) + y(above)) / 2.0);
        below = above;
    }
    picture.line(
        "axis",
        (BUDGET_LEFT, y(budget)),
        (PARTS_LEFT + COLUMN + 12.0, y(budget)),
    );
    for ((part, middle), line) in stacked.iter().zip(&middles).zip(spread(&middles)) {
        let from = (PARTS_LEFT + COLUMN + 4.0, *middle);
        picture.line("axis", from, (WORDS_LEFT - 20.0, line));
        let swatch = (WORDS_LEFT - 14.0, line - 5.0);
        picture.rectangle(class(part.name), swatch, (10.0, 10.0), "");
        let at = |x: f64| (WORDS_LEFT + x, line + 4.0);
        picture.words("", at(4.0), Anchor::Start, part.name);
        picture.words("", at(170.0), Anchor::End, &part.bytes.to_string());
        let note = shortened(&part.note, NOTE_LETTERS);
        picture.words("dim", at(184.0), Anchor::Start, &note);
    }
    if !remedies.is_empty() {
        let head = (MARGIN, foot + 20.0);
        picture.words("dim", head, Anchor::Start, "What would make it fit:");
        for (place, remedy) in (1..).zip(&remedies) {
            let at = (MARGIN + 14.0, foot + 20.0 + LINE * f64::from(place));
            picture.words("", at, Anchor::Start, remedy);
        }
    }
    picture.finish()
}

/// Where words stand so that none stands on another, each as near to its `middle` as can be; those come from the
/// floor up.
fn spread(middles: &[f64]) -> Vec<f64> {
    let mut lines = middles.to_vec();
    let mut lowest = TOP + HEIGHT - LINE / 2.0;
    for line in &mut lines {
        *line = line.min(lowest);
        lowest = *line - LINE;
    }
    let mut highest = TOP + LINE / 2.0;
    for line in lines.iter_mut().rev() {
        *line = line.max(highest);
        highest = *line + LINE;
    }
    lines
}

/// The colour of a part: that of the lifetime of its account.
fn class(part: &str) -> &'static str {
    match part {
        "weights" | "tokenizer" => "semantic",
        "kv" => "episodic",
        "process" => "even",
        _ => "procedural",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_apart_and_in_order() {
        let check = |middles: &[f64]| {
            let lines = spread(middles);
            for pair in lines.windows(2) {
                assert!(pair[0] - pair[1] >= LINE - 1e-9, "{lines:?}");
            }
            assert!(lines.last().is_none_or(|line| *line >= TOP));
        };
        check(&[]);
        check(&[300.0, 200.0, 100.0]);
        check(&[TOP + 2.0, TOP + 1.0, TOP + 0.5, TOP]);
        check(&[TOP + HEIGHT, TOP + HEIGHT, TOP + HEIGHT - 1.0]);
    }
}
