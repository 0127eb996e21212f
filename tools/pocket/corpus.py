"""Builds the corpus: language-model text, questions with answers, and pairs for retrieval.

    python corpus.py OUT

Writes under OUT
  train.jsonl, heldout.jsonl   {"source", "text"}: documents; a fiftieth of the files is held out
  unseen.jsonl                 documents of the crates that are never trained on
  chat.jsonl                   {"question", "answer"} from training files
  pairs.jsonl                  {"queries", "signature", "code", "doc"} from training files
  retrieval.jsonl              1,000 (query, code) pairs of the crates never trained on
  sources.json                 what was taken, under which licence
The same toolchain and crates give the same files: nothing here is drawn without a seed.
"""

import hashlib
import json
import random
import re
import sys
from pathlib import Path

import items
import sources

SEED = 20261121
HELD_OUT_OF = 50  # one file in so many is held out
CODE_CHARS_MAX = 2000
DOC_CHARS_MAX = 4000
ANSWER_CHARS_MAX = 700
RETRIEVAL_PAIRS = 1000
RETRIEVAL_PAIRS_PER_CRATE = 90

SKIPPED_PAGES = re.compile(
    r"^rust-by-example/(ja|zh|es|ko|fr|de|pt|ru)/|^book/(first|second|2018)-edition/|CHANGELOG"
)


def held_out(path: str) -> bool:
    """Whether a file belongs to the held-out split; decided by its path alone."""
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") % HELD_OUT_OF == 0


