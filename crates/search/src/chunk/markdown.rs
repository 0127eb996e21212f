//! Sections of Markdown: a heading with what follows it up to the next.

use super::lines::Spans;
use super::scan::Scan;

/// One item per heading; what comes before the first is left to lines.
pub(super) fn sections(scan: &Scan<'_>) -> Spans {
    let mut spans = Spans::default();
    let mut fence: Option<&str> = None;
    let mut begun: Option<usize> = None;
    let mut end_section = |begun: &mut Option<usize>, at: usize| {
        if let Some(start) = begun.replace(at)
            && start < at
        {
            spans.items.push(start..at);
        }
    };
    // Front matter: its closing line is no underlined heading.
    let front = match scan.len() > 0 && scan.trimmed(0) == "---" {
        true => (1..scan.len()).find(|&line| scan.trimmed(line) == "---"),
        false => None,
    };
    for line in front.map_or(0, |line| line + 1)..scan.len() {
        let text = scan.trimmed(line);
        let mark = ["```", "~~~"]
            .into_iter()
            .find(|mark| text.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            _ => {}
        }
        if fence.is_some() || scan.indent(line) > 3 {
            continue;
        }
        let hashes = text.bytes().take_while(|&byte| byte == b'#').count();
        if (1..=6).contains(&hashes) && matches!(text.as_bytes().get(hashes), None | Some(b' ')) {
            end_section(&mut begun, line);
        } else if is_underline(text) && line > 0 {
            let title = scan.trimmed(line - 1);
            let plain = !title.is_empty() && !title.starts_with(['|', '-', '*', '>', '#']);
            if plain && begun != Some(line - 1) {
                end_section(&mut begun, line - 1);
            }
        }
    }
    let end = scan.len();
    end_section(&mut begun, end);
    spans
}

fn is_underline(text: &str) -> bool {
    text.len() >= 3 && (text.bytes().all(|b| b == b'=') || text.bytes().all(|b| b == b'-'))
}
