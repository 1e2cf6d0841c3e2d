"""paste: a picture from the clipboard goes the way of a dropped file, with Ctrl+V anywhere on the page or with a button; so do files that
are dropped beside the drop zone.

Owns the browser component (`paste.js`, `paste.css`). It hands pictures to the file uploader that is on the page, so the server's limits
hold for them as for any other file; Streamlit's own uploader takes a paste only while its drop zone has the focus.
"""

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st


def paste(key: str) -> None:
    """A button, and an ear for Ctrl+V and for drops anywhere, for as long as it is on the page."""
    _component()(key=key)


@cache
def _component() -> Any:
    folder = Path(__file__).parent
    return st.components.v2.component(
        "cifar_tl_paste",
        html='<div class="paste"><button type="button">Paste</button><span role="status"></span></div>',
        css=(folder / "paste.css").read_text("utf-8"),
        js=(folder / "paste.js").read_text("utf-8"),
    )
