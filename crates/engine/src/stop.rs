//! Stop strings, matched across token edges: text that may still turn out to be the start of a
//! stop string is held back, and a stop string itself is never emitted.

/// Where generation ends besides the model's own end tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopRules {
    /// Texts that end the answer; not part of it.
    pub strings: Vec<String>,
    /// Tokens that end the answer besides the model's own end tokens.
    pub tokens: Vec<u32>,
    /// Most tokens to generate; `None` leaves the context as the only bound.
    pub max_tokens: Option<usize>,
    /// Go on past the model's own end tokens.
    pub ignore_end: bool,
}

/// Watches a stream of text for stop strings, borrowed or owned.
#[derive(Debug)]
pub struct StopMatcher<S> {
    strings: S,
    /// What was given last, and what is held back after it.
    held: String,
    /// Bytes of it that were given.
    given: usize,
}

/// Bytes of text that are watched at a time, as a rule; more make the matcher grow once.
const TEXT_LEN: usize = 256;

impl<S: AsRef<[String]>> StopMatcher<S> {
    /// Watches for `strings`; empty ones never match.
    pub fn new(strings: S) -> Self {
        // Room for all that may be held back and for what comes on top of it: watching takes none.
        let longest = strings.as_ref().iter().map(String::len).max();
        Self {
            held: String::with_capacity(longest.map_or(0, |longest| longest + TEXT_LEN)),
            strings,
            given: 0,
        }
    }

    /// Takes new text and gives what may be emitted, and whether a stop string was found.
    pub fn push<'a>(&'a mut self, text: &'a str) -> (&'a str, bool) {
        if self.strings.as_ref().is_empty() {
            return (text, false);
        }
        let found = self.take(text);
        if !found {
            let strings = self.strings.as_ref().iter();
            let keep = strings.map(|s| overlap(&self.held, s)).max();
            self.given = self.held.len() - keep.unwrap_or(0);
        }
        (&self.held[..self.given], found)
    }

    /// Takes the last text and gives all that is left to be emitted, and whether a stop string was
    /// found.
    pub fn finish<'a>(&'a mut self, text: &'a str) -> (&'a str, bool) {
        if self.strings.as_ref().is_empty() {
            return (text, false);
        }
        let found = self.take(text);
        if !found {
            self.given = self.held.len();
        }
        (&self.held[..self.given], found)
    }

    /// Adds text to what is held back; where that holds a stop string, what comes before it is given.
    fn take(&mut self, text: &str) -> bool {
        self.held.drain(..self.given);
        self.given = 0;
        self.held.push_str(text);
        let strings = self.strings.as_ref().iter().filter(|s| !s.is_empty());
        let found = strings.filter_map(|s| self.held.find(s.as_str())).min();
        if let Some(at) = found {
            self.held.truncate(at);
            self.given = at;
        }
        found.is_some()
    }
}

/// Bytes of the longest end of `text` that is a proper start of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|&n| stop.is_char_boundary(n) && text.as_bytes().ends_with(&stop.as_bytes()[..n]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The emitted text and whether it stopped, whatever the pieces.
    fn check(pieces: &[&str], stops: &[&str], want: &str, stopped: bool) {
        let stops: Vec<String> = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut matcher = StopMatcher::new(&stops);
        let mut out = String::new();
        for piece in pieces {
            let (text, found) = matcher.push(piece);
            out.push_str(text);
            if found {
                assert!(stopped);
                assert_eq!(out, want);
                return;
            }
        }
        out.push_str(matcher.finish("").0);
        assert!(!stopped);
        assert_eq!(out, want);
    }

    #[test]
    fn stops_across_edges_and_gives_back_what_was_no_stop() {
        check(&["one\n", "\nUser", ": hi"], &["\n\nUser:"], "one", true);
        check(
            &["one\n", "\nUse", "less"],
            &["\n\nUser:"],
            "one\n\nUseless",
            false,
        );
        check(&["aab"], &["ab"], "a", true);
        check(&["a", "a", "b"], &["ab", "aab"], "", true);
        check(&["né", "e"], &["ée"], "n", true);
        check(&["abc"], &["", "x"], "abc", false);
        check(&["earlier and later"], &["later", "earlier"], "", true);
    }

    #[test]
    fn any_cut_of_the_text_gives_the_same() {
        let text = "the cat sat on the mat; the end";
        for a in 0..text.len() {
            for b in a..text.len() {
                let pieces = [&text[..a], &text[a..b], &text[b..]];
                check(&pieces, &["the mat", "the moon"], "the cat sat on ", true);
            }
        }
    }
}
