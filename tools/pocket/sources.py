"""Where the corpus's text comes from, and which of it may be used.

Three sources, all at hand once a Rust toolchain and a Python are installed: the documentation that
ships with the toolchain, the crates that cargo has fetched, and the Python standard library. Each
yields `Source` records: a name, a licence and named texts. Crates are taken only if their declared
licence is permissive; whole crates in `HELD_OUT_CRATES` never reach a training file.
"""

import html
import re
import subprocess
import sys
import sysconfig
import tomllib
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

# Never trained on: their pairs are the retrieval test, their text a second perplexity test. By name,
# so every version of a crate is held out.
HELD_OUT_CRATES = frozenset(
    """axum bstr clap_builder half indexmap indicatif itertools minijinja object petgraph
    rand rand_chacha rand_core regex-automata rustix serde_json signal-hook-registry smallvec tempfile
    toml_parser tower winnow""".split()
)

# A crate's licence expression must offer one of these (OR), or only these (AND).
PERMISSIVE = frozenset(
    """MIT MIT-0 Apache-2.0 BSD-2-Clause BSD-3-Clause ISC Zlib Unlicense 0BSD CC0-1.0 BSL-1.0
    Unicode-3.0""".split()
)

# The toolchain's books. The embedded book is left out: its prose is CC-BY-SA, not permissive.
BOOKS = """book reference nomicon rust-by-example cargo rustc rustdoc clippy edition-guide
error_codes style-guide unstable-book""".split()
LIBRARIES = ("core", "alloc", "std", "proc_macro")
# Machine-made or repetitive: thousands of near-identical vector intrinsics.
LIBRARY_SKIP = re.compile(r"stdarch|core_arch|/simd/|portable-simd|unicode_data|/tests?/|benches")

FILE_BYTES_MAX = 600_000


@dataclass
class Source:
    """One body of text under one licence: a book, a library or a crate."""

    name: str
    kind: str  # "book", "rust", "python"
    licence: str
    origin: str
    held_out: bool = False
    texts: list[tuple[str, str]] = field(default_factory=list)  # (path inside the source, text)


def permissive(expression: str) -> bool:
    """Whether a Cargo licence expression allows use under a permissive licence."""
    flat = expression.replace("/", " OR ").replace("(", " ( ").replace(")", " ) ")
    flat = re.sub(r"WITH\s+LLVM-exception", "", flat)
    out = []
    for word in flat.split():
        if word in ("(", ")"):
            out.append(word)
        elif word in ("OR", "AND"):
            out.append(word.lower())
        else:
            out.append(str(word in PERMISSIVE))
    try:
        # Only the words True, False, and, or and parentheses are left.
        return bool(eval(" ".join(out), {"__builtins__": {}}))  # noqa: S307
    except SyntaxError:
        return False


def crates(registry: Path) -> list[Source]:
    """The newest version of every permissively licensed crate under `registry`."""
    found: dict[str, tuple[tuple, Source]] = {}
    for manifest in sorted(registry.glob("*/*/Cargo.toml")):
        root = manifest.parent
        package = tomllib.loads(manifest.read_text(errors="replace")).get("package", {})
        name, version = package.get("name"), package.get("version", "")
        licence = package.get("license", "")
        if not isinstance(name, str) or not permissive(licence):
            continue
        order = tuple(int(n) for n in re.findall(r"\d+", version)[:3])
        if name in found and found[name][0] >= order:
            continue
        authors = ", ".join(package.get("authors", [])) or "the authors named in its repository"
        origin = f"crates.io, {version}, {authors}"
        source = Source(name, "rust", licence, origin, name in HELD_OUT_CRATES)
        for path in sorted((root / "src").rglob("*.rs")):
            if path.stat().st_size <= FILE_BYTES_MAX and "tests" not in path.parts:
                text = path.read_text(errors="replace")
                source.texts.append((str(path.relative_to(root)), text))
        found[name] = (order, source)
    return [source for _, source in (found[name] for name in sorted(found))]


def toolchain_docs() -> Path:
    """The folder of the stable toolchain's HTML documentation."""
    command = ["rustc", "+stable", "--print", "sysroot"]
    sysroot = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return Path(sysroot) / "share/doc/rust/html"


