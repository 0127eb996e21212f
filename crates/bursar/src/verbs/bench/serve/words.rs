//! Prompts of a wished length on a server whose tokenizer is not known: words that cost it one token each,
//! where it can be asked to count, else as many words as its own counts of prompts say.

use super::super::draw::Draw;
use super::mix::Stretch;

/// Words that most vocabularies have, in English and in code.
const COMMON: &str = "\
    the of and to in is that for with as on are be this by at from or an have not was which you can \
    will all one has but what there when use if more other no do time so some these may such like any \
    only new also into them their about out up then been would its than first each how well many most \
    make after over between used where must two state each same number set value type name list data \
    line file path key text read write open close call return result error case test code class \
    method function string array index length size count start end next last left right part point \
    form order level field table model input output memory block page word node root tree map match \
    check build change create add remove move copy free hold keep take give find look show print \
    run stop wait send get put let see say need work help include contain follow allow require \
    whole empty full large small long short high low true false valid given current default simple \
    common local public private static single multiple different available possible required";

/// Fewer words with one token than these are too few to make texts of.
const ENOUGH: usize = 16;

/// The words that texts are made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Words {
    words: Vec<&'static str>,
    /// Tokens of a word, on average.
    tokens_per_word: f64,
    /// Tokens of a prompt beside its words: of the chat template, and what begins a text.
    overhead_tokens: f64,
}

/// All words there are, each once.
fn common() -> Vec<&'static str> {
    let mut words: Vec<&str> = COMMON.split_whitespace().collect();
    words.sort_unstable();
    words.dedup();
    words
}

impl Words {
    /// All words, taken as one token each until something better is known.
    pub(super) fn all() -> Words {
        Words {
            words: common(),
            tokens_per_word: 1.0,
            overhead_tokens: 0.0,
        }
    }

    /// Those that cost one token each by `count`, which counts the tokens of a text. `None` where those are
    /// too few.
    ///
    /// # Errors
    /// As `count`.
    pub(super) fn of_one_token<E>(
        mut count: impl FnMut(&str) -> Result<usize, E>,
    ) -> Result<Option<Words>, E> {
        let mut words = Vec::new();
        for word in common() {
            // The first word of a text may be spelt otherwise than those after a blank.
            let one = count(word)?;
            let nine = count(&[word; 9].join(" "))?;
            if nine == one + 8 {
                words.push(word);
            }
        }
        Ok((words.len() >= ENOUGH).then_some(Words {
            words,
            ..Words::all()
        }))
    }

    /// The same, with what is beside the words of a prompt, by the tokens that a prompt of so many words had.
    pub(super) fn with_overhead(self, words: usize, tokens: usize) -> Words {
        let beside = tokens as f64 - words as f64 * self.tokens_per_word;
        Words {
            overhead_tokens: beside.max(0.0),
            ..self
        }
    }

    /// The same, with what a word costs, by two prompts of different lengths.
    pub(super) fn with_rate(self, short: (usize, usize), long: (usize, usize)) -> Words {
        let ((words, tokens), (more_words, more_tokens)) = (short, long);
        let rate = (more_tokens as f64 - tokens as f64) / (more_words as f64 - words as f64);
        let tokens_per_word = if rate > 0.0 { rate } else { 1.0 };
        Words {
            tokens_per_word,
            ..self
        }
        .with_overhead(words, tokens)
    }

    /// Tokens of a word, on average.
    pub(super) fn tokens_per_word(&self) -> f64 {
        self.tokens_per_word
    }

    /// A text of so many words.
    pub(super) fn sample(&self, count: usize) -> String {
        self.join(&[(0, count)])
    }

    /// A prompt of these stretches: all tokens together, those beside the words taken off its end.
    pub(super) fn prompt(&self, stretches: &[Stretch]) -> String {
        let mut counts: Vec<(u64, usize)> = Vec::with_capacity(stretches.len());
        for (place, stretch) in stretches.iter().enumerate() {
            let beside = match place + 1 == stretches.len() {
                true => self.overhead_tokens,
                false => 0.0,
            };
            let words = ((stretch.tokens as f64 - beside) / self.tokens_per_word).round();
            counts.push((stretch.seed, words.max(0.0) as usize));
        }
        if counts.iter().all(|(_, words)| *words == 0) {
            // A prompt says something.
            counts = vec![(counts.last().map_or(0, |(seed, _)| *seed), 1)];
        }
        self.join(&counts)
    }

    fn join(&self, counts: &[(u64, usize)]) -> String {
        let mut text = String::new();
        for &(seed, count) in counts {
            let mut draw = Draw::new(seed);
            for _ in 0..count {
                if !text.is_empty() {
                    text.push(' ');
                }
                let word = self.words.get(draw.below(self.words.len()));
                text.push_str(word.copied().unwrap_or("the"));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    /// A tokenizer with a mark at the start, that divides words of more than four letters.
    fn count(text: &str) -> Result<usize, Infallible> {
        Ok(1 + text
            .split(' ')
            .map(|word| word.len().div_ceil(4))
            .sum::<usize>())
    }

    #[test]
    fn words_of_one_token_make_prompts_of_any_length() {
        let found = Words::of_one_token(count).expect("it counts");
        let words = found.expect("there are short words");
        let tokens = count(&words.sample(32)).expect("it counts");
        let words = words.with_overhead(32, tokens + 9);
        let stretch = |seed, tokens| Stretch { seed, tokens };
        for length in [11, 64, 500] {
            let text = words.prompt(&[stretch(3, length)]);
            // Nine of them are of a template around the text.
            assert_eq!(count(&text).expect("it counts") + 9, length);
        }
        let one = words.prompt(&[stretch(1, 100), stretch(2, 50)]);
        let other = words.prompt(&[stretch(1, 100), stretch(7, 60)]);
        let common: Vec<&str> = one.split(' ').take(100).collect();
        assert!(other.split(' ').take(100).eq(common));
        assert_ne!(one, other);
        assert!(!words.prompt(&[stretch(1, 2)]).is_empty());
    }

    #[test]
    fn a_server_that_cannot_be_asked_is_measured() {
        let words = Words::all().with_rate((64, 90), (320, 410));
        assert_eq!(words.tokens_per_word(), 1.25);
        let text = words.prompt(&[Stretch {
            seed: 1,
            tokens: 260,
        }]);
        // Ten are beside the words.
        assert_eq!(text.split(' ').count(), 200);
    }

    #[test]
    fn too_few_words_are_none() {
        let letters = |text: &str| Ok::<usize, Infallible>(text.len());
        assert_eq!(Words::of_one_token(letters), Ok(None));
    }
}
