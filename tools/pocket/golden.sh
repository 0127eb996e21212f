#!/bin/sh
# Writes models/golden.json: what the bundled models must say to fixed texts, which a test compares.
# Run it after the models have changed, with a bursar that was built with them.
#
#     tools/pocket/golden.sh target/release/bursar
set -eu
bursar=$(realpath "$1")
cd "$(dirname "$0")/../../models"
prompt='/// Returns the number of elements in the'
embedded='pub fn len(&self) -> usize { self.entries.len() }'
answer=$("$bursar" run pocket-chat.gguf "$prompt" --raw --temperature 0 --max-tokens 24 --json)
vector=$(printf '%s\n' "$embedded" | "$bursar" embed pocket-embed.gguf -)
python3 - "$prompt" "$embedded" "$answer" "$vector" > golden.json <<'PYTHON'
import json, sys
prompt, embedded, answer, vector = sys.argv[1:]
golden = {
    "prompt": prompt,
    "text": json.loads(answer)["text"],
    "embedded": embedded,
    "vector": json.loads(vector)["embedding"][:8],
}
print(json.dumps(golden, indent=1, ensure_ascii=False))
PYTHON
