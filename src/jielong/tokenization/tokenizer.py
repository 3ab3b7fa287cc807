"""Text to token ids and back: train a byte-level BPE, or load any Hugging Face tokenizer folder.

The `tokenizers` library does the work. This module adds what training needs: the ids that begin and
end a document, the bytes of text that each token encodes, a stable fingerprint, and a streaming
decoder that never returns part of a character.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from jielong.errors import ConfigError, DataError
from jielong.runtime.atomic import write_file
from jielong.tokenization.batch_encoding import BatchEncoder
from jielong.tokenization.folder import CHAT_TEMPLATE, TokenizerFolder, folder_files, read_folder
from jielong.tokenization.merges import merged_from
from jielong.tokenization.text_pieces import sample, short_runs

PAD, BOS, EOS = "<|endoftext|>", "<|im_start|>", "<|im_end|>"  # ids 0, 1, 2, as MiniMind has them
LEAST_VOCAB_SIZE = 3 + 256


class Tokenizer:
    """A `tokenizers.Tokenizer` and the ids that begin (bos), end (eos) and pad a document."""

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        config: dict[str, Any],
        ids: dict[str, int | None],
        files: dict[str, str] | None = None,
    ) -> None:
        backend.no_padding()  # saved settings that must not alter training text
        backend.no_truncation()
        self._backend = backend
        self._config = config
        self._files = files or {}
        self.bos_id, self.eos_id, self.pad_id = ids["bos"], ids["eos"], ids["pad"]
        self.vocab_size: int = max(backend.get_vocab(with_added_tokens=True).values()) + 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it be sent to another process; what it has cached is made anew there."""
        return Tokenizer, (self._backend, self._config, self.special_ids, self._files)

    @classmethod
    def load(
        cls, path: str | Path, bos_token: str | None = None, eos_token: str | None = None
    ) -> Tokenizer:
        """Load the tokenizer from a Hugging Face folder that has `tokenizer.json`.

        Args:
            path: the folder, its `tokenizer.json`, or a run or dataset with a tokenizer.
            bos_token, eos_token: tokens of the vocabulary to take instead of the declared ones.

        Raises:
            ConfigError: `bos_token` or `eos_token` is not in the vocabulary.
            DataError: the folder or file is missing, or is not a tokenizer.
        """
        found = read_folder(path, {"bos": bos_token, "eos": eos_token})
        return cls(found.backend, found.config, found.ids, found.files)

    def save(self, folder: str | Path, model_max_length: int | None = None) -> None:
        """Write a folder of which `load` and transformers' `AutoTokenizer` give the same ids."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        saved = TokenizerFolder(self._backend, self._config, self.special_ids, self._files)
        for name, text in folder_files(saved, model_max_length).items():
            write_file(folder / name, text.encode())

    @property
    def chat_template(self) -> str | None:
        """The template that writes a conversation as text (Jinja), if the folder has one."""
        template = self._files.get(CHAT_TEMPLATE) or self._config.get("chat_template")
        if isinstance(template, list):  # named ones, of older folders
            named = {each.get("name"): each.get("template") for each in template}
            template = named.get("default")
        return template if isinstance(template, str) else None

    @property
    def special_ids(self) -> dict[str, int | None]:
        return {"bos": self.bos_id, "eos": self.eos_id, "pad": self.pad_id}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer's canonical JSON; equal fingerprints mean equal encodings."""
        canonical = json.dumps(json.loads(self._backend.to_str()), sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Return the token ids of `text`; no bos or eos is added.

        With `special`, names such as `<|im_end|>` in the text become special tokens; otherwise they
        are encoded like any other characters.

        Raises:
            DataError: the text contains a lone surrogate, which UTF-8 cannot encode.
        """
        backend = self._backend if special else self._literal_backend
        try:
            return backend.encode(text, add_special_tokens=False).ids
        except (TypeError, UnicodeEncodeError):
            raise DataError("the text is not valid Unicode (a lone surrogate): remove it") from None

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the token ids of each text, uint32, using all cores; no bos or eos is added."""
        flat, lengths = self.encode_flat(texts)
        return np.split(flat, np.cumsum(lengths)[:-1]) if len(texts) else []

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encode all texts into one array: return (tokens,) uint32 and (texts,) int64 lengths."""
        return self._batch_encoder.encode(texts)

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """Return the text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def stream(self, skip_special: bool = False) -> StreamDecoder:
        """Return a decoder that takes ids one by one and returns text as soon as it is complete."""
        return StreamDecoder(self, skip_special)

    def token_bytes(self) -> np.ndarray:
        """Return (vocab_size,) int64, the UTF-8 bytes each token encodes; 0 for special tokens.

        If the tokenizer is not byte-level, SentencePiece's spelling (`▁`, `<0x0A>`) is assumed.
        """
        count = np.zeros(self.vocab_size, dtype=np.int64)
        for i, piece in self._pieces.items():
            count[i] = 0 if i in self.special_tokens else len(piece)
        return count

    def piece(self, token_id: int) -> bytes:
        """Return the bytes of text that an id encodes, of a special token its name.

        An id without a token, as a model with a padded vocabulary has, gives nothing.
        """
        return self._pieces.get(int(token_id), b"")

    def texts(self, vocab_size: int) -> list[bytes]:
        """Return the bytes that each of `vocab_size` ids encodes; none for special tokens."""
        return [b"" if i in self.special_tokens else self.piece(i) for i in range(vocab_size)]

    def merged_from(self) -> np.ndarray:
        """Return (vocab_size, 2) int64, the tokens that each was merged from; -1 if it was not."""
        return merged_from(self._backend.to_str(), self._pieces, self.vocab_size)

    @cached_property
    def special_tokens(self) -> frozenset[int]:
        """The ids of all special tokens, including bos, eos and pad."""
        added = self._backend.get_added_tokens_decoder()
        special = {i for i, token in added.items() if token.special}
        return frozenset(special | {i for i in self.special_ids.values() if i is not None})

    @property
    def is_byte_level(self) -> bool:
        return self._batch_encoder.is_byte_level

    @property
    def is_our_kind(self) -> bool:
        """Whether it is a tokenizer as `train_tokenizer` makes them."""
        parts = json.loads(self._backend.to_str())
        splitting = parts["pre_tokenizer"] or {}
        names = [self._backend.id_to_token(i) for i in range(3)]
        plain = parts["normalizer"] is None and parts["model"]["type"] == "BPE"
        return plain and splitting.get("type") == "ByteLevel" and names == [PAD, BOS, EOS]

    @cached_property
    def _batch_encoder(self) -> BatchEncoder:
        return BatchEncoder(self._backend)

    @cached_property
    def _literal_backend(self) -> tokenizers.Tokenizer:
        # a copy: the switch is part of the object, which other threads may be using
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.encode_special_tokens = True
        return backend

    @cached_property
    def _pieces(self) -> dict[int, bytes]:
        """The bytes of text that each id encodes."""
        added = self._backend.get_added_tokens_decoder()
        table = _byte_of_char()
        pieces: dict[int, bytes] = {}
        for token, i in self._backend.get_vocab(with_added_tokens=True).items():
            if i in added:
                pieces[i] = token.encode()
            elif self.is_byte_level and all(char in table for char in token):
                pieces[i] = bytes(table[char] for char in token)
            elif byte := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token):
                pieces[i] = bytes.fromhex(byte[1])
            else:
                pieces[i] = token.replace("▁", " ").removeprefix("##").encode()
        return pieces


