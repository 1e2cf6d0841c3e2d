"""The part of the Predict page that makes files of the model, to be used elsewhere, and shows how they compare with it."""

import streamlit as st

from cifar_tl.errors import CifarTLError
from cifar_tl.export.report import ExportOptions, ExportReport, Kind, Parity
from cifar_tl.paths import RunFolder
from cifar_tl.ui.exports import MOST_BYTES_TO_DOWNLOAD, ExportState, download, export_state, size, start_export
from cifar_tl.ui.widgets import format_bytes, page_boundary, plain, show_error

POLL_SECONDS = 1.0
_PATIENCE = {False: "Half a minute", True: "About two minutes"}  # with a file of 8 bits or without
_TITLES = {Kind.ONNX: "ONNX", Kind.BUNDLE: "PyTorch", Kind.WEB: "Web page"}
_ABOUT = {
    Kind.ONNX: "One file that ONNX Runtime and many other programs run, on servers, phones and small devices.",
    Kind.BUNDLE: "Weights as safetensors, a model card, and a short script that needs torch, its model library and Pillow, nothing else.",
    Kind.WEB: "One .html: whoever opens it drops a photo and gets the answer, computed in the browser. No server; photos go nowhere.",
}


def export_panel(folder: RunFolder) -> None:
    """For a run that has weights."""
    with st.expander("Use this model elsewhere", icon=":material/ios_share:", key="export.panel"):
        kind = st.segmented_control(
            "Form",
            list(Kind),
            format_func=_TITLES.__getitem__,
            default=Kind.ONNX,
            required=True,
            label_visibility="collapsed",
            key="export.kind",
            persist_state="session",
        )
        st.caption(_ABOUT[Kind(kind)])
        options = _options(Kind(kind))
        is_running = export_state(folder, options.kind).is_running
        st.fragment(_state, run_every=POLL_SECONDS if is_running else None)(folder, options, was_running=is_running)


def _options(kind: Kind) -> ExportOptions:
    if kind is Kind.ONNX:
        with st.container(horizontal=True):
            inside = st.checkbox(
                "Preprocessing inside",
                True,
                key="export.inside",
                help="The file takes pixels and gives probabilities. Without it, it takes normalised input and gives logits.",
            )
            int8 = st.checkbox(
                "8 bits besides",
                key="export.int8",
                help="A second file, a quarter as large; its accuracy and speed are measured beside the first.",
            )
        return ExportOptions(kind, inside, int8)
    if kind is Kind.WEB:
        runtime = st.text_input(
            "Folder of the runtime",
            key="export.runtime",
            placeholder="Optional: an unpacked npm package onnxruntime-web",
            help="With it the page works with no network at all. Without it, it fetches the runtime when it is opened, and checks its bytes.",
        )
        return ExportOptions(kind, runtime_folder=runtime.strip())
    return ExportOptions(kind)


@page_boundary()  # a fragment's own rerun does not pass through the page's
def _state(folder: RunFolder, options: ExportOptions, *, was_running: bool) -> None:
    now = export_state(folder, options.kind)
    if now.is_running != was_running:
        st.rerun()  # the whole page, once: begins or ends the refreshing
    with st.container(horizontal=True, vertical_alignment="center"):
        _button(folder, options, now)
        if now.report is not None and not now.is_running:
            _download(folder, now.report)
        if now.is_running:
            st.markdown(
                f":material/progress_activity: Exporting and comparing with the model. {_PATIENCE[options.int8]}, longer for large networks.",
                width="content",
            )
    if now.problem:
        st.error(plain(now.problem), icon=":material/error:")
    if now.is_outdated:
        st.caption(":material/update: The run has trained on since: export again for its present weights.")
    if now.report is not None:
        _report(now.report)


def _button(folder: RunFolder, options: ExportOptions, now: ExportState) -> None:
    label = "Export again" if now.report else "Export"
    if st.button(
        label, icon=":material/ios_share:", type="secondary" if now.report else "primary", disabled=now.is_running, key="export.start"
    ):
        try:
            start_export(folder, options)
        except CifarTLError as error:
            show_error(error)
            return
        st.rerun()


def _download(folder: RunFolder, report: ExportReport) -> None:
    total = size(folder, report)
    if total > MOST_BYTES_TO_DOWNLOAD:
        st.caption(f"{format_bytes(total)}, in {folder.exports / report.kind.value}")
        return
    ending = "html" if report.kind is Kind.WEB else "zip"
    st.download_button(
        f"Download ({format_bytes(total)})",
        lambda: download(folder, report),
        f"{folder.run_id}-{report.kind.value}.{ending}",
        icon=":material/download:",
        on_click="ignore",
        key=f"export.download.{report.kind}",
    )


def _report(report: ExportReport) -> None:
    for line in report.refused:
        st.warning(plain(line), icon=":material/block:")
    if report.parities:
        st.dataframe([_row(parity) for parity in report.parities], hide_index=True)
        st.caption(
            "Measured on test images on this machine; accuracies with 95 % intervals. What answers otherwise than the model is not offered."
        )


def _row(parity: Parity) -> dict[str, str]:
    row = {
        "File": parity.file,
        "Numbers": parity.precision,
        "Size": format_bytes(parity.bytes),
        "Test images": f"{parity.images:,}",
        "Same class": _percent(parity.top1_agreement),
        "Largest difference": f"{parity.max_difference:.2f}" if parity.max_difference >= 0.01 else "below 0.01",
        "Accuracy": _with_interval(parity),
        "Of the model": _percent(parity.model_accuracy.fraction),
    }
    return row | ({"Images/s": f"{parity.images_per_second:,.0f}"} if parity.images_per_second else {})


def _with_interval(parity: Parity) -> str:
    low, high = parity.accuracy.interval
    return f"{_percent(parity.accuracy.fraction)} ({100 * low:.0f} to {100 * high:.0f})"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
