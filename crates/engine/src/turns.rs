//! Whose turn it is: which of the models that have something to do runs the next step. A pure function
//! of what has been measured; no clock is read here.
//!
//! Weighted fair queueing over measured time, on two levels. Each class, and each model within its
//! class, has a virtual time: the time that it has had, divided by its weight. The class that is
//! furthest behind comes next, and of it the model that is furthest behind. Who begins after a pause
//! starts from where the others are: nobody saves up turns by doing nothing, and nobody pays for having
//! run while nobody else wanted to. (Goyal, Vin and Cheng, "Start-time fair queueing: a scheduling
//! algorithm for integrated services packet switching networks", SIGCOMM 1996.)
//!
//! What follows: while a class has something to do, what the other runs between two steps of it is one
//! step, and such before it as take less together than the class's own last step times the other's
//! weight over its own. So a stream of chat waits for one batch of embeddings, not for a job of
//! thousands, and however many embedding models are busy.

use std::time::Duration;

/// What kinds of models get of the time while both have something to do.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct TurnWeights {
    /// Models that write, together; above 0.
    pub generate: f64,
    /// Models that make vectors, together; above 0.
    pub embed: f64,
}

impl Default for TurnWeights {
    /// Who reads an answer as it is written waits for every token; who embeds, for the last text.
    fn default() -> Self {
        Self {
            generate: 4.0,
            embed: 1.0,
        }
    }
}

/// Kinds of models that share time as one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Generate,
    Embed,
}

const CLASSES: [Class; 2] = [Class::Generate, Class::Embed];

/// Who has had how much. Places are those of the models in the order in which they joined.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    weights: [f64; CLASSES.len()],
    classes: [Lane; CLASSES.len()],
    /// Where the class began that ran last.
    now: f64,
    /// Where of each class the model began that ran last.
    class_now: [f64; CLASSES.len()],
    models: Vec<(Class, Lane)>,
}

/// A virtual time in seconds over weight: where its owner's next step begins.
#[derive(Copy, Clone, Debug, Default)]
struct Lane(f64);

impl Lane {
    /// Where the next step begins: not before the one that ran last.
    fn start(self, now: f64) -> f64 {
        self.0.max(now)
    }
}

impl Turns {
    /// Weights that are not above 0 count as 1.
    pub(crate) fn new(weights: TurnWeights) -> Self {
        let usable = |weight: f64| match weight.is_finite() && weight > 0.0 {
            true => weight,
            false => 1.0,
        };
        Self {
            weights: [usable(weights.generate), usable(weights.embed)],
            classes: Default::default(),
            now: 0.0,
            class_now: Default::default(),
            models: Vec::new(),
        }
    }

    /// One more model, at the last place.
    pub(crate) fn join(&mut self, class: Class) {
        self.models.push((class, Lane::default()));
    }

    /// A model leaves; those behind it move up.
    pub(crate) fn leave(&mut self, place: usize) {
        self.models.remove(place);
    }

