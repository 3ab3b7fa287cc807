"""What object stores are opened with, where their own tools look for it and obstore does not."""

from __future__ import annotations

import configparser
import contextlib
import os
from pathlib import Path

from jielong.data.sources.remote import CREDENTIALS, kind_of_store

AWS = {
    "aws_access_key_id": "aws_access_key_id",
    "aws_secret_access_key": "aws_secret_access_key",
    "aws_session_token": "aws_session_token",
    "region": "aws_region",
    "endpoint_url": "aws_endpoint",
}
AZURE_CLI = {
    "AZURE_STORAGE_ACCOUNT": "azure_storage_account_name",
    "AZURE_STORAGE_KEY": "azure_storage_account_key",
    "AZURE_STORAGE_SAS_TOKEN": "azure_storage_sas_token",
}
CONNECTION = {
    "accountname": "azure_storage_account_name",
    "accountkey": "azure_storage_account_key",
    "sharedaccesssignature": "azure_storage_sas_token",
    "blobendpoint": "azure_storage_endpoint",
}


def settings_of(scheme: str) -> dict[str, str]:
    """Return obstore's settings for a kind of store, but for what obstore itself reads."""
    found = {"s3": _aws_profile, "az": _azure_tools, "gs": _google_emulator}
    return found[kind_of_store(scheme)]()


def opening_fault(error: Exception, scheme: str) -> str:
    """Return why a store cannot be opened, and the fix, without what may be secret.

    Args:
        error: of obstore.
    """
    said = str(error)
    if "Unable to recognise URL" in said:
        return "no bucket is named there"
    if "Account must be specified" in said:
        return f"whose storage account is it in? {CREDENTIALS['az']}"
    if "Invalid Access Key" in said:
        return "AZURE_STORAGE_ACCOUNT_KEY is no key: copy it again"
    if "GCS" in said or "pem" in said:
        names = ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT")
        given = [f"{name}={os.environ[name]}" for name in names if name in os.environ]
        given = given or ["application_default_credentials.json of gcloud"]
        return f"{given[0]} cannot be read as credentials of a service account or a user"
    return f"it cannot be opened ({type(error).__name__}): {CREDENTIALS[kind_of_store(scheme)]}"


def _aws_profile() -> dict[str, str]:
    """Return what the files of AWS's tools say, where the environment names no key."""
    if "AWS_ACCESS_KEY_ID" in os.environ or "AWS_SKIP_SIGNATURE" in os.environ:
        return {}
    profile = os.environ.get("AWS_PROFILE", "default")
    found: dict[str, str] = {}
    for variable, name, section in (
        ("AWS_CONFIG_FILE", "config", f"profile {profile}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile),
    ):
        parser = configparser.RawConfigParser()
        with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
            parser.read(os.environ.get(variable) or Path("~/.aws").expanduser() / name)
            for title in (profile, section):
                if parser.has_section(title):
                    found |= dict(parser.items(title))
    return {ours: found[theirs] for theirs, ours in AWS.items() if theirs in found}


def _azure_tools() -> dict[str, str]:
    """Return what the variables of Azure's tools say: a connection string, and those of `az`."""
    found = {ours: os.environ[name] for name, ours in AZURE_CLI.items() if os.environ.get(name)}
    for part in os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name.lower() == "usedevelopmentstorage" and value.lower() == "true":
            found["azure_storage_use_emulator"] = "true"
        elif value and name.lower() in CONNECTION:
            found[CONNECTION[name.lower()]] = value
    return found


def _google_emulator() -> dict[str, str]:
    """Return the address of an emulator, where Google's libraries take it from."""
    host = os.environ.get("STORAGE_EMULATOR_HOST")
    if not host:
        return {}
    address = host if "://" in host else f"http://{host}"
    return {"google_base_url": address.rstrip("/"), "google_skip_signature": "true"}
