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
    held: String,
}

impl<S: AsRef<[String]>> StopMatcher<S> {
    /// Watches for `strings`; empty ones never match.
    pub fn new(strings: S) -> Self {
        Self {
            strings,
            held: String::new(),
        }
    }

    /// Takes new text and gives what may be emitted, and whether a stop string was found.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let strings = self.strings.as_ref();
        let found = strings
            .iter()
            .filter(|s| !s.is_empty())
            .filter_map(|s| self.held.find(s.as_str()))
            .min();
        if let Some(at) = found {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let keep = strings
            .iter()
            .map(|s| overlap(&self.held, s))
            .max()
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        (std::mem::replace(&mut self.held, rest), false)
    }

    /// What was held back when the text ends without a stop string.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
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
            out.push_str(&text);
            if found {
                assert!(stopped);
                assert_eq!(out, want);
                return;
            }
        }
        out.push_str(&matcher.finish());
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
