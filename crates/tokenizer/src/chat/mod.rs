//! Chat templates: a conversation as the one string that a model was trained to continue.
//!
//! A template is a Jinja program that comes with the model, written for Python's jinja2 as
//! `transformers` sets it up; [`minijinja`] runs it here. What jinja2 takes from Python (how values
//! print, `tojson`, methods of strings and dicts) is made to agree, see the `python` module.
//!
//! The program is somebody else's: its instructions, its nesting and its output are bounded.

mod depth;
mod methods;
mod python;
mod time;

use std::fmt;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior, Value};
use serde::Serialize;
use thiserror::Error;

/// What a template may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatLimits {
    /// Bytes of the template's source.
    pub source_bytes_max: usize,
    /// Template instructions per rendering; a message costs some tens.
    pub fuel: u64,
    /// Depth of nested macros and blocks.
    pub recursion: usize,
    /// Bytes of the rendered text.
    pub output_bytes_max: usize,
}

impl Default for ChatLimits {
    fn default() -> ChatLimits {
        ChatLimits {
            source_bytes_max: 1 << 20,
            fuel: 10_000_000,
            recursion: 64,
            output_bytes_max: 64 << 20,
        }
    }
}

/// Why a chat template cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The source is longer than the limit.
    #[error("the chat template is {bytes} bytes long, the limit is {limit}")]
    SourceTooLong {
        /// Bytes of the source.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A chain of operators or conditions is longer than the engine could read on a small stack.
    #[error(
        "the chat template has more than {most} {what} (line {line}): it is damaged, or made to do harm; \
         use the template of the model's makers"
    )]
    TooDeep {
        /// Of what.
        what: &'static str,
        /// The line in which there are too many.
        line: usize,
        /// The limit.
        most: usize,
    },
    /// The source is no Jinja that this engine knows.
    #[error("the chat template does not parse: {0}")]
    Syntax(String),
    /// The template refused the conversation, in its own words.
    #[error("the chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template failed while running.
    #[error("the chat template failed: {0}")]
    Failed(String),
    /// The template ran for too long.
    #[error("the chat template exceeded its limit of {fuel} instructions")]
    OutOfFuel {
        /// The limit.
        fuel: u64,
    },
    /// The rendered text is longer than the limit.
    #[error("the chat template's output exceeded {limit} bytes; shorten the conversation")]
    OutputTooLong {
        /// The limit.
        limit: usize,
    },
}

/// The texts of a model's special tokens, which templates name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatTokens {
    /// `bos_token`.
    pub bos: Option<String>,
    /// `eos_token`.
    pub eos: Option<String>,
    /// `unk_token`.
    pub unk: Option<String>,
    /// `pad_token`.
    pub pad: Option<String>,
}

/// One conversation to render.
///
/// The values may be anything that serialises: `serde_json::Value`s as they came from a request, or
/// a caller's own types. The order of keys is kept.
#[derive(Debug)]
pub struct ChatInput<'a, M> {
    /// The messages, oldest first: each a map with `role`, `content` and what else the template
    /// reads.
    pub messages: &'a [M],
    /// Descriptions of the tools that the model may call.
    pub tools: Option<&'a [serde_json::Value]>,
    /// Documents to answer from.
    pub documents: Option<&'a [serde_json::Value]>,
    /// Whether to end with the start of the assistant's reply.
    pub add_generation_prompt: bool,
    /// Further variables, such as `enable_thinking`.
    pub extra: Option<&'a serde_json::Map<String, serde_json::Value>>,
    /// The time that `strftime_now` tells, in seconds since 1970; the present if `None`.
    pub now: Option<i64>,
}

impl<'a, M> ChatInput<'a, M> {
    /// Messages to be answered, nothing else.
    pub fn new(messages: &'a [M]) -> ChatInput<'a, M> {
        ChatInput {
            messages,
            tools: None,
            documents: None,
            add_generation_prompt: true,
            extra: None,
            now: None,
        }
    }
}

/// The marks of an error that `raise_exception` caused.
const REFUSED: &str = "raise_exception: ";

const NAME: &str = "chat";

/// A model's chat template, parsed.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: ChatTokens,
    limits: ChatLimits,
}