    /// Who comes next of those that have something to do; `None` if nobody has.
    pub(crate) fn next(&self, runnable: impl Fn(usize) -> bool) -> Option<usize> {
        let within = |class: Class| {
            let now = self.class_now[class as usize];
            let models = self.models.iter().enumerate();
            models
                .filter(|(place, (of, _))| *of == class && runnable(*place))
                .map(|(place, (_, lane))| (lane.start(now), place))
                .min_by(|a, b| a.0.total_cmp(&b.0))
        };
        let first = CLASSES.iter().filter_map(|&class| {
            let (_, place) = within(class)?;
            Some((self.classes[class as usize].start(self.now), place))
        });
        first.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, p)| p)
    }

    /// The model's step took so long.
    pub(crate) fn ran(&mut self, place: usize, time: Duration) {
        let (class, model) = &mut self.models[place];
        let class = *class as usize;
        let start = model.start(self.class_now[class]);
        self.class_now[class] = start;
        *model = Lane(start + time.as_secs_f64());
        let start = self.classes[class].start(self.now);
        self.now = start;
        self.classes[class] = Lane(start + time.as_secs_f64() / self.weights[class]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Random;

    /// A model in a simulation.
    struct Model {
        class: Class,
        /// Milliseconds that its steps take at most.
        longest: u64,
        /// Whether it has something to do.
        busy: bool,
        /// Time that it has had since it last changed who of its class is busy.
        had: u64,
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn chat_waits_for_one_batch_and_gets_its_share() {
        let mut turns = Turns::new(TurnWeights::default());
        for class in [Class::Generate, Class::Embed, Class::Embed] {
            turns.join(class);
        }
        let (mut had, mut row, mut longest_row) = ([0; 3], 0, 0);
        for _ in 0..10_000 {
            let place = turns.next(|_| true).expect("all are busy");
            let time = [20, 100, 80][place];
            turns.ran(place, millis(time));
            had[place] += time;
            row = if place == 0 { 0 } else { row + 1 };
            longest_row = longest_row.max(row);
        }
        // However many embedding models are busy.
        assert_eq!(longest_row, 1);
        let share = had[0] as f64 / had.iter().sum::<u64>() as f64;
        assert!((share - 0.8).abs() < 0.01, "{share}");
        let halves = had[1] as f64 / had[2] as f64;
        assert!((halves - 1.0).abs() < 0.01, "{halves}");
    }

    #[test]
    fn who_comes_after_a_pause_is_next_and_has_saved_nothing_up() {
        let mut turns = Turns::new(TurnWeights::default());
        turns.join(Class::Embed);
        for _ in 0..1000 {
            assert_eq!(turns.next(|_| true), Some(0));
            turns.ran(0, millis(100));
        }
        turns.join(Class::Generate);
        let mut row = 0;
        while turns.next(|_| true) == Some(1) {
            turns.ran(1, millis(30));
            row += 1;
        }
        // What one batch of 100 ms weighs, no more.
        assert_eq!(row, 14);
        turns.leave(0);
        assert_eq!(turns.next(|_| true), Some(0));
        assert_eq!(turns.next(|_| false), None);
    }

    /// Random models that come, pause and go. Held to be true at every step: while two are busy, none
    /// gets ahead of the other by more than a step of each, so none starves; the same of the classes, by
    /// weight. And between two steps of chat runs one batch, and before it what the first outweighs.
    #[test]
    fn nobody_starves_and_the_gaps_of_chat_are_bounded() {
        for seed in 0..200 {
            let mut random = Random(seed);
            let weights = TurnWeights {
                generate: [1.0, 4.0, 16.0][random.below(3)],
                embed: 1.0,
            };
            let mut turns = Turns::new(weights);
            let mut models: Vec<Model> = Vec::new();
            let (mut class_had, mut gap, mut own) = ([0u64; 2], Vec::new(), 0);
            let mut class_busy = [false; 2];
            for _ in 0..2000 {
                if models.len() < 2 || (models.len() < 8 && random.below(200) == 0) {
                    let class = CLASSES[random.below(2)];
                    turns.join(class);
                    models.push(Model {
                        class,
                        longest: 1 + random.next() % 200,
                        busy: false,
                        had: 0,
                    });
                }
                if models.len() > 2 && random.below(300) == 0 {
                    let place = random.below(models.len());
                    turns.leave(place);
                    models.remove(place);
                }
                for place in 0..models.len() {
                    if random.below(40) == 0 {
                        models[place].busy = !models[place].busy;
                        let class = models[place].class;
                        let peers = models.iter_mut().filter(|m| m.class == class);
                        peers.for_each(|m| m.had = 0);
                    }
                }
                let busy = CLASSES.map(|c| models.iter().any(|m| m.busy && m.class == c));
                if busy != class_busy {
                    (class_busy, class_had) = (busy, [0; 2]);
                    (gap, own) = (Vec::new(), 0);
                }
                let Some(place) = turns.next(|place| models[place].busy) else {
                    assert!(models.iter().all(|m| !m.busy));
                    continue;
                };
                assert!(models[place].busy);
                let time = 1 + random.next() % models[place].longest;
                turns.ran(place, millis(time));
                let model = &mut models[place];
                model.had += time;
                class_had[model.class as usize] += time;

                let ran = &models[place];
                for other in models.iter().filter(|o| o.busy && o.class == ran.class) {
                    let apart = ran.had.abs_diff(other.had);
                    let bound = ran.longest + other.longest;
                    assert!(apart <= bound, "seed {seed}: {apart} ms apart");
                }
                let ratio = weights.generate / weights.embed;
                if busy == [true, true] {
                    let [chat, embed] = class_had.map(|had| had as f64);
                    let bound = 200.0 / ratio + 200.0;
                    assert!((chat / ratio - embed).abs() <= bound + 1e-6, "seed {seed}");
                    match ran.class {
                        Class::Embed => gap.push(time),
                        Class::Generate => {
                            gap.clear();
                            own = time;
                        }
                    }
                    if let (Some((_, before)), 1..) = (gap.split_last(), own) {
                        let before: u64 = before.iter().sum();
                        let outweighs = before as f64 <= own as f64 / ratio + 1e-6;
                        assert!(outweighs, "seed {seed}: {gap:?} after {own} ms");
                    }
                }
            }
        }
    }
}
