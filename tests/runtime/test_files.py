"""A remote folder is not written: the command that copies to it is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from jielong.errors import ConfigError
from jielong.runtime.files import check_local


@pytest.mark.parametrize(
    ("address", "command"),
    [
        ("s3://bucket/a/b", "aws s3 cp --recursive FOLDER s3://bucket/a/b"),
        ("gs://bucket/a", "gcloud storage cp --recursive FOLDER gs://bucket/a"),
        (
            "az://box/a/b",
            "az storage blob upload-batch --source FOLDER --destination box --destination-path a/b",
        ),
        ("ftp://host/a", "copy it there"),
    ],
)
def test_a_remote_folder_is_refused_with_the_command_that_copies(
    address: str, command: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        check_local(Path(address))
    assert str(refused.value).startswith(f"{address}: results are written to local folders")
    assert str(refused.value).endswith(command)