impl ChatTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// If the source is too long or does not parse.
    pub fn new(source: &str, tokens: ChatTokens) -> Result<ChatTemplate, ChatError> {
        ChatTemplate::with_limits(source, tokens, ChatLimits::default())
    }

    /// Parses a template that is to keep to `limits`.
    ///
    /// # Errors
    /// If the source is too long or does not parse.
    pub fn with_limits(
        source: &str,
        tokens: ChatTokens,
        limits: ChatLimits,
    ) -> Result<ChatTemplate, ChatError> {
        if source.len() > limits.source_bytes_max {
            let limit = limits.source_bytes_max;
            return Err(ChatError::SourceTooLong {
                bytes: source.len(),
                limit,
            });
        }
        depth::check(source)?;
        let mut environment = Environment::new();
        // As `transformers` configures jinja2.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        environment.set_syntax(syntax.map_err(|error| ChatError::Syntax(error.to_string()))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(limits.fuel));
        environment.set_recursion_limit(limits.recursion);
        environment.set_formatter(|out, _, value| {
            python::write_str(out, value).map_err(minijinja::Error::from)
        });
        environment.set_unknown_method_callback(methods::unknown_method);
        environment.add_filter("length", methods::length);
        environment.add_filter("count", methods::length);
        environment.add_test("sequence", methods::is_sequence);
        environment.add_test("iterable", methods::is_iterable);
        environment.add_test("callable", methods::is_callable);
        environment.add_filter("tojson", python::tojson);
        environment.add_filter("string", python::string);
        environment.add_filter("join", python::join);
        environment.add_function("raise_exception", |message: String| -> Result<(), _> {
            Err(minijinja::Error::new(
                ErrorKind::InvalidOperation,
                format!("{REFUSED}{message}"),
            ))
        });
        environment
            .add_template_owned(NAME, without_generation_tags(source))
            .map_err(|error| ChatError::Syntax(error.to_string()))?;
        Ok(ChatTemplate {
            environment,
            tokens,
            limits,
        })
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// If the template refuses the conversation, fails, or exceeds a limit.
    pub fn render<M: Serialize>(&self, input: &ChatInput<'_, M>) -> Result<String, ChatError> {
        let now = input.now.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| {
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
            })
        });
        let mut context: Vec<(&str, Value)> = vec![
            ("messages", Value::from(Serde(input.messages))),
            ("tools", Value::from(Serde(input.tools))),
            ("documents", Value::from(Serde(input.documents))),
            (
                "add_generation_prompt",
                Value::from(input.add_generation_prompt),
            ),
            (
                "strftime_now",
                Value::from_function(move |format: &str| time::strftime(format, now)),
            ),
        ];
        // A token that the model lacks is undefined, not none: templates ask `is defined`.
        let tokens = [
            ("bos_token", &self.tokens.bos),
            ("eos_token", &self.tokens.eos),
            ("unk_token", &self.tokens.unk),
            ("pad_token", &self.tokens.pad),
        ];
        context.extend(
            tokens
                .into_iter()
                .filter_map(|(name, text)| Some((name, Value::from(text.as_ref()?)))),
        );
        for (name, value) in input.extra.into_iter().flatten() {
            context.push((name, Value::from(Serde(value))));
        }
        let context = Value::from_pairs(context);

        let mut out = Bounded {
            bytes: Vec::new(),
            left: self.limits.output_bytes_max,
            full: false,
        };
        let template = self.environment.get_template(NAME);
        let rendered = template
            .and_then(|template| template.render_captured_to(context, &mut out).map(|_| ()));
        match rendered {
            Ok(()) => {}
            Err(_) if out.full => {
                return Err(ChatError::OutputTooLong {
                    limit: self.limits.output_bytes_max,
                });
            }
            Err(error) if is_out_of_fuel(&error) => {
                return Err(ChatError::OutOfFuel {
                    fuel: self.limits.fuel,
                });
            }
            Err(error) => return Err(explain(&error)),
        }
        // The engine writes nothing but `str`s.
        String::from_utf8(out.bytes).map_err(|error| ChatError::Failed(error.to_string()))
    }
}

