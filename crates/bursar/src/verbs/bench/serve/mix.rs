//! What is going to be asked, decided before anything is: lengths, common beginnings, who goes away and
//! when each request arrives, all from one seed. The same seed asks every server the same.

use std::time::Duration;

use super::super::draw::Draw;
use super::trace::Trace;

/// From how many tokens to how many, each count as likely as any other.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    least: usize,
    most: usize,
}

/// Most tokens that a part of a request may have.
const TOKENS_MAX: usize = 1 << 20;

impl Lengths {
    /// Reads `128` or `128..512`, of which both ends may occur.
    pub(super) fn parse(text: &str) -> Result<Lengths, String> {
        let count = |text: &str| match text.trim().parse::<usize>() {
            Ok(count) if (1..=TOKENS_MAX).contains(&count) => Ok(count),
            _ => Err(format!(
                "{text:?} is no count of tokens from 1 to {TOKENS_MAX}; write 128, or 128..512"
            )),
        };
        let (least, most) = match text.split_once("..") {
            Some((least, most)) => (count(least)?, count(most)?),
            None => (count(text)?, count(text)?),
        };
        if least > most {
            return Err(format!(
                "{least} is more than {most}; write the smaller first"
            ));
        }
        Ok(Lengths { least, most })
    }

    fn draw(self, draw: &mut Draw) -> usize {
        self.least + draw.below(self.most - self.least + 1)
    }
}

impl std::fmt::Display for Lengths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.least == self.most {
            true => self.least.fmt(f),
            false => write!(f, "{}..{}", self.least, self.most),
        }
    }
}

/// Beginnings that requests have in common.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct SharedPrefix {
    pub(super) tokens: usize,
    /// How many different ones there are; each request has one of them.
    pub(super) distinct: usize,
}

impl SharedPrefix {
    /// Reads `512`, one that all have, or `512x4`.
    pub(super) fn parse(text: &str) -> Result<SharedPrefix, String> {
        let (tokens, distinct) = text.split_once('x').unwrap_or((text, "1"));
        let count = |text: &str| text.trim().parse::<usize>().ok().filter(|count| *count > 0);
        match (count(tokens), count(distinct)) {
            (Some(tokens), Some(distinct)) if tokens <= TOKENS_MAX => {
                Ok(SharedPrefix { tokens, distinct })
            }
            _ => Err(format!(
                "{text:?} is no common beginning; write its tokens, as 512, or 512x4 for four of them"
            )),
        }
    }
}

impl std::fmt::Display for SharedPrefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.tokens, self.distinct)
    }
}

/// A stretch of a prompt: the same seed and length are the same words.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) seed: u64,
    pub(super) tokens: usize,
}

/// One request to come.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wish {
    /// When it arrives, from the start; `None`: as soon as somebody is free to ask.
    pub(super) at: Option<Duration>,
    pub(super) prompt: Vec<Stretch>,
    pub(super) output_tokens: usize,
    /// After how many pieces of the answer the client goes away.
    pub(super) cancel_after: Option<usize>,
}

/// What requests are made from.
#[derive(Clone, Debug)]
pub(super) struct Mix {
    pub(super) prompt_tokens: Lengths,
    pub(super) output_tokens: Lengths,
    pub(super) shared_prefix: Option<SharedPrefix>,
    /// Share of requests whose client goes away.
    pub(super) cancel: f64,
    /// Requests per second; `None`: each client asks again when it has its answer.
    pub(super) rate: Option<f64>,
    /// Lengths, beginnings and times as recorded, in place of drawn ones.
    pub(super) trace: Option<Trace>,
}

/// When there are enough.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Extent {
    pub(super) requests: Option<u64>,
    pub(super) duration: Option<Duration>,
}

/// The requests of one round, in the order of their arrival.
#[derive(Debug)]
pub(super) struct Wishes<'a> {
    mix: &'a Mix,
    extent: Extent,
    seed: u64,
    made: u64,
    arrivals: Draw,
    /// When the last one arrives.
    at: Duration,
}

