"""The routes that serve.py puts beside the pages: none unless the interface is on. Says in the log why it is off, or refuses."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.routing import BaseRoute, Mount, Route
from streamlit import config, secrets

from cifar_tl.errors import SettingsError
from cifar_tl.http.settings import ENABLED, HttpSettings, settings_from
from cifar_tl.ui.predictor import PredictionProcess

_log = logging.getLogger("cifar_tl.http")


def routes(environment: Mapping[str, str]) -> list[BaseRoute]:
    """For `streamlit.App(routes=...)`. Where calling would not be safe they refuse each call, and the log says so; the pages are there all
    the same."""
    try:
        settings = settings_from(environment, _secrets(), config.get_option("server.address"), config.get_option("server.allowedHosts"))
    except SettingsError as error:
        _log.error("The HTTP interface stays off. %s", error)
        return []
    if not settings.is_enabled:
        _log.warning("The HTTP interface is off: %s=1 turns it on.", ENABLED)
        return []
    if settings.problem:
        _log.error("The HTTP interface refuses every call. %s", settings.problem)
    return api_routes(settings, config.get_option("server.baseUrlPath") or "")


def api_routes(settings: HttpSettings, base_url: str = "", process: Callable[[], PredictionProcess] | None = None) -> list[BaseRoute]:
    """The interface at `base_url`/api, guarded as `settings` say; `process` in place of the one that the pages ask."""
    # Only where it is wanted: FastAPI takes a moment to import.
    from cifar_tl.http.api import make_api, pages_process
    from cifar_tl.http.guard import Guard

    api = Guard(make_api(process or pages_process), settings)
    path = f"/{base_url.strip('/')}/api".replace("//", "/")
    # The mount takes what is below; the path itself would get Streamlit's page.
    return [Route(path, api), Mount(path, api)]


def _secrets() -> Mapping[str, Any]:
    table = secrets.get("http", {}) if secrets.load_if_toml_exists() else {}
    return table if isinstance(table, Mapping) else {}
