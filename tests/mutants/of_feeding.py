"""Faults in how a prompt is read, what is kept of it, and where a text goes on."""

from __future__ import annotations

from .mutant import Mutant, fed
from .places import PROMPT, TRANSFORMER

EVERY = fed("test_every_token_of_a_prompt_is_read_where_it_stands")
LOST = fed("test_what_was_not_read_before_a_failure_is_read_after_it")
SIZES = tuple(
    f"tests/kernels/test_prompt.py::{name}"
    for name in ("test_sizes", "test_every_position_once_and_none_beyond_the_room")
)

MUTANTS = (
    Mutant(
        "a cached prefix is one token too long",
        TRANSFORMER,
        "return sum(1 for _ in same)",
        "return min(len(tokens) - 1, 1 + sum(1 for _ in same))",
        fed("test_a_prompt_shares_what_was_read_before_it"),
    ),
    Mutant(
        "a cached prefix is one token too short",
        TRANSFORMER,
        "return sum(1 for _ in same)",
        "return max(0, sum(1 for _ in same) - 1)",
        fed("test_the_last_token_of_a_prompt_is_read_again"),
    ),
    Mutant(
        "the last token of a prompt counts as kept",
        TRANSFORMER,
        "zip(tokens[:-1], self._cached_tokens",
        "zip(tokens, self._cached_tokens",
        fed("test_the_last_token_of_a_prompt_is_read_again"),
    ),
    Mutant(
        "the padding of a chunk is kept as cached",
        TRANSFORMER,
        "self._cached_tokens = tokens[: at + len(ids)]",
        "self._cached_tokens = tokens[:at] + ids + [0] * (size - len(ids))",
        LOST,
    ),
    Mutant(
        "a chunk's padding counts as the prompt's next tokens",
        TRANSFORMER,
        "self._cached_tokens = tokens[: at + len(ids)]",
        "self._cached_tokens = tokens[: at + size]",
        LOST,
    ),
    Mutant(
        "a token counts as kept before it is read",
        TRANSFORMER,
        "    self._cached_tokens = list(known)\n                known.append(token)",
        "    self._cached_tokens = [*known, token]\n                known.append(token)",
        fed("test_what_was_generated_is_read_but_the_last_of_it"),
    ),
    Mutant(
        "a text goes on over caches that another one has overwritten",
        TRANSFORMER,
        "if self._reader is not reader:",
        "if False:",
        fed("test_texts_that_are_generated_in_turn_do_not_mix"),
    ),
    Mutant(
        "a text counts as kept what another one has overwritten",
        TRANSFORMER,
        "if self._reader is reader:",
        "if True:",
        fed("test_texts_that_are_generated_in_turn_do_not_mix"),
    ),
    Mutant(
        "logits note no tokens",
        TRANSFORMER,
        "        self._cached_tokens = list(tokens)\n        return found",
        "        return found",
        fed("test_a_prompt_shares_what_was_read_before_it"),
    ),
    Mutant(
        "nothing is forgotten",
        TRANSFORMER,
        "        self._cached_tokens = []\n",
        "        pass\n",
        fed("test_what_is_forgotten_is_read_again"),
    ),
    Mutant(
        "the position after a prompt is one too far",
        TRANSFORMER,
        "        return end\n",
        "        return min(end + 1, self.max_context - 1)\n",
        EVERY,
    ),
    Mutant(
        "the last chunk lacks its last token",
        TRANSFORMER,
        "tokens[at : min(at + size, end)]",
        "tokens[at : min(at + size, end - 1)]",
        EVERY,
    ),
    Mutant(
        "a chunk begins where it ends",
        TRANSFORMER,
        "(padded, self.program.bound(at))",
        "(padded, self.program.bound(min(at + size, self.max_context - size)))",
        EVERY,
    ),
    Mutant(
        "a prompt's last token is read twice",
        TRANSFORMER,
        "self.get_start_pos(tokens), len(tokens) - 1",
        "self.get_start_pos(tokens), min(len(tokens), self.max_context - 1)",
        EVERY,
    ),
    Mutant(
        "logits are of the prompt's first token",
        TRANSFORMER,
        "self._logits(self._ids(tokens[-1:])",
        "self._logits(self._ids(tokens[:1])",
        EVERY,
    ),
    Mutant(
        "a text begins with the prompt's first token",
        TRANSFORMER,
        "        return self._ids(tokens[-1:])",
        "        return self._ids(tokens[:1])",
        EVERY,
    ),
    Mutant(
        "read one by one, a prompt is read from its beginning plus one",
        TRANSFORMER,
        "[(position, 1) for position in range(start_pos, end)]",
        "[(position, 1) for position in range(start_pos + 1, end)]",
        EVERY,
    ),
    Mutant(
        "the history is one position ahead",
        TRANSFORMER,
        "in history[start_pos",
        "in np.roll(history, 1)[start_pos",
        EVERY,
    ),
    Mutant(
        "tokens ahead go beyond the context",
        TRANSFORMER,
        "count = min(count, self.max_context - start_pos)",
        "count = count",
        fed("test_a_text_fills_the_context_to_its_end"),
    ),
    Mutant(
        "a text ends one token before the context",
        TRANSFORMER,
        "while len(known) <= self.max_context:",
        "while len(known) < self.max_context:",
        EVERY,
    ),
    Mutant("chunks are read beyond the room", PROMPT, "start + m <= room", "start <= room", SIZES),
    Mutant("a chunk is read for one token fewer", PROMPT, "m // 2 + 1", "m // 2", SIZES),
    Mutant("a prompt is read one token too far", PROMPT, "while start < end:", "while start <= end:", SIZES),
    Mutant("chunks overlap by a token", PROMPT, "start += size", "start += max(1, size - 1)", SIZES),
)