impl fmt::Display for ChatTemplate {
    /// The template's source.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|_| fmt::Error)?;
        f.write_str(template.source())
    }
}

/// The chain of errors, outermost first.
fn chain(error: &minijinja::Error) -> impl Iterator<Item = &minijinja::Error> {
    std::iter::successors(Some(error), |error| {
        std::error::Error::source(*error)?.downcast_ref()
    })
}

fn is_out_of_fuel(error: &minijinja::Error) -> bool {
    chain(error).any(|error| error.kind() == ErrorKind::OutOfFuel)
}

fn explain(error: &minijinja::Error) -> ChatError {
    let refusal = chain(error).find_map(|error| error.detail()?.strip_prefix(REFUSED));
    match refusal {
        Some(message) => ChatError::Refused(message.to_owned()),
        None => {
            let last = chain(error).last().unwrap_or(error);
            ChatError::Failed(last.to_string())
        }
    }
}

/// Output up to a limit.
struct Bounded {
    bytes: Vec<u8>,
    left: usize,
    full: bool,
}

impl io::Write for &mut Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.left.checked_sub(bytes.len()) {
            Some(left) => self.left = left,
            None => {
                self.full = true;
                return Err(io::Error::other("output limit"));
            }
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Replaces `{% generation %}` and its end by an `if` that is always taken.
///
/// `transformers` uses the tags to mark what the assistant said when training; rendering ignores
/// them. White space marks inside the tags keep their effect.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(len) = rest[start..].find("%}") else {
            break;
        };
        let inner = &rest[start + 2..start + len];
        let name = inner.trim_matches(|c: char| matches!(c, '-' | '+') || c.is_whitespace());
        let instead = match name {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => name,
        };
        out.push_str(&rest[..start]);
        if instead == name {
            // Only past the opening mark: a `%}` in a string may have ended the search too soon.
            out.push_str("{%");
            rest = &rest[start + 2..];
        } else {
            let (before, after) = inner.split_once(name).unwrap_or((inner, ""));
            out.extend(["{%", before, instead, after, "%}"]);
            rest = &rest[start + len + 2..];
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(source: &str) -> Result<String, ChatError> {
        let template = ChatTemplate::new(source, ChatTokens::default())?;
        template.render(&ChatInput {
            now: Some(0),
            ..ChatInput::new(&[json!({"role": "user"})])
        })
    }

    #[test]
    fn generation_tags_vanish_with_their_white_space_marks() {
        let source = "a {%- generation -%} b {%- endgeneration %} c";
        assert_eq!(render(source).unwrap(), "ab c");
        assert_eq!(
            without_generation_tags("{% if x %}%}{% y"),
            "{% if x %}%}{% y"
        );
    }

    #[test]
    fn a_template_that_raises_is_quoted() {
        let error = render("{{ raise_exception('roles must alternate') }}").unwrap_err();
        assert!(
            matches!(&error, ChatError::Refused(m) if m == "roles must alternate"),
            "{error}"
        );
        let error = render("{{ messages.x.y }}").unwrap_err();
        assert!(matches!(error, ChatError::Failed(_)), "{error}");
        assert!(matches!(render("{% if %}"), Err(ChatError::Syntax(_))));
    }

    #[test]
    fn work_depth_and_output_are_bounded() {
        let busy = "{% for a in range(1000) %}{% for b in range(1000) %}{% for c in range(1000) %}\
                    {% set x = a + b %}{% endfor %}{% endfor %}{% endfor %}";
        assert!(matches!(render(busy), Err(ChatError::OutOfFuel { .. })));
        let deep = "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}";
        assert!(matches!(render(deep), Err(ChatError::Failed(_))));
        let long = "{% for a in range(100) %}{{ 'x' * 1000000 }}{% endfor %}";
        assert!(matches!(render(long), Err(ChatError::OutputTooLong { .. })));
        let huge = "x".repeat((1 << 20) + 1);
        assert!(matches!(
            render(&huge),
            Err(ChatError::SourceTooLong { .. })
        ));
    }

    #[test]
    fn the_clock_is_the_callers() {
        assert_eq!(
            render("{{ strftime_now('%d %b %Y') }}").unwrap(),
            "01 Jan 1970"
        );
    }
}