class StreamDecoder:
    """Decodes ids one by one; the results of `push` and `flush`, joined, are those of `decode`."""

    def __init__(self, tokenizer: Tokenizer, skip_special: bool) -> None:
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._ids: list[int] = []  # if tokens are not bytes: the ids since the last safe point,
        self._shown = ""  # and the part of their text that was already returned

    def push(self, token_id: int) -> str:
        """Return the text that this token completes: possibly none, never part of a character."""
        tokenizer = self._tokenizer
        if self._skip_special and token_id in tokenizer.special_tokens:
            return ""
        if tokenizer.is_byte_level:
            return self._utf8.decode(tokenizer._pieces.get(token_id, b""))
        self._ids.append(int(token_id))
        tails: dict[int, str] = {}  # by number of ids: one of 4 tails begins at a character
        if len(self._ids) > 32:  # decoding all of them each time would take quadratic time
            tails = {count: tokenizer.decode(self._ids[-count:]) for count in range(8, 12)}
            if all(tail.endswith("\ufffd") for tail in tails.values()):
                return ""
        text = tokenizer.decode(self._ids)
        if text.endswith("\ufffd"):  # an incomplete character, or invalid bytes
            return ""
        fresh = text[len(self._shown) :]
        self._shown = text
        for count, tail in tails.items():  # keep a few ids, since spacing depends on them
            if text.endswith(tail):  # otherwise the tail begins inside a character
                self._ids, self._shown = self._ids[-count:], tail
                break
        return fresh

    def flush(self) -> str:
        """Return what is left at the end: an incomplete character, as U+FFFD."""
        if self._tokenizer.is_byte_level:
            return self._utf8.decode(b"", final=True)
        rest = self._tokenizer.decode(self._ids)[len(self._shown) :]
        self._ids, self._shown = [], ""
        return rest


def train_tokenizer(documents: Iterable[str], vocab_size: int, sample_bytes: int) -> Tokenizer:
    """Train a byte-level BPE (Sennrich et al. 2016) of at most `vocab_size` tokens.

    Bytes are spelled as in GPT-2. Any text round-trips, since all 256 bytes are tokens. Training
    uses a sample of at most `sample_bytes` of UTF-8, spread evenly over the documents, so memory is
    bounded. The same documents give the same tokenizer. If the text has too few repeated pairs, the
    vocabulary is smaller than `vocab_size`: see that attribute of the result.

    Raises:
        ConfigError: `vocab_size` leaves no room for the special tokens and the bytes.
        DataError: there is no text.
    """
    if vocab_size < LEAST_VOCAB_SIZE:
        raise ConfigError(
            f"model.vocab_size={vocab_size} is too small: 3 special tokens and 256 bytes "
            f"need at least {LEAST_VOCAB_SIZE}"
        )
    texts = sample(documents, sample_bytes)
    if not texts:
        raise DataError("no text to train a tokenizer on: check --data-path and --text-field")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((p for text in texts for p in short_runs(text)), trainer)
    return Tokenizer(backend, {}, {"pad": 0, "bos": 1, "eos": 2})


def _byte_of_char() -> dict[str, int]:
    """Return GPT-2's spelling of bytes: printable ones as themselves, others from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
