"""What is measured through each gateway."""

from dataclasses import replace

from bench.figures import CHUNK_RATE, CPU_A_CHUNK, CPU_A_REQUEST, DELAY, FIRST_CHUNK, RATE, Case
from bench.load import Asking

ANSWER_TOKENS = 16
LONG_TOKENS = 1024
TOKENS_PER_SECOND = 50
HELD = Asking(connections=1000, tokens=100_000, stream=True, pace_us=1_000_000, stamped=True)

WHOLE = Asking(connections=1, tokens=ANSWER_TOKENS)
STREAMED = replace(WHOLE, stream=True, stamped=True, pace_us=0)
LONG = replace(STREAMED, tokens=LONG_TOKENS)
PACED = replace(LONG, pace_us=1_000_000 // TOKENS_PER_SECOND)

CASES = [
    *(Case(f"whole answers, {n} at once", replace(WHOLE, connections=n), (RATE, CPU_A_REQUEST)) for n in (1, 32, 128)),
    Case("streamed answers, 1 at once", STREAMED, (RATE, CPU_A_REQUEST, *FIRST_CHUNK)),
    *(
        Case(f"streamed answers, {n} at once", replace(STREAMED, connections=n), (RATE, CPU_A_REQUEST))
        for n in (32, 128)
    ),
    *(Case(f"{n} streams at full speed", replace(LONG, connections=n), (CHUNK_RATE, CPU_A_CHUNK)) for n in (32, 256)),
    Case(
        f"256 streams at {TOKENS_PER_SECOND} tokens/s",
        replace(PACED, connections=256),
        (CHUNK_RATE, replace(CPU_A_CHUNK, name="CPU µs / token"), *DELAY),
    ),
]
