"""A small HTTP client for the command line; no third-party library, quick to load."""

import json
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from paperexchange.errors import ExchangeError

_TIMEOUT_S = 10.0


def call(url: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """GET `path`, or POST `body` to it. ExchangeError carries the exchange's own words and hint."""
    if not url.startswith(("http://", "https://")):
        raise ExchangeError(
            f"{url!r} is no HTTP address", where="--url", hint="endpoints.json has it as `http`"
        )
    data = None if body is None else json.dumps(body).encode()
    request = Request(url.rstrip("/") + path, data=data)  # noqa: S310 - the scheme is checked above
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
            return answer
    except HTTPError as error:
        said = json.load(error)
        raise ExchangeError(said["error"], where=url, hint=said.get("hint", "")) from error
    except (URLError, OSError) as error:
        raise ExchangeError(
            f"does not answer: {error}", where=url, hint="is it running? endpoints.json has its address"
        ) from error
