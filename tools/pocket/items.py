"""Finds documented items in Rust and Python source: the doc comment, the signature and the body.

A scanner, not a parser: it follows brackets, strings and comments from the line after a doc comment
to the item's end, which is all that is needed and works on code that does not compile alone.
"""

import ast
import re
from dataclasses import dataclass

ITEM = re.compile(
    r"(?:pub(?:\([^)]*\))?\s+)?(?:default\s+)?(?:const\s+)?(?:async\s+)?(?:unsafe\s+)?"
    r"(?:extern\s+\"[^\"]*\"\s+)?(?:auto\s+)?"
    r"(fn|struct|enum|trait|type|const|static|mod|macro|macro_rules!|union)\s+"
    r"(?:mut\s+)?(r#)?([A-Za-z_][A-Za-z0-9_]*)"
)
# What matters to bracket matching; a lone quote is a lifetime.
LEX = re.compile(
    r"//[^\n]*|/\*.*?\*/|b?r(#*)\".*?\"\1|b?\"(?:\\.|[^\"\\])*\"|b?'(?:\\[^\n]{1,10}?|[^\\'\n])'|[{}()\[\];]",
    re.S,
)
ITEM_CHARS_MAX = 20_000


@dataclass
class Item:
    """A documented item. `code` starts with the signature and holds no doc comment of its own."""

    kind: str  # "fn", "struct", ..., "class"
    name: str
    doc: str
    signature: str
    code: str
    language: str  # "rust", "python"


def item_end(text: str, start: int) -> tuple[int, int]:
    """Where the item that begins at `start` ends, and where its body's brace opens (or the end)."""
    depth, brace = 0, -1
    limit = min(len(text), start + ITEM_CHARS_MAX)
    for match in LEX.finditer(text, start, limit):
        token = match.group()
        if token in "([{" and len(token) == 1:
            if token == "{" and depth == 0 and brace < 0:
                brace = match.start()
            depth += 1
        elif token in ")]}" and len(token) == 1:
            depth -= 1
            if depth < 0:
                return match.start(), brace if brace >= 0 else match.start()
            if depth == 0 and token == "}" and brace >= 0:
                return match.end(), brace
        elif token == ";" and depth == 0:
            return match.end(), brace if brace >= 0 else match.start()
    return -1, -1


def dedent(code: str, first_indent: int) -> str:
    """Removes the item's own indentation from all its lines."""
    lines = code.split("\n")
    pad = " " * first_indent
    return "\n".join([lines[0]] + [line[first_indent:] if line.startswith(pad) else line.lstrip() for line in lines[1:]])


def rust_items(text: str) -> list[Item]:
    """The items of a Rust file that have a `///` doc comment."""
    found = []
    lines = text.split("\n")
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line) + 1)
    n = 0
    while n < len(lines):
        stripped = lines[n].lstrip()
        if not stripped.startswith("///") or stripped.startswith("////"):
            n += 1
            continue
        doc = []
        while n < len(lines):
            stripped = lines[n].lstrip()
            if stripped.startswith("///"):
                body = stripped[3:]
                doc.append(body[1:] if body.startswith(" ") else body)
                n += 1
            elif stripped.startswith("#["):
                # An attribute, possibly of several lines.
                depth = 0
                while n < len(lines):
                    depth += lines[n].count("[") - lines[n].count("]")
                    n += 1
                    if depth <= 0:
                        break
            elif stripped.startswith("//") and not stripped.startswith("//!"):
                n += 1
            else:
                break
        if n >= len(lines):
            break
        line = lines[n]
        indent = len(line) - len(line.lstrip())
        match = ITEM.match(line, indent)
        if not match:
            continue
        start = offsets[n] + indent
        end, brace = item_end(text, start)
        if end < 0:
            continue
        signature = re.sub(r"\s+", " ", text[start:brace]).strip().rstrip("{;").strip()
        code = dedent(text[start:end], indent)
        kind = match.group(1).rstrip("!").replace("macro_rules", "macro")
        if kind == "mod" and "{" in code:
            continue
        found.append(Item(kind, match.group(3), "\n".join(doc).strip(), signature, code, "rust"))
        if kind in ("fn", "const", "static", "type"):
            # Functions may hold documented items, but those are rarely worth the text twice.
            while n < len(lines) and offsets[n] < end:
                n += 1
        else:
            n += 1
    return found


def module_doc(text: str) -> str:
    """The `//!` comment at the head of a Rust file."""
    lines = [line.lstrip() for line in text.split("\n") if line.lstrip().startswith("//!")]
    return "\n".join(line[4:] if line.startswith("//! ") else line[3:] for line in lines).strip()


def strip_docs(code: str) -> str:
    """Code without its doc comments and attributes of documentation."""
    kept = [line for line in code.split("\n") if not re.match(r"\s*(///|//!|#!?\[(doc|stable|unstable|rustc_|must_use|cfg_attr))", line)]
    return "\n".join(kept)


def python_items(text: str) -> tuple[str, list[Item]]:
    """A Python module's docstring, and its documented functions and classes (signature only)."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return "", []
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        doc = ast.get_docstring(node)
        if not doc:
            continue
        if isinstance(node, ast.ClassDef):
            bases = ", ".join(ast.unparse(base) for base in node.bases)
            signature = f"class {node.name}({bases}):" if bases else f"class {node.name}:"
            kind = "class"
        else:
            signature = f"def {node.name}({ast.unparse(node.args)}):"
            kind = "def"
        found.append(Item(kind, node.name, doc, signature, signature, "python"))
    return ast.get_docstring(tree) or "", found
