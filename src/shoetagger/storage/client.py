"""Clients of object stores, and what their errors mean for people.

Credentials and endpoint come from the environment, in the stores' own variables, or from the role
of the machine. They stay in this process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from ..config.places import Bucket, PlaceError
from ..config.settings import redacted

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_CLIENT: ClientConfig = {"connect_timeout": "5s", "timeout": "60s"}
_RETRIES: RetryConfig = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}

# The store's own word for what is wrong, which the client hands on within its message.
_CODE = re.compile(r"<Code>(\w+)</Code>")
_REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
# Where machines have a role, they ask these addresses for its credentials.
_ROLE = ("169.254.169.254", "169.254.170.2", "/latest/api/token", "token request")
# The client's words for half a key; a message holds the address, too, which may have any words.
_NO_KEY = ("Missing AccessKeyId", "Missing SecretAccessKey")
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


def client_of(bucket: Bucket) -> ObjectStore:
    """Return a client, which asks the store nothing yet; PlaceError where it cannot be one."""
    from obstore.exceptions import BaseError
    from obstore.store import AzureStore, GCSStore, S3Store

    try:
        if bucket.scheme == "s3":
            plain = endpoint_of(os.environ).startswith("http://")
            client: ClientConfig = {**_CLIENT, "allow_http": plain}
            return S3Store(bucket.name, client_options=client, retry_config=_RETRIES)
        kind = GCSStore if bucket.scheme == "gs" else AzureStore
        return kind(bucket.name, client_options=_CLIENT, retry_config=_RETRIES)
    except (BaseError, ValueError) as error:
        raise PlaceError(
            f"{bucket} cannot be opened ({first_line(error)}): set {_CREDENTIALS[bucket.scheme]}"
        ) from None


def endpoint_of(environ: Mapping[str, str]) -> str:
    """Return the address of the S3 service, empty for Amazon's own; PlaceError for what is none."""
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or ""
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise PlaceError(
            f"AWS_ENDPOINT_URL={redacted(endpoint)!r} is no address of a web service: begin it "
            "with https:// or http://"
        )
    return endpoint


def what_is_wrong(bucket: Bucket, error: Exception, setting: str, use: str) -> str:
    """Return what is wrong with a bucket as a whole, and what to do.

    `setting` says which variable names the bucket, and what for; `use` is what the credentials have
    to allow, as in "list and read".
    """
    code, text = error_code(error), str(error)
    credentials = _CREDENTIALS[bucket.scheme]
    if code in ("NoSuchBucket", "ContainerNotFound"):
        return f"there is no bucket {bucket.name} in {_where(bucket)}: create it, or set {setting}"
    if any(phrase in text for phrase in (*_ROLE, *_NO_KEY)):
        return (
            f"there are no credentials for {bucket}: set {credentials}, or run where the machine "
            f"has a role that may {use} it"
        )
    if code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return f"{bucket} lies in another region: set AWS_REGION to its own"
    if code in _REFUSED or isinstance(error, PermissionError) or "403 Forbidden" in text:
        return (
            f"{_where(bucket)} refuses to show {bucket} ({code or '403'}): check {credentials}, "
            f"and that they may {use} it"
        )
    return f"{bucket} in {_where(bucket)} does not answer ({first_line(error)})"


def _where(bucket: Bucket) -> str:
    endpoint = endpoint_of(os.environ) if bucket.scheme == "s3" else ""
    return redacted(endpoint) or bucket.store


def error_code(error: Exception) -> str:
    """Return the store's own code of an error; empty where its message has none."""
    found = _CODE.search(str(error))
    return found[1] if found else ""


def first_line(error: Exception) -> str:
    """Return an error in one line, without what a store or the client adds for its makers."""
    text = str(error).partition("\n\nDebug source")[0].partition("<?xml")[0]
    line = " ".join(text.split()).rstrip(" :")
    code = error_code(error)
    return redacted(line)[-240:] + (f": {code}" if code else "")
