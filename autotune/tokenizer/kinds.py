"""The kinds of tokens in tokenizer.ggml.token_type: gguf.TokenType's values."""

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

CUT_OUT = frozenset({UNKNOWN, CONTROL, USER})  # the text of such a token in a prompt is read as the token
SAID = frozenset({NORMAL, USER, BYTE})  # tokens of all other kinds have no text
