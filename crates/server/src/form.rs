//! How answers look: what chats and completions say around the text of an answer, written once per request
//! where it is the same for every event.

use bursar_engine::{FinishReason, Usage};
use bursar_memory::{BufferPool, PoolError};

use crate::openai::{Likelihoods, Told};
use crate::out::Out;
use crate::random;
use crate::served::now;

/// The words of one kind of answer.
#[derive(Debug)]
pub(crate) struct Words {
    /// What ids begin with.
    id: &'static str,
    /// What an event is called.
    event: &'static str,
    /// What a whole answer is called.
    whole: &'static str,
    /// What a stream says of an answer before its first part.
    opening: Option<&'static str>,
    /// Around the text of a part.
    part: [&'static str; 2],
    /// In its place, of a last part without text.
    end: Option<&'static str>,
    /// Around the text of a whole answer.
    text: [&'static str; 2],
}

/// Chats.
pub(crate) const CHAT: Words = Words {
    id: "chatcmpl",
    event: "chat.completion.chunk",
    whole: "chat.completion",
    opening: Some("\"delta\":{\"role\":\"assistant\",\"content\":\"\"}"),
    part: ["\"delta\":{\"content\":\"", "\"}"],
    end: Some("\"delta\":{}"),
    text: [
        "\"message\":{\"role\":\"assistant\",\"content\":\"",
        "\",\"refusal\":null}",
    ],
};

/// Completions.
pub(crate) const COMPLETION: Words = Words {
    id: "cmpl",
    event: "text_completion",
    whole: "text_completion",
    opening: None,
    part: ["\"text\":\"", "\""],
    end: None,
    text: ["\"text\":\"", "\""],
};

/// A part of an answer.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Piece<'a> {
    /// Its text.
    pub(crate) text: &'a str,
    /// Why the answer ends with this part.
    pub(crate) finish: Option<FinishReason>,
}

/// What one answer says beside what the engine sends.
pub(crate) struct Aside {
    /// The prompt, until it has been given back.
    pub(crate) echo: Option<String>,
    /// Of tokens that were not written down yet.
    pub(crate) likelihoods: Likelihoods,
}

/// How the answers of one request look.
pub(crate) struct Form {
    words: &'static Words,
    /// What every event of a stream, or the one answer, begins with: to where its choices do.
    head: Out,
    pool: BufferPool,
    /// What every event ends with.
    tail: &'static str,
    asides: Vec<Aside>,
}

impl Form {
    /// Of answers by `model`, in events or whole; `usage_follows` where every event but the last says that its
    /// usage is null.
    pub(crate) fn new(
        words: &'static Words,
        pool: &BufferPool,
        model: &str,
        stream: bool,
        usage_follows: bool,
        asides: Vec<Aside>,
    ) -> Result<Form, PoolError> {
        let mut head = Out::new(pool);
        let (begin, object) = match stream {
            true => ("data: {\"id\":", words.event),
            false => ("{\"id\":", words.whole),
        };
        head.raw(begin)?;
        head.quoted(&random::id(words.id))?;
        head.raw(",\"object\":")?;
        head.quoted(object)?;
        head.raw(",\"created\":")?;
        head.count(now() as usize)?;
        head.raw(",\"model\":")?;
        head.quoted(model)?;
        head.raw(",\"choices\":[")?;
        Ok(Form {
            words,
            head,
            pool: pool.clone(),
            tail: match usage_follows {
                true => "],\"usage\":null}\n\n",
                false => "]}\n\n",
            },
            asides,
        })
    }

    /// A place to write to.
    pub(crate) fn out(&self) -> Out {
        Out::new(&self.pool)
    }

    /// Takes note of a token's likelihoods, which go with the next part.
    pub(crate) fn tell(&mut self, choice: usize, told: Told<'_>) -> Result<(), PoolError> {
        self.asides[choice].likelihoods.push(told)
    }

    /// Whether parts without text are worth an event because of their likelihoods.
    pub(crate) fn tells(&self) -> bool {
        let mut asides = self.asides.iter();
        asides.any(|aside| aside.likelihoods.are_told())
    }

    /// What a stream says of its answers before their first parts.
    pub(crate) fn write_opening(&self, out: &mut Out) -> Result<(), PoolError> {
        let Some(opening) = self.words.opening else {
            return Ok(());
        };
        for choice in 0..self.asides.len() {
            self.begin(choice, out)?;
            out.raw(opening)?;
            out.raw(",\"logprobs\":null,\"finish_reason\":null}")?;
            out.raw(self.tail)?;
        }
        Ok(())
    }

