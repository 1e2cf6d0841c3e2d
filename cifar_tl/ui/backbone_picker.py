"""The backbone of the form: search by name, compare all in a sortable table, or type timm:NAME for any other.

What is known of a backbone comes from `models.catalog`; here it is only put into words.
"""

from collections.abc import Callable

import streamlit as st

from cifar_tl.errors import BackboneError
from cifar_tl.models import catalog
from cifar_tl.models.catalog import Backbone
from cifar_tl.settings import settings
from cifar_tl.ui.setting_widgets import set_value
from cifar_tl.ui.state import setting_key
from cifar_tl.ui.widgets import format_percent, plain

_KEY = setting_key("backbone")
_TABLE = "train.backbone_table"
_IS_COMPARING = "train.is_comparing_backbones"
_MIB = 1024 * 1024


def backbone_picker(*, on_change: Callable[[], None]) -> None:
    """Draw it; the choice lies in session state like that of any setting."""
    names = [*(backbone.name for backbone in catalog.backbones()), *_timm_names()]
    chosen = st.session_state[_KEY]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox(
            "Backbone",
            names if chosen in names else [*names, chosen],
            key=_KEY,
            on_change=on_change,
            accept_new_options=True,
            persist_state="session",
            help="The pretrained network. Type to search; timm:NAME is a network of timm.",
        )
        if st.button("Compare", icon=":material/table_view:", help="All backbones in a table, to sort and choose from."):
            st.session_state[_IS_COMPARING] = True
            _compare()
    _facts(str(st.session_state[_KEY] or ""))


def _timm_names() -> list[str]:
    """Without the tags that choose among published weights; a name with its tag can be typed."""
    return [catalog.TIMM_PREFIX + name for name in sorted(catalog.timm_names())]


def _facts(name: str) -> None:
    try:
        backbone = catalog.backbone(name)
    except BackboneError:
        return  # the reason is among the problems by the Start button
    st.caption(facts_of(backbone))


def facts_of(backbone: Backbone) -> str:
    """Size, cost, accuracy and where the weights are, in one line. What is not known is left out."""
    facts = []
    if backbone.parameters:
        facts.append(f"{backbone.parameters / 1e6:.1f} M parameters")
    if backbone.gflops:
        facts.append(f"{backbone.gflops:.2g} GFLOPs an image")
    if backbone.imagenet_top1:
        facts.append(f"{format_percent(backbone.imagenet_top1)} ImageNet top-1".replace(" %", "\u00a0%"))
    facts.append(_weights_in_words(backbone))
    line = " · ".join(facts)
    return plain(line[0].upper() + line[1:])


def _weights_in_words(backbone: Backbone) -> str:
    if catalog.weights_on_disk(backbone.name):
        return "weights on this machine"
    size = f" ({backbone.download_bytes / _MIB:.0f} MiB)" if backbone.download_bytes else ""
    return f"weights not on this machine; the run downloads them first{size}"


def is_comparing() -> bool:
    """True while the table is open: a rerun of the whole page would close it."""
    return bool(st.session_state.get(_IS_COMPARING))


def _stop_comparing() -> None:
    st.session_state[_IS_COMPARING] = False


@st.dialog("Compare backbones", width="large", icon=":material/table_view:", on_dismiss=_stop_comparing)
def _compare() -> None:
    if not is_comparing():
        st.rerun()  # one was chosen: closes the dialog
    st.caption("Sort by a column head; select a row to choose that backbone.")
    backbones = catalog.backbones()
    st.dataframe(
        table_of(backbones),
        key=_TABLE,
        hide_index=True,
        height=440,
        on_select=_choose,
        selection_mode="single-row",
        column_config={
            "Parameters": st.column_config.NumberColumn(format="%.1f M"),
            "Compute": st.column_config.NumberColumn(format="%.2f GFLOPs"),
            "ImageNet top-1": st.column_config.NumberColumn(format="%.1f %%"),
            "Download": st.column_config.NumberColumn(format="%.0f MiB"),
        },
    )


def table_of(backbones: tuple[Backbone, ...]) -> dict[str, list[object]]:
    """The comparison as columns."""
    return {
        "Backbone": [backbone.name for backbone in backbones],
        "Parameters": [backbone.parameters / 1e6 if backbone.parameters else None for backbone in backbones],
        "Compute": [backbone.gflops or None for backbone in backbones],
        "ImageNet top-1": [100 * backbone.imagenet_top1 if backbone.imagenet_top1 else None for backbone in backbones],
        "Download": [backbone.download_bytes / _MIB if backbone.download_bytes is not None else None for backbone in backbones],
        "Weights here": [catalog.weights_on_disk(backbone.name) for backbone in backbones],
    }


def _choose() -> None:
    """Callback of the table: take the selected row, and let the dialog close."""
    rows = st.session_state[_TABLE].selection.rows
    if rows:
        set_value(next(setting for setting in settings() if setting.name == "backbone"), catalog.backbones()[rows[0]].name)
        _stop_comparing()