def libraries(docs: Path) -> list[Source]:
    """The standard library's sources, doc comments included, out of rustdoc's source pages."""
    found = []
    for name in LIBRARIES:
        source = Source(name, "rust", "MIT OR Apache-2.0", "Rust toolchain documentation")
        for page in sorted((docs / "src" / name).rglob("*.rs.html")):
            if LIBRARY_SKIP.search(str(page)):
                continue
            text = page.read_text(errors="replace")
            start, end = text.find("<pre class=\"rust\">"), text.rfind("</pre>")
            body = re.sub(r"<a [^>]*data-nosnippet>\d+</a>", "", text[start:end])
            body = html.unescape(re.sub(r"<[^>]+>", "", body))
            if len(body) <= FILE_BYTES_MAX:
                source.texts.append((str(page.relative_to(docs / "src"))[: -len(".html")], body))
        found.append(source)
    return found


def books(docs: Path) -> list[Source]:
    """The toolchain's books as plain text with Markdown headings, lists and fences."""
    found = []
    for name in BOOKS:
        source = Source(name, "book", "MIT OR Apache-2.0", "Rust toolchain documentation")
        for page in sorted((docs / name).rglob("*.html")):
            if page.name in ("print.html", "404.html", "toc.html", "index.html") or "static" in page.parts:
                continue
            text = page_text(page.read_text(errors="replace"))
            if len(text) > 200:
                source.texts.append((str(page.relative_to(docs)), text))
        found.append(source)
    return found


class PageText(HTMLParser):
    """Turns the main part of an mdBook page into text."""

    BREAKS = {"p", "ul", "ol", "table", "blockquote", "section", "dl", "div"}

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.inside = False
        self.pre = False
        self.hidden = 0
        self.hidden_stack: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag == "main":
            self.inside = True
        if not self.inside:
            return
        classes = dict(attrs).get("class") or ""
        if self.hidden_stack or tag in ("script", "style", "button", "nav", "svg") or "boring" in classes:
            if tag not in ("br", "img", "input", "hr"):
                self.hidden_stack.append(tag)
            return
        if tag in ("h1", "h2", "h3", "h4", "h5"):
            self.parts.append("\n\n" + "#" * int(tag[1]) + " ")
        elif tag == "pre":
            self.pre = True
            self.parts.append("\n\n```\n")
        elif tag == "code" and not self.pre:
            self.parts.append("`")
        elif tag == "li":
            self.parts.append("\n- ")
        elif tag == "tr":
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" | ")
        elif tag in self.BREAKS:
            self.parts.append("\n\n")

    def handle_endtag(self, tag):
        if tag == "main":
            self.inside = False
        if not self.inside:
            return
        if self.hidden_stack:
            if self.hidden_stack[-1] == tag:
                self.hidden_stack.pop()
            return
        if tag == "pre":
            self.pre = False
            self.parts.append("\n```\n\n")
        elif tag == "code" and not self.pre:
            self.parts.append("`")
        elif tag in ("h1", "h2", "h3", "h4", "h5") or tag in self.BREAKS:
            self.parts.append("\n\n")

    def handle_data(self, data):
        if self.inside and not self.hidden_stack:
            self.parts.append(data if self.pre else re.sub(r"\s+", " ", data))


def page_text(page: str) -> str:
    """The text of an mdBook page."""
    parser = PageText()
    parser.feed(page)
    text = "".join(parser.parts)
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n- \s+", "\n- ", text)
    text = re.sub(r"\n{2,}```\n", "\n\n```\n", text)
    text = re.sub(r"\n+```\n\n", "\n```\n\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def python_library() -> Source:
    """The running Python's standard library, without its tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    version = ".".join(str(n) for n in sys.version_info[:3])
    source = Source("python-stdlib", "python", "PSF-2.0", f"CPython {version}")
    skip = {"test", "tests", "site-packages", "idlelib", "lib2to3", "__pycache__", "turtledemo", "ensurepip"}
    for path in sorted(root.rglob("*.py")):
        inner = path.relative_to(root)
        if not skip & set(inner.parts) and path.stat().st_size <= FILE_BYTES_MAX:
            source.texts.append((str(inner), path.read_text(errors="replace")))
    return source


def all_sources() -> list[Source]:
    """Every source, in a fixed order."""
    docs = toolchain_docs()
    registry = Path.home() / ".cargo/registry/src"
    return [*books(docs), *libraries(docs), *crates(registry), python_library()]
