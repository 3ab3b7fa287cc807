"""Lines of JSONL without a text that could be learnt."""

BAD = [
    b'{"text": "cut',
    b'{"text": "a" "score": NaN}',
    b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"text": "\xff\xfe"}',
    b'{"text": "\\ud800"}',
    b'{"text": ""}',
    b'{"text": null}',
    b'{"no": "text"}',
    b"\x00\x00\x00",
    b"{'text': 'a'}",
    b"-" * 10_000,
]