    /// An event with a part of an answer.
    pub(crate) fn write_part(
        &mut self,
        choice: usize,
        piece: Piece<'_>,
        out: &mut Out,
    ) -> Result<(), PoolError> {
        self.begin(choice, out)?;
        let aside = &mut self.asides[choice];
        match self.words.end {
            Some(end) if piece.text.is_empty() && piece.finish.is_some() => out.raw(end)?,
            _ => {
                let [open, close] = self.words.part;
                out.raw(open)?;
                out.escaped(aside.echo.take().as_deref().unwrap_or(""))?;
                out.escaped(piece.text)?;
                out.raw(close)?;
            }
        }
        aside.write(piece.finish, out)?;
        out.raw(self.tail)
    }

    /// The last event of a stream whose usage was asked for.
    pub(crate) fn write_usage(&self, usage: Usage, out: &mut Out) -> Result<(), PoolError> {
        out.push(self.head.bytes())?;
        out.raw("],\"usage\":")?;
        write_usage(usage, out)?;
        out.raw("}\n\n")
    }

    fn begin(&self, choice: usize, out: &mut Out) -> Result<(), PoolError> {
        out.push(self.head.bytes())?;
        begin(choice, out)
    }

    /// A draft of all answers.
    pub(crate) fn draft(mut self) -> Result<Draft, PoolError> {
        let mut texts: Vec<Out> = self.asides.iter().map(|_| self.out()).collect();
        if let Some(first) = texts.first_mut() {
            std::mem::swap(first, &mut self.head);
        }
        for (choice, text) in texts.iter_mut().enumerate() {
            text.comma(choice)?;
            begin(choice, text)?;
            text.raw(self.words.text[0])?;
            text.escaped(self.asides[choice].echo.take().as_deref().unwrap_or(""))?;
        }
        Ok(Draft {
            finishes: vec![None; texts.len()],
            texts,
            form: self,
        })
    }
}

/// Whole answers while they are being written: each in a buffer that grows with it, the first of them in the
/// one that is sent.
pub(crate) struct Draft {
    form: Form,
    texts: Vec<Out>,
    finishes: Vec<Option<FinishReason>>,
}

impl Draft {
    /// As [`Form::tell`].
    pub(crate) fn tell(&mut self, choice: usize, told: Told<'_>) -> Result<(), PoolError> {
        self.form.tell(choice, told)
    }

    /// Adds a part to an answer.
    pub(crate) fn add(&mut self, choice: usize, piece: Piece<'_>) -> Result<(), PoolError> {
        self.finishes[choice] = self.finishes[choice].or(piece.finish);
        self.texts[choice].escaped(piece.text)
    }

    /// All answers in one body.
    pub(crate) fn finish(self, usage: Usage) -> Result<Out, PoolError> {
        let Draft {
            mut form,
            texts,
            finishes,
        } = self;
        let mut all: Option<Out> = None;
        for (choice, text) in texts.into_iter().enumerate() {
            let out = match &mut all {
                None => all.insert(text),
                Some(out) => {
                    out.push(text.bytes())?;
                    out
                }
            };
            out.raw(form.words.text[1])?;
            form.asides[choice].write(finishes[choice], out)?;
        }
        // Of no answers there is the head at least.
        let mut out = all.unwrap_or(form.head);
        out.raw("],\"usage\":")?;
        write_usage(usage, &mut out)?;
        out.raw("}")?;
        Ok(out)
    }
}

impl Aside {
    /// What follows the text of a choice, to its end.
    fn write(&mut self, finish: Option<FinishReason>, out: &mut Out) -> Result<(), PoolError> {
        out.raw(",\"logprobs\":")?;
        self.likelihoods.write(out)?;
        out.raw(",\"finish_reason\":")?;
        match finish {
            None => out.raw("null")?,
            Some(finish) => out.quoted(finish.name())?,
        }
        out.raw("}")
    }
}

fn begin(choice: usize, out: &mut Out) -> Result<(), PoolError> {
    out.raw("{\"index\":")?;
    out.count(choice)?;
    out.raw(",")
}

/// Tokens used, as OpenAI tells them.
fn write_usage(usage: Usage, out: &mut Out) -> Result<(), PoolError> {
    for (name, tokens) in [
        ("{\"prompt_tokens\":", usage.prompt_tokens),
        (",\"completion_tokens\":", usage.completion_tokens),
        (
            ",\"total_tokens\":",
            usage.prompt_tokens + usage.completion_tokens,
        ),
        (
            ",\"prompt_tokens_details\":{\"cached_tokens\":",
            usage.cached_tokens,
        ),
    ] {
        out.raw(name)?;
        out.count(tokens)?;
    }
    out.raw("}}")
}
