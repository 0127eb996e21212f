"""The official `openai` client, and LangChain's where it is installed, against a running server.

    python tests/clients/openai_client.py URL CHAT_MODEL EMBEDDING_MODEL [API_KEY]

Writes nothing. Exits with 0 where all is well, with 77 where `openai` is not installed, and with 1
otherwise.
"""

import base64
import importlib.metadata
import math
import struct
import sys

try:
    import openai
except ImportError:
    sys.exit(77)


def check(client, chat, embedding):
    names = [model.id for model in client.models.list()]
    assert chat in names and embedding in names, names
    assert client.models.retrieve(chat).id == chat

    messages = [{"role": "user", "content": "The miller mended a ledger."}]
    whole = client.chat.completions.create(
        model=chat, messages=messages, temperature=0, max_tokens=12
    )
    text = whole.choices[0].message.content
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens

    parts, usage = [], None
    for chunk in client.chat.completions.create(
        model=chat,
        messages=messages,
        temperature=0,
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    ):
        if chunk.choices:
            parts.append(chunk.choices[0].delta.content or "")
        usage = chunk.usage or usage
    assert "".join(parts) == text, (parts, text)
    # The same prompt again: its full blocks are found, and usage says so; all else is equal.
    assert whole.usage.prompt_tokens_details.cached_tokens == 0, whole.usage
    assert 0 < usage.prompt_tokens_details.cached_tokens < usage.prompt_tokens, usage
    uncached = usage.model_copy(update={"prompt_tokens_details": whole.usage.prompt_tokens_details})
    assert uncached == whole.usage, (usage, whole.usage)

    told = client.chat.completions.create(
        model=chat, messages=messages, temperature=0, max_tokens=3, logprobs=True, top_logprobs=2
    ).choices[0].logprobs.content
    assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in told)

    answers = client.chat.completions.create(
        model=chat, messages=messages, n=3, seed=7, temperature=1, max_tokens=8
    )
    again = client.chat.completions.create(
        model=chat, messages=messages, n=3, seed=7, temperature=1, max_tokens=8
    )
    content = [choice.message.content for choice in answers.choices]
    assert content == [choice.message.content for choice in again.choices]

    echo = client.completions.create(
        model=chat, prompt="The miller", echo=True, logprobs=2, max_tokens=4, temperature=0
    ).choices[0]
    assert echo.text.startswith("The miller")
    columns = echo.logprobs
    count = len(columns.tokens)
    assert count == len(columns.token_logprobs) == len(columns.text_offset)
    assert columns.token_logprobs[0] is None
    assert all(p <= 0 for p in columns.token_logprobs[1:])

    texts = ["The miller", "A sailor mends the net"]
    # Without encoding_format, the client asks for base64 and decodes it itself.
    coded = client.embeddings.create(model=embedding, input=texts)
    plain = client.embeddings.create(model=embedding, input=texts, encoding_format="float")
    for one, other in zip(coded.data, plain.data):
        assert len(one.embedding) == len(other.embedding)
        assert max(abs(a - b) for a, b in zip(one.embedding, other.embedding)) < 1e-6
        assert abs(math.hypot(*one.embedding) - 1) < 1e-4
    raw = client.embeddings.create(model=embedding, input=texts[0], encoding_format="base64")
    raw = raw.data[0].embedding
    if isinstance(raw, str):
        values = base64.b64decode(raw)
        raw = struct.unpack(f"<{len(values) // 4}f", values)
    assert max(abs(a - b) for a, b in zip(raw, plain.data[0].embedding)) < 1e-6
    short = client.embeddings.create(model=embedding, input=texts, dimensions=8)
    assert len(short.data[0].embedding) == 8

    refused(openai.NotFoundError, "model", client.chat.completions.create, model="no-such", messages=messages)
    refused(openai.BadRequestError, "temperature", client.chat.completions.create, model=chat, messages=messages, temperature=9)
    refused(openai.BadRequestError, "messages", client.chat.completions.create, model=chat, messages=[])
    refused(openai.BadRequestError, "max_tokens", client.chat.completions.create, model=chat, messages=messages, max_tokens=10**6)
    refused(openai.BadRequestError, "input[0]", client.embeddings.create, model=embedding, input=[10**6])


def refused(kind, param, call, **arguments):
    try:
        call(**arguments)
    except kind as error:
        assert error.param == param, (error.param, param)
        assert error.body["message"], error.body
    else:
        raise AssertionError(f"{kind.__name__} expected for {param}")


def check_langchain(url, key, chat, embedding):
    try:
        from langchain_openai import ChatOpenAI, OpenAIEmbeddings
    except ImportError:
        print("SKIPPED LangChain: the Python package langchain-openai is not installed")
        return
    model = ChatOpenAI(model=chat, base_url=url, api_key=key, temperature=0, max_tokens=8)
    answer = model.invoke("The miller mended a ledger.")
    assert answer.usage_metadata["output_tokens"] > 0
    streamed = "".join(part.content for part in model.stream("The miller mended a ledger."))
    assert streamed == answer.content, (streamed, answer.content)

    # By default LangChain sends the ids of OpenAI's tokenizer, which mean nothing here.
    vectors = OpenAIEmbeddings(
        model=embedding, base_url=url, api_key=key, check_embedding_ctx_length=False
    )
    query = vectors.embed_query("The miller")
    both = vectors.embed_documents(["The miller", "A sailor mends the net"])
    assert len(both) == 2 and len(both[0]) == len(query)
    print("langchain-openai", importlib.metadata.version("langchain-openai"))


def main():
    url, chat, embedding = sys.argv[1:4]
    key = sys.argv[4] if len(sys.argv) > 4 else "none"
    client = openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=60)
    check(client, chat, embedding)
    print("openai", openai.__version__)
    check_langchain(url, key, chat, embedding)


main()
