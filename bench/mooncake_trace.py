#!/usr/bin/env python3
"""Writes mooncake-small.jsonl: a trace in the format of Mooncake's, of lengths that a context of 1,024 tokens holds.

    python bench/mooncake_trace.py > bench/traces/mooncake-small.jsonl

It is made up, not recorded: Mooncake's own traces ask for thousands of tokens, which the bundled models do not hold.
Sixty requests in half a minute, half of them in conversations or about documents whose first 512 tokens others have
too, the rest with prompts of their own. Equal hash_ids are equal blocks of 512 tokens, as in the original.
"""

import json
import random

REQUESTS = 60
BLOCK = 512
SHARED = 5  # documents that several ask about

rng = random.Random(20261201)
moment = 0.0
fresh = SHARED
for _ in range(REQUESTS):
    moment += rng.expovariate(2.0) * 1000
    if rng.random() < 0.5:
        first, length = rng.randrange(SHARED), BLOCK + rng.randrange(16, 256)
        ids = [first, fresh]
        fresh += 1
    else:
        length = rng.randrange(32, 384)
        ids = [fresh]
        fresh += 1
    print(json.dumps({
        "timestamp": round(moment), "input_length": length, "output_length": rng.randrange(16, 96), "hash_ids": ids,
    }))
