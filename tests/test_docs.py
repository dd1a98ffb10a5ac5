"""The documents that are generated are up to date."""

from support import gguf_keys


def test_the_list_of_keys_is_up_to_date() -> None:
    written = gguf_keys.DOCUMENT.read_text(encoding="utf-8")
    assert written == gguf_keys.document(), "python tests/support/gguf_keys.py"
