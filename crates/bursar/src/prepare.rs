//! What `run`, `embed` and `plan` do alike: everything up to the point where weights would be read.

use bursar_engine::{
    DtypeChoice, EngineError, Expected, MemoryPlan, ProcessBase, Purpose, Rates, Vocabulary,
    WeightsDtype,
};
use bursar_files::ModelFile;
use bursar_kv::Preset;
use bursar_memory::budget::Budget;
use bursar_memory::{Bytes, counting};

use crate::budget;
use crate::bundled;
use crate::config::Settings;
use crate::failure::Failure;
use crate::output::{Align, Table, grouped};
use crate::sizing::{self, Otherwise};

/// A model that has been planned.
pub(crate) struct Prepared {
    /// Its file.
    pub(crate) file: ModelFile,
    /// Its tokenizer, chat template and end tokens.
    pub(crate) vocabulary: Vocabulary,
    /// Its bytes.
    pub(crate) plan: MemoryPlan,
    /// The budget they were planned for.
    pub(crate) budget: Budget,
    /// What its cache was sized by, if by name.
    pub(crate) preset: Option<Preset>,
    /// What this machine does with weights and what that makes of the model, where layers are
    /// streamed from a file that is there.
    pub(crate) expected: Option<(Rates, Expected)>,
    /// What was asked of the weights' form.
    dtype: DtypeChoice,
}

/// Plans a model for a purpose.
pub(crate) fn prepare(
    file: ModelFile,
    purpose: Purpose,
    settings: &Settings,
) -> Result<Prepared, Failure> {
    let budget = budget::of_process(settings)?;
    let vocabulary = Vocabulary::open(&file)?;
    // What building the tokenizer has freed goes back first, so that the process is measured as
    // it will be.
    counting::purge();
    let threads = settings.threads();
    // A preset holds the header that a real run would read from its file.
    let base = ProcessBase::measure()?
        .beside(bundled::bytes())
        .with_threads(threads)
        .without(Bytes(file.held_bytes()));
    let request = sizing::request(settings, purpose, settings.parallel(), budget.bytes);
    let plan = sizing::plan(
        request,
        settings,
        Otherwise::Needs,
        budget.bytes,
        |request| MemoryPlan::new(&file, &vocabulary, base, request, budget.bytes),
    )?;
    let rates = match plan.streaming() {
        Some(_) if plan.fits() && file.has_data() => {
            Some(Rates::measure(&file, plan.model(), settings.isa()).map_err(EngineError::from)?)
        }
        _ => None,
    };
    // What it was measured with goes back.
    counting::purge();
    Ok(Prepared {
        expected: rates.and_then(|rates| Some((rates, plan.expected(&rates)?))),
        dtype: settings.weights().dtype,
        file,
        vocabulary,
        plan,
        budget,
        preset: settings.kv_preset(),
    })
}

impl Prepared {
    /// Refuses a plan that does not fit, with all its parts on stderr; says there what was chosen for
    /// one that does.
    pub(crate) fn require_fit(&self) -> Result<(), Failure> {
        if self.plan.fits() {
            for note in self.notes() {
                eprintln!("note: {note}");
            }
            return Ok(());
        }
        eprintln!("{}", parts(&self.plan));
        Err(self.does_not_fit())
    }

    /// What was chosen for the weights that was not simply asked for.
    pub(crate) fn notes(&self) -> Vec<String> {
        let name = &self.file.config().name;
        let mut notes = Vec::new();
        let held = self.plan.model().options().weights;
        if self.dtype == DtypeChoice::Auto && held != WeightsDtype::AsIs {
            notes.push(format!(
                "{name} does not fit as stored: its matrices are held as {held}, which is lossy"
            ));
        }
        if let DtypeChoice::Held(asked) = self.dtype
            && asked != WeightsDtype::AsIs
            && !self.plan.converts()
        {
            notes.push(format!(
                "{name} has no matrices that {asked} would make smaller: they are held as stored"
            ));
        }
        if let Some(streaming) = self.plan.streaming() {
            let expected = self.expected.map(|(_, expected)| expected);
            notes.push(format!(
                "{name} does not stay in memory: {streaming}{}",
                expected.map_or(String::new(), |expected| format!("; {}", words(&expected)))
            ));
        }
        notes
    }

    /// The failure of a plan that does not fit.
    pub(crate) fn does_not_fit(&self) -> Failure {
        let (total, budget) = (self.plan.total(), &self.budget);
        let short = total.saturating_sub(budget.bytes);
        Failure::does_not_fit(format!(
            "{} needs {total}, which is {short} more than the budget of {} ({})",
            self.file.config().name,
            budget.bytes,
            budget.source
        ))
        .helps(&self.plan.remedies(Bytes(0)))
    }
}

/// What to expect, in words.
fn words(expected: &Expected) -> String {
    let number = |rate: f64| match rate {
        rate if rate >= 10.0 => format!("{rate:.0}"),
        rate => format!("{rate:.2}"),
    };
    format!(
        "expect about {} tokens/s in full batches, {} one by one",
        number(expected.batch_tokens_per_second),
        number(expected.single_tokens_per_second),
    )
}

/// The parts of a plan with their sum, bytes exact and readable.
pub(crate) fn parts(plan: &MemoryPlan) -> Table {
    let mut table = Table::new(&[
        ("PART", Align::Left),
        ("BYTES", Align::Right),
        ("", Align::Right),
        ("", Align::Left),
    ]);
    let mut row = |name: &str, bytes: Bytes, note: &str| {
        table.row([
            name.into(),
            grouped(bytes.get()),
            bytes.to_string(),
            note.into(),
        ]);
    };
    for part in plan.parts() {
        row(part.name, part.bytes, &part.note);
    }
    row("total", plan.total(), "");
    row("budget", plan.budget(), "");
    table
}

/// What a model is for when nobody says: embedding if it is made for that.
pub(crate) fn purpose(file: &ModelFile) -> Purpose {
    match &file.config().embedding {
        Some(_) => Purpose::Embed,
        None => Purpose::Generate,
    }
}

/// Refuses to generate with a model that cannot.
pub(crate) fn require_generates(file: &ModelFile) -> Result<(), Failure> {
    if file.config().generates {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "{} only makes vectors, it generates no text",
        file.config().name
    ))
    .help("use it with bursar embed"))
}
