"""The kinds of tokens in tokenizer.ggml.token_type: gguf.TokenType's values."""

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

CUT_OUT = frozenset({UNKNOWN, CONTROL, USER})  # written out in a prompt, such a token is itself
SAID = frozenset({NORMAL, USER, BYTE})  # any other token stands for no text