/// A seed for one purpose, of one seed for all. Mixed once more, so that no two draw from sequences that
/// are shifts of one another.
pub(super) fn seed_for(seed: u64, purpose: &str, number: u64) -> u64 {
    let name = purpose.bytes().fold(seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let number = number.wrapping_mul(0xd134_2543_de82_ef95);
    Draw::new(name.wrapping_add(number)).below(usize::MAX) as u64
}

/// A number above 0 and at most 1.
fn unit(draw: &mut Draw) -> f64 {
    const STEPS: usize = 1 << 31;
    (draw.below(STEPS) + 1) as f64 / STEPS as f64
}

impl Mix {
    /// The requests of a round.
    pub(super) fn wishes(&self, extent: Extent, seed: u64) -> Wishes<'_> {
        Wishes {
            mix: self,
            extent,
            seed,
            made: 0,
            arrivals: Draw::new(seed_for(seed, "arrivals", 0)),
            at: Duration::ZERO,
        }
    }

    /// How many there will be, where that is known.
    pub(super) fn count(&self, extent: Extent, seed: u64) -> Option<u64> {
        match (self.is_timed(), extent.duration) {
            (false, Some(_)) => None,
            _ => Some(self.wishes(extent, seed).count() as u64),
        }
    }

    /// Whether requests arrive when they do, and not when somebody is free.
    pub(super) fn is_timed(&self) -> bool {
        self.rate.is_some() || self.trace.is_some()
    }

    fn drawn(&self, seed: u64, number: u64) -> Wish {
        let mut draw = Draw::new(seed_for(seed, "request", number));
        let own = Stretch {
            seed: seed_for(seed, "prompt", number),
            tokens: self.prompt_tokens.draw(&mut draw),
        };
        let output_tokens = self.output_tokens.draw(&mut draw);
        let common = self.shared_prefix.map(|prefix| Stretch {
            seed: seed_for(seed, "prefix", draw.below(prefix.distinct) as u64),
            tokens: prefix.tokens,
        });
        Wish {
            at: None,
            prompt: common.into_iter().chain([own]).collect(),
            output_tokens,
            cancel_after: None,
        }
    }

    /// After how many pieces the client of a request goes away, if it does.
    fn cancelled(&self, seed: u64, number: u64, output_tokens: usize) -> Option<usize> {
        let mut draw = Draw::new(seed_for(seed, "cancel", number));
        (unit(&mut draw) <= self.cancel).then(|| 1 + draw.below(output_tokens))
    }
}

