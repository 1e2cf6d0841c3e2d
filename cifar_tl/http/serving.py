"""The routes that app.py serves beside the pages: none unless the interface is on. Says in the log whether it is, and why not."""

import logging
from collections.abc import Mapping
from typing import Any

from starlette.routing import BaseRoute, Mount, Route
from streamlit import config, secrets

from cifar_tl.errors import SettingsError
from cifar_tl.http.settings import HttpSettings, settings_from

_log = logging.getLogger("cifar_tl.http")


def routes(environment: Mapping[str, str]) -> list[BaseRoute]:
    """For `streamlit.App(routes=...)`. Where calling would not be safe they refuse each call, and the log says so; the pages are there all
    the same."""
    try:
        settings = settings_from(environment, _secrets(), config.get_option("server.address"), config.get_option("server.allowedHosts"))
    except SettingsError as error:
        _log.error("The HTTP interface stays off. %s", error)
        return []
    return _routes(settings, config.get_option("server.baseUrlPath") or "") if settings.is_enabled else []


def _routes(settings: HttpSettings, base_url: str) -> list[BaseRoute]:
    # Only where it is wanted: FastAPI takes a moment to import.
    from cifar_tl.http.api import make_api
    from cifar_tl.http.guard import Guard

    if settings.problem:
        _log.error("The HTTP interface refuses every call. %s", settings.problem)
    path = "/".join(("", *base_url.strip("/").split("/"), "api")).replace("//", "/")
    api = Guard(make_api(), settings)
    # The mount takes what is below; the path itself would get Streamlit's page.
    return [Route(path, api), Mount(path, api)]


def _secrets() -> Mapping[str, Any]:
    table = secrets.get("http", {}) if secrets.load_if_toml_exists() else {}
    return table if isinstance(table, Mapping) else {}
