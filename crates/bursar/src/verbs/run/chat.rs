//! A conversation on a terminal: a line from the user, an answer, and again.

use std::io::BufRead;
use std::ops::ControlFlow;

use super::{Message, Session};
use crate::failure::Failure;
use crate::output::Out;

const HELP: &str = "/clear forgets the conversation, /bye or Ctrl-D ends it";

/// Chats until the user ends it.
pub(super) fn chat(session: &mut Session<'_>) -> Result<(), Failure> {
    let mut out = Out::new();
    out.line(HELP)?;
    if let Ok(None) = session.generator.vocabulary().template()
        && !session.arguments.raw
    {
        out.line("the model has no chat template: each line is continued as it is")?;
    }
    let mut messages = session.opening();
    let mut lines = std::io::stdin().lock();
    loop {
        out.text(">>> ")?;
        out.flush()?;
        let mut line = String::new();
        let read = lines
            .read_line(&mut line)
            .map_err(|error| Failure::failed(format!("cannot read stdin: {error}")))?;
        if read == 0 {
            out.line("")?;
            return out.flush();
        }
        match line.trim() {
            "" => continue,
            "/bye" | "/exit" | "/quit" => return Ok(()),
            "/clear" => {
                messages = session.opening();
                continue;
            }
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                out.line(HELP)?;
                continue;
            }
            text => messages.push(Message {
                role: "user",
                content: text.to_owned(),
            }),
        }
        let mut answer = String::new();
        let mut written = Ok(());
        let generated = session.generate(&messages, &mut |part| {
            answer.push_str(part);
            written = out.text(part).and_then(|()| out.flush());
            if written.is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        written?;
        match generated {
            Ok(generated) => {
                out.line("\n")?;
                out.flush()?;
                if session.arguments.stats {
                    session.print_stats(&generated);
                }
                messages.push(Message {
                    role: "assistant",
                    content: answer,
                });
            }
            Err(failure) => {
                // The conversation has outgrown its context, most likely: the user can go on
                // without the last line, or clear it.
                failure.print();
                messages.pop();
                out.line(HELP)?;
            }
        }
    }
}