def clean_doc(doc: str) -> str:
    """A doc comment without link targets and HTML."""
    lines = [line for line in doc.split("\n") if not re.match(r"\s*\[[^\]]+\]:\s", line)]
    text = "\n".join(lines)
    text = re.sub(r"\[([^\]\n]+)\]\([^)\s]*(?:\s\"[^\"]*\")?\)", r"\1", text)
    text = re.sub(r"\[(`[^`\]\n]+`)\](?:\[[^\]\n]*\])?", r"\1", text)
    text = re.sub(r"</?(?:code|div|p|br|span|em|strong|a|i|b|sup|sub)\b[^>\n]*>", "", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def paragraphs(doc: str) -> list[str]:
    """The prose paragraphs before the first heading or example."""
    found = []
    for block in re.split(r"\n\s*\n", doc):
        block = block.strip()
        if not block or block.startswith(("#", "```", "|", "<", "[!", ">>>")):
            if found or block.startswith(("#", "```", ">>>")):
                break
            continue
        found.append(block)
    return found


def plain(text: str) -> str:
    """One line, without Markdown's marks, as a person would type it."""
    text = re.sub(r"[`*]|\[|\](?:\([^)]*\))?", "", text)
    return re.sub(r"\s+", " ", text).strip()


def sentences(text: str) -> list[str]:
    """Sentences of 4 to 60 words."""
    parts = re.split(r"(?<=[.!?])\s+(?=[A-Z`])", plain(text))
    return [part for part in parts if 4 <= len(part.split()) <= 60]


def shorten(text: str, chars_max: int) -> str:
    """Cuts at a line's end."""
    if len(text) <= chars_max:
        return text
    return text[:chars_max].rsplit("\n", 1)[0]


def item_text(item: items.Item) -> str:
    """An item as it stands in a file: doc comment, then code."""
    doc = shorten(clean_doc(item.doc), DOC_CHARS_MAX)
    if item.language == "python":
        body = doc.replace("\n", "\n    ")
        return f'{item.signature}\n    """{body}"""\n'
    comment = "\n".join(("/// " + line).rstrip() for line in doc.split("\n"))
    code = items.strip_docs(item.code) if item.kind == "fn" else item.code
    return f"{comment}\n{shorten(code, CODE_CHARS_MAX)}\n"


def answer_of(doc: str) -> str | None:
    """The answer to a question about a documented thing: its first paragraphs, whole."""
    answer = ""
    for block in paragraphs(doc):
        if answer and len(answer) + len(block) > ANSWER_CHARS_MAX:
            break
        answer = f"{answer}\n\n{block}" if answer else block
    return answer if 20 <= len(answer) <= 2 * ANSWER_CHARS_MAX else None


def item_question(item: items.Item, rng: random.Random) -> str:
    """A question about an item: its name and its signature."""
    nouns = {"fn": "function", "def": "function", "type": "type alias", "mod": "module"}
    noun = nouns.get(item.kind, item.kind)
    fence = f"```{item.language}\n{shorten(item.signature, 400)}\n```"
    asks = {
        "fn": f"What does `{item.name}` do?",
        "def": f"What does `{item.name}` do in Python?",
        "trait": f"What is the trait `{item.name}` for?",
    }
    forms = [asks.get(item.kind, f"What is `{item.name}`?")] * 2
    forms += [f"Explain the {noun} `{item.name}`.", f"Document this {noun}."]
    return f"{rng.choice(forms)}\n\n{fence}"


def section_question(title: str, book: str, rng: random.Random) -> str:
    """A question about a book's section: its title."""
    if book == "error_codes":
        code = re.search(r"E\d{4}", title)
        if code:
            return rng.choice([f"What does error {code.group()} mean?", f"Explain {code.group()}."])
    forms = [f"Tell me about {title}.", f"Explain: {title}", f"{title}?"]
    return rng.choice(forms)


def sections(text: str) -> list[tuple[str, str]]:
    """(title, body) of every section of a book's page."""
    found = []
    for part in re.split(r"\n(?=#{1,4} )", "\n" + text):
        part = part.strip()
        if not part.startswith("#"):
            continue
        title, _, body = part.partition("\n")
        title = title.lstrip("# ").strip()
        body = body.strip()
        if 3 <= len(title) <= 90 and len(body) >= 80:
            found.append((title, body))
    return found


def words_of(name: str) -> str:
    """An identifier as words: `read_to_end` and `ReadToEnd` are "read to end"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_+", " ", name).strip().lower()


def pair_of(item: items.Item) -> dict | None:
    """A retrieval pair: ways to ask for the item, and the item's code without its comment."""
    blocks = paragraphs(clean_doc(item.doc))
    if not blocks:
        return None
    first = plain(blocks[0])
    if not 3 <= len(first.split()) <= 80:
        return None
    others = [s for block in blocks for s in sentences(block)]
    code = items.strip_docs(item.code)
    if len(code) < 20:
        return None
    queries = [first, words_of(item.name)] + [s for s in others if s != first][:6]
    return {
        "kind": item.kind,
        "name": item.name,
        "queries": queries,
        "signature": item.signature,
        "code": shorten(code, CODE_CHARS_MAX),
        "doc": shorten(clean_doc(item.doc), 800),
    }


class Builder:
    """Collects the files' lines; drops what was seen before."""

    def __init__(self) -> None:
        self.rng = random.Random(SEED)
        self.out: dict[str, list[dict]] = {
            name: [] for name in ("train", "heldout", "unseen", "chat", "pairs", "retrieval")
        }
        self.seen: set[bytes] = set()
        self.unseen_pairs: dict[str, list[dict]] = {}

    def fresh(self, text: str) -> bool:
        """Whether a text is new, whatever its white space."""
        digest = hashlib.sha256(re.sub(r"\s+", " ", text).encode()).digest()[:12]
        if digest in self.seen:
            return False
        self.seen.add(digest)
        return True

    def document(self, split: str, source: str, parts: list[str]) -> None:
        if parts:
            self.out[split].append({"source": source, "text": "\n".join(parts)})

    def book_page(self, source: sources.Source, path: str, text: str) -> None:
        if SKIPPED_PAGES.search(path) or len(text) < 600 or not self.fresh(text):
            return
        if held_out(path):
            self.document("heldout", source.name, [text])
            return
        self.document("train", source.name, [text])
        for title, body in sections(text):
            answer = answer_of(body)
            if answer and self.fresh(answer):
                question = section_question(title, source.name, self.rng)
                self.out["chat"].append({"question": question, "answer": answer})
            queries = [plain(title)] + sentences(paragraphs(body)[0] if paragraphs(body) else "")[:2]
            self.out["pairs"].append(
                {"kind": "section", "name": title, "queries": queries, "signature": "", "code": shorten(body, 1200), "doc": ""}
            )

    def code_file(self, source: sources.Source, path: str, text: str) -> None:
        if source.kind == "python":
            head, found = items.python_items(text)
            parts = [f"# {source.name}: {path}\n"]
        else:
            head, found = items.module_doc(text), items.rust_items(text)
            parts = [f"// {source.name}: {path}\n"]
        split = "unseen" if source.held_out else "heldout" if held_out(f"{source.name}/{path}") else "train"
        if head and self.fresh(head):
            parts.append(shorten(clean_doc(head), 3 * DOC_CHARS_MAX) + "\n")
        for item in found:
            if len(item.doc) < 10 or not self.fresh(item.doc + item.code):
                continue
            parts.append(item_text(item))
            if split == "heldout":
                continue
            pair = pair_of(item)
            if split == "unseen":
                if pair and item.kind == "fn" and "{" in item.code and len(item.code) >= 60:
                    pair["crate"] = source.name
                    self.unseen_pairs.setdefault(source.name, []).append(pair)
                continue
            if pair:
                self.out["pairs"].append(pair)
            answer = answer_of(clean_doc(item.doc))
            if answer and self.fresh(answer):
                self.out["chat"].append({"question": item_question(item, self.rng), "answer": answer})
        if len(parts) > 1:
            self.document(split, source.name, parts)

    def retrieval(self) -> None:
        """Draws the retrieval test: unlike queries and codes, no crate dominating."""
        trained = {plain(pair["queries"][0]).lower() for pair in self.out["pairs"]}
        pool, queries, codes = [], set(), set()
        for crate in sorted(self.unseen_pairs):
            own = self.unseen_pairs[crate]
            self.rng.shuffle(own)
            taken = 0
            for pair in own:
                query, code = pair["queries"][0].lower(), re.sub(r"\s+", " ", pair["code"])
                if query in trained or query in queries or code in codes or taken == RETRIEVAL_PAIRS_PER_CRATE:
                    continue
                queries.add(query)
                codes.add(code)
                pool.append({"crate": crate, "name": pair["name"], "query": pair["queries"][0], "code": pair["code"]})
                taken += 1
        self.rng.shuffle(pool)
        self.out["retrieval"] = pool[:RETRIEVAL_PAIRS]


def main() -> None:
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    builder, table = Builder(), []
    # Held-out crates go first, so that what they share with others is held out of those.
    every = sorted(sources.all_sources(), key=lambda source: not source.held_out)
    for source in every:
        before = sum(len(d["text"]) for s in ("train", "heldout", "unseen") for d in builder.out[s])
        for path, text in source.texts:
            (builder.book_page if source.kind == "book" else builder.code_file)(source, path, text)
        after = sum(len(d["text"]) for s in ("train", "heldout", "unseen") for d in builder.out[s])
        table.append(
            {
                "name": source.name,
                "kind": source.kind,
                "licence": source.licence,
                "origin": source.origin,
                "held_out": source.held_out,
                "files": len(source.texts),
                "chars_taken": after - before,
            }
        )
    builder.retrieval()
    for name, lines in builder.out.items():
        with open(out / f"{name}.jsonl", "w") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        chars = sum(len(line.get("text", "")) for line in lines)
        print(f"{name}: {len(lines)} lines, {chars} characters of text")
    (out / "sources.json").write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
