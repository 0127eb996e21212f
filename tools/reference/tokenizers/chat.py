"""Chat templates with the features of the well-known ones, and what transformers renders.

The templates are written for this purpose: ChatML with tools and reasoning as Qwen has it, the
header form with dates of Llama 3, the bracket form with alternating roles of Mistral, and one that
exercises what Jinja takes from Python.
"""

from datetime import datetime, timezone

from transformers.utils import chat_template_utils

CHATML = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}
        {{- messages[0].content + '\\n\\n' }}
    {%- endif %}
    {{- "# Tools\\n\\nCall one or more of these:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or reasoning) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}{{- content }}{{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

HEADERS = """\
{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Today: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {%- generation %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
        {%- endgeneration %}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

BRACKETS = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""

# A line of text follows each block, so that trimming shows.
PYTHON = """\
{% for message in messages %}
  {% if message.role == 'skip' %}
    {% continue %}
  {% elif message.role == 'stop' %}
    {% break %}
  {% endif %}
[{{ loop.index }}/{{ loop.length }} {{ loop.first }} {{ loop.last }} {{ loop.cycle('odd', 'even') }}]
{{ message.content }}
{% endfor %}
{% macro entry(name, value=none, sep=': ') %}
{{ name }}{{ sep }}{{ value }};
{%- endmacro %}
{{ entry('a') }}{{ entry('b', 1.5) }}{{ entry('c', value=[1, 'x', true, none], sep=' = ') }}
{{ 'Title case'.title() }} {{ 'x'.upper() }} {{ '  pad '.strip() }}| {{ 'a,b,,c'.split(',') }}
{{ 'a-b-c'.replace('-', '+') }} {{ 'abc'[::-1] }} {{ 'abc'[1:] }} {{ 'abc'[-1] }} {{ [1, 2, 3][-2:] }}
{{ {'k': 'v', 'n': {'m': [1, 2.0, 1e20]}} }} {{ ['it\\'s', "q\\"", 'n\\n'] }}
{{ messages | map(attribute='role') | join(', ') }} {{ messages | length }} {{ [3, 1, 2] | sort }}
{{ [true, none, 1, 0.1] | join('/') }} {{ none }} {{ true }} {{ undefined_name }} {{ 7 // 2 }} {{ 7 / 2 }} {{ 2 ** 10 }} {{ 7 % 4 }}
{{ {'b': 1, 'a': '<&>"\\'\\u00e9\\u4e2d\U0001f600\\n\\t\\x7f'} | tojson }} {{ [] | tojson }} {{ {} | tojson(indent=2) }}
{{ {'b': [1, {'c': none}], 'a': true} | tojson(indent=2) }} {{ {'b': 1, 'a': 1.0} | tojson(sort_keys=true) }}
{{ [1, 2] | tojson(separators=(',', ':')) }} {{ '\\u00e9' | tojson(ensure_ascii=true) }}
{{ 'yes' if 'a' in 'abc' and 2 in [1, 2] and 'k' in {'k': 1} else 'no' }} {{ 'x' ~ 1 ~ 'y' }} {{ "%s" | string }}
{{ messages[0].get('role', 'none') }} {{ messages[0].get('nope', 'none') }} {{ messages[0].keys() | list }}
{% set ns = namespace(found=false, items=[]) %}
{% for i in range(3) %}{% set ns.found = ns.found or i == 2 %}{% set ns.items = ns.items + [i] %}{% endfor %}
{{ ns.found }} {{ ns.items }}
{# a comment #}
{% raw %}{{ raw }}{% endraw %}
  indented {%- if true %} tight {% endif -%}   end
{% filter upper %}filtered{% endfilter %}
{% set block %}captured {{ 1 }}{% endset %}{{ block | trim }}
{{ 'default' | default('x') }} {{ missing | default('fallback') }} {{ '' | default('empty', true) }}
{{ 'abc' is string }} {{ 1 is number }} {{ [] is iterable }} {{ {} is mapping }} {{ none is none }} {{ 'x' is defined }} {{ y is defined }}
{{ 'a b c'.split() | first }} {{ 'a b c'.split() | last }} {{ 'find'.find('n') }} {{ 'aXbX'.count('X') }} {{ 'end'.endswith('nd') }}
"""

# One by one, what templates in the wild ask of Jinja and Python.
EXPRESSIONS = [
    "{{ 'x' ~ none ~ true ~ 1.0 }}",
    "{{ '%s' | format('a') }}",
    "{{ '{} {}'.format('a', 1) }}",
    "{{ 1 == true }} {{ 'a' == 'a' }} {{ none == false }} {{ [] == [] }}",
    "{{ 'a' 'b' }}",
    "{{ d | items | list }} {{ d.items() | list }} {{ d | dictsort }} {{ d | length }}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }}{% endfor %}",
    "{{ l | selectattr('a', 'in', [1, 2]) | list | length }}",
    "{{ l | rejectattr('a', 'equalto', 1) | map(attribute='a') | list }}",
    "{{ l | map('string') | list }}",
    "{{ (l | selectattr('a') | first).a }} {{ l | sum(attribute='a') }}",
    "{{ 3 in [1, 2] }} {{ 3 not in [1, 2] }} {{ 'b' in 'abc' }} {{ 'z' in d }}",
    "{{ x is sameas true }} {{ true is sameas true }} {{ 4 is even }} {{ 4 is divisibleby 2 }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a = [1] + [2] %}{{ a }} {{ a[0] }} {{ a[-1] }} {{ a | last }} {{ a | reverse | list }}",
    "{% macro m(x) %}[{{ x }}{{ caller() }}]{% endmacro %}{% call m(1) %}in{% endcall %}",
    "{% macro m(x, y=2) -%} {{ x }}{{ y }} {%- endmacro %}{{ m(1) }}{{ m(1, y=3) }}",
    "{{ '\\n'.join(['a', 'b']) }} {{ ', '.join(d.keys()) }}",
    "{{ 'a\\nb'.splitlines() }} {{ 'abc'.index('b') }}",
    "{{ 'a' if false }}|{{ 'a' if false else '' }}",
    "{{ missing }} {{ missing is defined }} {{ missing is none }} {{ missing | length }}",
    "{{ missing.attribute }}",
    "{{ d.missing }} {{ d['missing'] is defined }} {{ d.get('missing') }}",
    "{{ none.attribute }}",
    "{{ l[9] is defined }} {{ l[9] }}",
    "{{ 'ABC'.lower() }} {{ 'abc'.capitalize() }} {{ 'a'.isalpha() }}",
    "{{ 'x'.lstrip('x') }}{{ 'xax'.rstrip('x') }}{{ 'a,b'.partition(',') }}",
    "{{ 'a b c'.split(' ', 1) }} {{ 'a b'.split(' ')[0] }} {{ 'abab'.replace('a', 'x', 1) }}",
    "{{ 'abc'.startswith(('a', 'x')) }} {{ 'a-b'.rsplit('-', 1) }} {{ 'abc'.removeprefix('a') }}",
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 3 }} {{ 1 / 2 }} {{ 4 / 2 }} {{ 1e3 }} {{ 10 ** 20 }}",
    "{{ 3.7 | int }} {{ '12' | int + 1 }} {{ 3 | float }} {{ 2.567 | round(2) }} {{ 2.5 | round }} {{ 5 | abs }}",
    "{{ [1, 2, 3, 4][1:3] }} {{ 'hello'[1:-1] }} {{ [1, 2, 3][::2] }} {{ [1, 2, 3][::-1] }}",
    "{{ [3, 1, 2] | sort(reverse=true) }} {{ ['b', 'A'] | sort }} {{ [1, 1, 2] | unique | list }} {{ [1, 2] | max }}",
    "{{ ' a ' | trim }}|{{ 'abc' | upper }} {{ 'ABC' | lower }} {{ 'a b' | title }} {{ 'a' | capitalize }}",
    "{{ 'line1\\nline2' | indent(2) }} {{ 'line1\\nline2' | indent(2, true) }}",
    "{{ 'abc' | replace('b', 'x') }} {{ 'abc' | length }} {{ 'abc' | first }} {{ 'abc' | list }}",
    "{{ '<a>' | escape }} {{ '<a>' | e }} {{ '<a>' | safe }}",
    "{{ [1, [2, 3]] | tojson }} {{ 'a' | tojson }} {{ none | tojson }} {{ 1.0 | tojson }} {{ 1e-7 | tojson }}",
    "{{ d | tojson(indent=4) }} {{ d | tojson(separators=(',', ': ')) }}",
    "{% for x in [1, 2, 3] if x != 2 %}{{ loop.index }}{{ x }}{% else %}none{% endfor %}",
    "{% for x in [] %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in [1, 2] %}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.revindex }}{{ loop.depth }}{% endfor %}",
    "{% for x in 'ab' %}{{ loop.changed(x) }}{% endfor %}",
    "{% for a in [1, 2] %}{% set outer = loop.index %}{% for b in [1, 2] %}{{ outer }}{{ b }}{% endfor %}{% endfor %}",
    "{% with a = 1 %}{{ a }}{% endwith %}{{ a is defined }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}{% for i in [1] %}{% set x = 3 %}{% endfor %}{{ x }}",
    "{% set ns = namespace(a=1) %}{% for i in [1, 2] %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}",
    "{{ range(3) | list }} {{ range(1, 6, 2) | list }} {{ dict(a=1) }} {{ {'a': 1}['a'] }}",
    "{{ d is mapping }} {{ l is sequence }} {{ 'a' is sequence }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is boolean }}",
    "{{ none is iterable }} {{ 'a' is iterable }} {{ d is iterable }} {{ x is callable }} {{ range is callable }} {{ 'a' is lower }}",
    "{%- if not d.a is string and d.b %}yes{% endif -%}",
    "{{ (d.a, d.b) }} {{ (1,) }} {{ () }}",
    "{{ {'q': '\"', 'b': '\\\\', 'n': none, 't': true} }} {{ [1.5, -0.0, 1e16] }}",
    "a {#- comment -#} b {% if true -%} c {%- endif %} d\n  {% if true %}\n  e\n  {% endif %}\nf",
    "{{- 'x' -}}   y   {{+ 'z' }}",
    "{% block body %}in a block{% endblock %}",
    "{{ '\\u00e9\\x41\\t|' }} {{ \"it's\" }} {{ 'quote\\'s' }}",
    "{{ 5 > 3 > 1 }} {{ 1 < 2 }} {{ 'a' < 'b' }} {{ not true }} {{ true and 'x' }} {{ '' or 'y' }}",
    "{{ d.update({'c': 1}) }}",
    "{{ l.append(1) }}",
    "{{ 'x' | default }} {{ missing | default('d') }} {{ none | default('d') }} {{ none | default('d', true) }}",
    "{{ [[1, 2], [3]] | sum(start=[]) }}",
    "{{ ['x', 'y'] | batch(1) | list }}",
    "{{ [{'n': 'b', 'v': 1}, {'n': 'a', 'v': 2}] | sort(attribute='n') | map(attribute='v') | join }}",
    "{{ [{'g': 1, 'v': 1}, {'g': 1, 'v': 2}] | groupby('g') | length }}",
    "{{ 100000000000000000000 }} {{ 9007199254740993 }} {{ 0.1 + 0.2 }} {{ 1_000 }}",
    "{{ undefined_function() }}",
    "{% include 'other' %}",
]

TEMPLATES = {"chatml": CHATML, "headers": HEADERS, "brackets": BRACKETS, "python": PYTHON}

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather at a place: \"sun\" & <rain>, 10\u00b0\u2013 30\u00b0.",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "enum": ["K\u00f6ln", "\u6771\u4eac"]},
                "days": {"type": "integer", "default": 1.0, "minimum": 1e-7},
            },
            "required": ["place"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "time", "parameters": {}, "strict": True}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def call(name, arguments, id="abc123def"):
    function = {"name": name, "arguments": arguments}
    return {"type": "function", "id": id, "function": function}


CONVERSATIONS = {
    "one": [user("Hi")],
    "system": [system("  Be brief. "), user("Hi")],
    "turns": [
        system("Be brief."),
        user("Say \"hi\" & <b>bye</b>"),
        assistant("  hi \u00e9\u4e2d\U0001f600 "),
        user("Again\n\nplease"),
    ],
    "thinking": [
        user("2+2?"),
        assistant("<think>\nTwo and two.\n</think>\n\n4"),
        user("3+3?"),
        assistant("<think>\nhm\n</think>\n\n6"),
    ],
    "reasoning": [user("2+2?"), assistant("4", reasoning_content="\nsum\n")],
    "tools": [
        user("Weather in K\u00f6ln?"),
        assistant("", tool_calls=[call("get_weather", {"place": "K\u00f6ln", "days": 2})]),
        {"role": "tool", "content": "{\"sun\": true}", "tool_call_id": "abc123def"},
        assistant("Sunny."),
        user("And Tokyo?"),
    ],
    "two calls": [
        user("Both"),
        assistant(
            "Looking.",
            tool_calls=[call("get_weather", {"place": "A"}), call("time", {"z": [1.5, None]})],
        ),
        {"role": "tool", "content": "a", "tool_call_id": "abc123def"},
        {"role": "tool", "content": "b", "tool_call_id": "abc123def"},
    ],
    "not alternating": [user("a"), user("b")],
    "parts": [user([{"type": "text", "text": "in parts"}])],
    "control": [user("a"), {"role": "skip", "content": "b"}, user("c"), {"role": "stop"}, user("d")],
}

# 2024-02-29 12:00 UTC.
NOW = 1_709_208_000


class Clock(datetime):
    """The clock of the goldens stands still."""

    @classmethod
    def now(cls, tz=None):
        return datetime.fromtimestamp(NOW, timezone.utc)


def render(template, **context):
    chat_template_utils.datetime = Clock
    compiled = chat_template_utils._compile_jinja_template(template)
    try:
        return {"want": compiled.render(**context)}
    except Exception as error:  # the class is jinja's or Python's own, as the template fails
        return {"error": str(error)}


def goldens():
    cases = []
    for name, template in TEMPLATES.items():
        for title, messages in CONVERSATIONS.items():
            variants = [{}]
            if name != "python":
                variants = [{"add_generation_prompt": True}, {"tools": [WEATHER, TIME]}]
            if name == "chatml":
                variants.append({"add_generation_prompt": True, "enable_thinking": False})
            for variant in variants:
                context = {
                    "messages": messages,
                    "tools": None,
                    "documents": None,
                    "add_generation_prompt": False,
                    **variant,
                }
                result = render(template, bos_token="<s>", eos_token="</s>", **context)
                cases.append({"template": name, "title": title, "variant": variant} | result)
    values = {"d": {"b": 1, "a": "x"}, "l": [{"a": 1}, {"a": 2}, {"a": 0}], "x": "text"}
    expressions = [{"source": source} | render(source, **values) for source in EXPRESSIONS]
    return {
        "values": values,
        "expressions": expressions,
        "now": NOW,
        "templates": TEMPLATES,
        "conversations": CONVERSATIONS,
        "cases": cases,
    }
