"""The files of a Hugging Face tokenizer folder: reading any, and writing one.

What is written makes transformers load `tokenizer.json` as it stands. Other classes than the
general one rebuild parts of the tokenizer by their own rules (transformers 5), and other settings
can add tokens or change how text is split; the ids would then differ from those of training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from jielong.errors import ConfigError, DataError

MOST_IDS = 2**24  # more than any tokenizer has; a larger id would need a huge embedding
ROLES = ("bos", "eos", "pad")
FILE = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
GENERAL_CLASS = "PreTrainedTokenizerFast"  # the class of transformers 4 and 5 that rebuilds nothing
NAMED = ("unk_token", "sep_token", "cls_token", "mask_token")  # beside those of ROLES
LISTED = ("additional_special_tokens", "extra_special_tokens")  # of transformers 4, and of 5
KEPT = (  # settings of tokenizer_config.json that do not change the ids of a text
    "model_max_length",
    "padding_side",
    "truncation_side",
    "model_input_names",
    "clean_up_tokenization_spaces",
    "add_bos_token",
    "add_eos_token",
    "chat_template",
)
# files of a tokenizer in another form → the class of transformers that converts its folder, and the
# packages that this needs
OTHER_FORMS = {
    "tokenizer.model": ("AutoTokenizer", "sentencepiece and protobuf"),
    "spiece.model": ("AutoTokenizer", "sentencepiece and protobuf"),
    "vocab.json": ("GPT2TokenizerFast", ""),
    "vocab.txt": ("BertTokenizerFast", ""),
    "tekken.json": ("AutoTokenizer", "mistral-common"),
}


@dataclass(frozen=True)
class TokenizerFolder:
    """What a folder holds: the tokenizer, its settings, special tokens and further files."""

    backend: tokenizers.Tokenizer
    config: dict[str, Any]
    ids: dict[str, int | None]  # of bos, eos and pad
    files: dict[str, str]


def read_folder(path: str | Path, named: Mapping[str, str | None] | None = None) -> TokenizerFolder:
    """Read a tokenizer folder, or its `tokenizer.json`.

    Args:
        named: content of the special token of a role (bos, eos, pad), instead of the declared one.

    Raises:
        ConfigError: a token of `named` is not in the tokenizer.
        DataError: a file is missing or damaged, or in another form.
    """
    folder = find_folder(Path(path))
    backend = _read_backend(folder / FILE)
    config = read_json(folder / "tokenizer_config.json")
    declared = read_json(folder / "special_tokens_map.json") | config
    ids = {role: _declared_id(folder, backend, role) for role in ROLES}
    for role, token in (named or {}).items():
        if token is not None:
            ids[role] = _named_id(folder, backend, role, token)
    kept = {name: config[name] for name in KEPT if config.get(name) is not None}
    for name in NAMED:
        token = _content(declared.get(name))
        if token is not None and backend.token_to_id(token) is not None:
            kept[name] = token
    listed = [_content(token) for name in LISTED for token in _as_list(declared.get(name))]
    known = [
        token for token in dict.fromkeys(listed) if token and backend.token_to_id(token) is not None
    ]
    if known:
        kept["additional_special_tokens"] = known
    special = [kept[name] for name in NAMED if name in kept] + known
    special += [backend.id_to_token(i) for i in ids.values() if i is not None]
    _mark_special(backend, special)
    template = folder / CHAT_TEMPLATE
    files = {CHAT_TEMPLATE: read_text(template)} if template.is_file() else {}
    return TokenizerFolder(backend, kept, ids, files)


def folder_files(folder: TokenizerFolder, model_max_length: int | None = None) -> dict[str, str]:
    """Return the contents, by name, of files that `read_folder` and transformers read alike."""
    config: dict[str, Any] = {
        "tokenizer_class": GENERAL_CLASS,
        "clean_up_tokenization_spaces": False,
    }
    for role, token_id in folder.ids.items():
        if token_id is not None:
            config[f"{role}_token"] = folder.backend.id_to_token(token_id)
    config |= folder.config
    if model_max_length is not None:
        config["model_max_length"] = model_max_length
    return folder.files | {
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        FILE: folder.backend.to_str(pretty=True) + "\n",
    }


def find_folder(path: Path) -> Path:
    """Return the folder with `tokenizer.json` that a path means: itself, or that of a run.

    Raises:
        DataError: there is none; the message says what there is, and how to convert it.
    """
    if path.name == FILE and path.is_file():
        return path.parent
    for folder in (path, path / "tokenizer"):  # the second of a run or a dataset
        if (folder / FILE).is_file():
            return folder
    if path.is_file():
        raise DataError(
            f"{path}: give a Hugging Face tokenizer folder, or its {FILE}; "
            f"{_how_to_convert(path.parent)}"
        )
    if not path.exists():
        hub = (
            f"; if it is a name on the Hub, fetch it with `hf download {path} {FILE} "
            f"tokenizer_config.json --local-dir {path.name}` and give --tokenizer {path.name}"
            if len(path.parts) <= 2 and not path.is_absolute() and path.parts[:1] != ("..",)
            else ""
        )
        raise DataError(
            f"{path / FILE}: no such file; give a Hugging Face tokenizer folder, or train one with "
            f"`jielong tokenizer`{hub}"
        )
    raise DataError(f"{path}: no {FILE} in it: give a folder with one; {_how_to_convert(path)}")


def _how_to_convert(folder: Path) -> str:
    """Say how a tokenizer in another form becomes a folder with `tokenizer.json`."""
    target = f"{folder.name or 'tokenizer'}-converted"
    for name, (converter, packages) in OTHER_FORMS.items():
        if (folder / name).is_file():
            needs = f" (needs {packages})" if packages else ""
            cased = ", do_lower_case=False" if name == "vocab.txt" and _is_cased(folder) else ""
            code = (
                f"from transformers import {converter} as T; "
                f"T.from_pretrained({str(folder)!r}{cased}).save_pretrained({target!r})"
            )
            return f'{name} is converted by python -c "{code}"{needs}; then give {target}'
    for file in sorted(folder.glob("*.tiktoken")):
        code = (
            "from transformers.convert_slow_tokenizer import TikTokenConverter as T; "
            f"T({str(file)!r}, extra_special_tokens=['<|endoftext|>']).converted()"
            f".save({f'{target}/{FILE}'!r})"
        )
        return (
            f'{file.name} is converted by mkdir {target}; python -c "{code}" (needs tiktoken; with '
            "pattern=… if it splits words otherwise than cl100k and Llama 3 do); then give "
            f"{target} and --eos-token '<|endoftext|>'"
        )
    return "or train one with `jielong tokenizer`"


def _is_cased(folder: Path) -> bool:
    """Whether the words of a vocab.txt have capitals, and no setting says how to treat them."""
    if (folder / "tokenizer_config.json").is_file():
        return False
    words = read_text(folder / "vocab.txt").split()
    return any(word != word.lower() for word in words if not word.startswith("["))


def _read_backend(path: Path) -> tokenizers.Tokenizer:
    try:
        backend = tokenizers.Tokenizer.from_str(read_text(path))
    except BaseException as error:  # the library raises bare Exception, or panics, on bad files
        if isinstance(error, DataError | KeyboardInterrupt | SystemExit):
            raise
        raise DataError(f"{path}: not a valid tokenizer ({error}); fetch it again") from None
    if not 0 <= max(backend.get_vocab().values(), default=-1) < MOST_IDS:
        raise DataError(f"{path}: the vocabulary is empty or too large; fetch the file again")
    return backend


def _declared_id(folder: Path, backend: tokenizers.Tokenizer, role: str) -> int | None:
    """Return the id of the bos, eos or pad token, from the first file that declares it."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        declared = read_json(folder / name)
        if f"{role}_token" not in declared:
            continue
        token = declared[f"{role}_token"]
        token = token.get("content") if isinstance(token, dict) else token
        if token is None:
            return None
        token_id = backend.token_to_id(token) if isinstance(token, str) else None
        if token_id is None:
            raise DataError(
                f"{folder / name}: {role}_token {token!r} is not in tokenizer.json; "
                "the two files belong to different tokenizers"
            )
        return token_id
    declared_id: Any = read_json(folder / "config.json").get(f"{role}_token_id")
    declared_id = declared_id[0] if isinstance(declared_id, list) and declared_id else declared_id
    known = isinstance(declared_id, int) and 0 <= declared_id < MOST_IDS
    return declared_id if known and backend.id_to_token(declared_id) else None


def _named_id(folder: Path, backend: tokenizers.Tokenizer, role: str, token: str) -> int:
    token_id = backend.token_to_id(token)
    if token_id is None:
        special = [t.content for t in backend.get_added_tokens_decoder().values()]
        there = f"; its added tokens are {', '.join(special[:8])}" if special else ""
        raise ConfigError(f"data.{role}_token={token!r} is not a token of {folder}{there}")
    return int(token_id)


def _mark_special(backend: tokenizers.Tokenizer, names: list[str]) -> None:
    """Add tokens of the vocabulary to the special ones, as transformers does with declared ones."""
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([name for name in dict.fromkeys(names) if name not in added])


def _content(token: Any) -> str | None:
    """Return the text of a token, declared as text or as an object."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None


def _as_list(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if value else []


def read_text(path: Path) -> str:
    """Read a UTF-8 file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from None


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if there is no such file.

    Raises:
        DataError: it cannot be read, or holds no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON ({error}); fetch it again") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: holds no JSON object; fetch it again")
    return value
