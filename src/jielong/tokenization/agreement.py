"""Whether transformers' AutoTokenizer gives the ids of a saved tokenizer."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jielong.tokenization.tokenizer import Tokenizer

# texts on which tokenizers differ: spaces, digits, case, accents, scripts, controls, odd bytes
HARD_TEXTS = (
    "",
    " ",
    "a  b   c\t\td \n\n\n e\r\nf",
    " leading and trailing ",
    "I'll they've don't WE'RE it's 'Tis",
    "1 12 123 1234 12345.678,90 ١٢٣ ½ Ⅷ",
    "Hello,world!?... -- [x](y) {z} #tag @me a_b c++ <b>&amp;</b>",
    "naïve café e\u0301 Å ﬁ ＡＢＣ ①",
    "ÀÉÎ ßſK İı ǅ ΑΣ ПРИВЕТ",
    "床前明月光，疑是地上霜。漢字かなカナ한국어",
    "مرحبا שלום नमस्ते ไทย",
    "🙂👨‍👩‍👧🏳️‍🌈 \u200b\u00a0\u3000\u2028\ufeff",
    "\x00\x01\x7f\x85\ufffd",
    "▁word ▁▁ <0x0A> Ġword ##word [UNK] <s> </s> <unk> <pad>",
    "Supercalifragilisticexpialidocious" * 3,
    "def f(x):\n    return x ** 2  # comment\n",
)


def disagreement(
    folder: Path, tokenizer: Tokenizer, texts: Sequence[str] = HARD_TEXTS
) -> str | None:
    """Compare transformers' ids of each text with ours.

    Args:
        folder: a folder in which the tokenizer was saved.

    Returns:
        What differs; None if nothing does, or if transformers is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        return None
    import transformers

    version = f"transformers {transformers.__version__}"
    try:
        theirs = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # of many kinds: whatever its classes raise
        return f"{version} cannot load the tokenizer ({' '.join(str(error).split())[:200]})"
    names = [tokenizer.decode([i]) for i in sorted(tokenizer.special_tokens)]
    for text in [*texts, *(f"a {name} b{name}" for name in names)]:
        given = theirs(text, add_special_tokens=False)["input_ids"]
        expected = tokenizer.encode(text)
        if given != expected:
            return f"{version} splits {text[:40]!r} into {given[:8]} …, not {expected[:8]} …"
    for role, token_id in tokenizer.special_ids.items():
        given = getattr(theirs, f"{role}_token_id")
        if given != token_id:
            return f"{version} has {role} {given}, not {token_id}"
    return None


def disagreement_when_saved(
    tokenizer: Tokenizer, model_type: str, texts: Sequence[str] = ()
) -> str | None:
    """Return what would differ in a model folder with this tokenizer, as `disagreement` does.

    Args:
        model_type: that of the model's config.json, by which transformers may choose its class.
        texts: a sample of the corpus, beside `HARD_TEXTS`.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save(folder)
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        return disagreement(folder, tokenizer, [*HARD_TEXTS, *texts])