impl Iterator for Wishes<'_> {
    type Item = Wish;

    fn next(&mut self) -> Option<Wish> {
        let (mix, number) = (self.mix, self.made);
        if self.extent.requests.is_some_and(|most| number >= most) {
            return None;
        }
        let mut wish = match &mix.trace {
            Some(trace) => trace.wish(usize::try_from(number).ok()?, self.seed)?,
            None => mix.drawn(self.seed, number),
        };
        if let Some(rate) = mix.rate {
            // The times between arrivals of a Poisson process.
            let gap = -unit(&mut self.arrivals).ln() / rate;
            self.at += Duration::from_secs_f64(gap.min(1e9));
            wish.at = Some(self.at);
        }
        if let (Some(at), Some(duration)) = (wish.at, self.extent.duration)
            && at >= duration
        {
            return None;
        }
        wish.cancel_after = mix.cancelled(self.seed, number, wish.output_tokens);
        self.made += 1;
        Some(wish)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix() -> Mix {
        Mix {
            prompt_tokens: Lengths {
                least: 10,
                most: 20,
            },
            output_tokens: Lengths { least: 8, most: 8 },
            shared_prefix: None,
            cancel: 0.0,
            rate: None,
            trace: None,
        }
    }

    fn extent(requests: u64) -> Extent {
        Extent {
            requests: Some(requests),
            duration: None,
        }
    }

    #[test]
    fn lengths_and_beginnings_are_read() {
        let lengths = |least, most| Ok(Lengths { least, most });
        assert_eq!(Lengths::parse("128"), lengths(128, 128));
        assert_eq!(Lengths::parse("1..20"), lengths(1, 20));
        assert_eq!(
            Lengths::parse("1..20").map(|l| l.to_string()),
            Ok("1..20".into())
        );
        for text in ["", "0", "9..3", "..4", "5..", "many", "99999999"] {
            Lengths::parse(text).expect_err(text);
        }
        let prefix = |tokens, distinct| Ok(SharedPrefix { tokens, distinct });
        assert_eq!(SharedPrefix::parse("512"), prefix(512, 1));
        assert_eq!(SharedPrefix::parse("512x4"), prefix(512, 4));
        for text in ["", "x", "0", "5x0", "5x", "x5"] {
            SharedPrefix::parse(text).expect_err(text);
        }
    }

    #[test]
    fn the_same_seed_asks_the_same() {
        let mix = Mix {
            rate: Some(10.0),
            cancel: 0.3,
            shared_prefix: SharedPrefix::parse("64x3").ok(),
            ..mix()
        };
        let wishes = |seed| mix.wishes(extent(500), seed).collect::<Vec<Wish>>();
        let all = wishes(1);
        assert_eq!(all, wishes(1));
        assert_ne!(all, wishes(2));
        assert_eq!(all.len(), 500);
        for wish in &all {
            let [common, own] = wish.prompt[..] else {
                panic!("a beginning and a rest: {wish:?}");
            };
            assert_eq!(common.tokens, 64);
            assert!((10..=20).contains(&own.tokens));
            assert!(
                wish.cancel_after
                    .is_none_or(|after| (1..=8).contains(&after))
            );
        }
        let lengths = |length| all.iter().any(|wish| wish.prompt[1].tokens == length);
        assert!(lengths(10) && lengths(20), "both ends occur");
        let mut prefixes: Vec<u64> = all.iter().map(|wish| wish.prompt[0].seed).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        assert_eq!(prefixes.len(), 3);
        let cancelled = all
            .iter()
            .filter(|wish| wish.cancel_after.is_some())
            .count();
        assert!((120..=180).contains(&cancelled), "{cancelled} of 500");
    }

    #[test]
    fn arrivals_have_their_rate_and_no_rhythm() {
        let mix = Mix {
            rate: Some(50.0),
            ..mix()
        };
        let times: Vec<f64> = mix
            .wishes(extent(5000), 7)
            .filter_map(|wish| Some(wish.at?.as_secs_f64()))
            .collect();
        assert!(times.is_sorted());
        let mean = times[4999] / 5000.0;
        assert!((0.019..0.021).contains(&mean), "{mean}");
        // Of an exponential distribution, the deviation is the mean.
        let gaps = times.windows(2).map(|pair| pair[1] - pair[0]);
        let variance = gaps.map(|gap| (gap - mean).powi(2)).sum::<f64>() / 4999.0;
        assert!(
            (0.018..0.022).contains(&variance.sqrt()),
            "{}",
            variance.sqrt()
        );
        let until = Extent {
            requests: None,
            duration: Some(Duration::from_secs(2)),
        };
        let count = mix.count(until, 7).expect("arrivals are known");
        assert!((80..=120).contains(&count), "{count}");
    }

    #[test]
    fn a_time_without_a_rate_has_no_known_count() {
        let until = Extent {
            requests: None,
            duration: Some(Duration::from_secs(2)),
        };
        assert_eq!(mix().count(until, 0), None);
        assert_eq!(mix().count(extent(3), 0), Some(3));
        assert!(mix().wishes(extent(3), 0).all(|wish| wish.at.is_none()));
    }
}
