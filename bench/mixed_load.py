"""A seeded mix of chats and embeddings over several models, and what came of it."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from serving import Server, together

WORDS = "the ledger grants what there is and says no in good time budget bytes model memory".split()
# Of a client's requests, so many in a row go to one model on average.
STAY = 6
PATIENCE_SECONDS = 900


@dataclass
class Outcome:
    """What the clients saw."""

    statuses: Counter = field(default_factory=Counter)
    # What was wrong with answers that should not be like that.
    faults: list = field(default_factory=list)
    tokens: int = 0
    vectors: int = 0
    cancelled: int = 0
    seconds: float = 0.0
    # Seconds from asking to the end of each whole answer.
    waits: list = field(default_factory=list)


@dataclass
class Model:
    """A model of the mix: `share` of the requests."""

    name: str
    chats: bool
    share: float


def text(pick: random.Random, words: int) -> str:
    return " ".join(pick.choice(WORDS) for _ in range(words))


def request(pick: random.Random, model: Model) -> tuple[str, dict]:
    """Path and body."""
    if not model.chats:
        texts = [text(pick, pick.randint(3, 40)) for _ in range(pick.randint(1, 12))]
        return "/v1/embeddings", {"model": model.name, "input": texts}
    return "/v1/completions", {
        "model": model.name, "prompt": text(pick, pick.randint(8, 60)), "max_tokens": pick.randint(4, 24),
        "temperature": 0, "ignore_eos": True, "stream": pick.random() < 0.5,
    }


def refusal_fault(status: int, headers, text_: str) -> str | None:
    """What a refusal lacks; nothing if it is as it should be."""
    if status not in (429, 503):
        return f"{status}: {text_[:300]}"
    if headers.get("Retry-After") is None:
        return f"{status} without Retry-After"
    message = json.loads(text_)["error"]["message"]
    return None if any(c.isdigit() for c in message) else f"{status} without figures: {message}"


def ask(netloc: str, path: str, body: dict, cancel: bool, out: Outcome, lock: threading.Lock) -> None:
    connection = http.client.HTTPConnection(netloc, timeout=PATIENCE_SECONDS)
    begun = time.monotonic()
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if cancel and body.get("stream") and response.status == 200:
        response.read(1)
        connection.close()
        with lock:
            out.cancelled += 1
        return
    answer = response.read().decode()
    fault, tokens, vectors = None, 0, 0
    if response.status != 200:
        fault = refusal_fault(response.status, response.headers, answer)
    elif body.get("stream"):
        if not answer.rstrip().endswith("data: [DONE]") or '"finish_reason":"length"' not in answer:
            fault = f"a stream that ended early: {answer[-300:]!r}"
        tokens = body["max_tokens"]
    elif path == "/v1/embeddings":
        vectors = len(json.loads(answer)["data"])
        if vectors != len(body["input"]):
            fault = f"{vectors} vectors for {len(body['input'])} texts"
    else:
        tokens = json.loads(answer)["usage"]["completion_tokens"]
        if tokens != body["max_tokens"]:
            fault = f"{tokens} tokens, {body['max_tokens']} asked for"
    with lock:
        out.statuses[response.status] += 1
        if response.status == 200:
            out.waits.append(time.monotonic() - begun)
        out.tokens += tokens
        out.vectors += vectors
        if fault:
            out.faults.append(fault)


def run(server: Server | dict[str, str], models: list[Model], requests: int, clients: int, seed: int) -> Outcome:
    """Asks `requests` in all. `server` is one for all models, or an address for each of them."""
    out, lock = Outcome(), threading.Lock()

    def netloc(name: str) -> str:
        return server[name] if isinstance(server, dict) else server.url.netloc

    def client(index: int) -> None:
        pick = random.Random(seed * 1000 + index)
        model = None
        for _ in range(index, requests, clients):
            if model is None or pick.random() < 1 / STAY:
                model = pick.choices(models, [model.share for model in models])[0]
            path, body = request(pick, model)
            ask(netloc(model.name), path, body, pick.random() < 0.1, out, lock)

    begun = time.monotonic()
    together(clients, client)
    out.seconds = time.monotonic() - begun
    return out
