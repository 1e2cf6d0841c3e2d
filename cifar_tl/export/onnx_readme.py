"""README.md beside an exported ONNX file: what goes in, what comes out, how it compares with the model, and a few lines that use it."""

from collections.abc import Sequence

from cifar_tl.export.network import Exportable
from cifar_tl.export.report import ExportOptions, Parity

_WITH = """`pixels`: uint8, any number x {side} x {side} x 3, RGB. `probabilities`: float32, any number x {classes}. Resizing, normalisation{flips} and
temperature are inside.

    import numpy, onnxruntime
    from PIL import Image, ImageOps

    session = onnxruntime.InferenceSession("model.onnx")
    photo = ImageOps.fit(Image.open("photo.jpg").convert("RGB"), ({side}, {side}), Image.Resampling.BICUBIC)
    probabilities = session.run(None, {{"pixels": numpy.asarray(photo)[None]}})[0][0]
    names = open("classes.txt").read().splitlines()
    print(max(zip(probabilities, names)))
"""
_WITHOUT = """`images`: float32, any number x 3 x {size} x {size}, RGB in [0, 1] minus mean {mean}, divided by std {std}. `logits`: float32, any number x
{classes}; probabilities are softmax(logits / {temperature:.4f}){flips}. Images of {side} px, enlarged bicubically to {size} px, are what it learned from.
"""


def onnx_readme(exportable: Exportable, parities: Sequence[Parity], options: ExportOptions, refused: Sequence[str]) -> str:
    manifest, config = exportable.manifest, exportable.config
    preprocessing = manifest.preprocessing
    flips = ", the average with the mirror image" if options.with_preprocessing else " of logits averaged with those of the mirror image"
    text = (_WITH if options.with_preprocessing else _WITHOUT).format(
        side=preprocessing.store_resolution,
        size=preprocessing.image_size,
        classes=len(manifest.class_names),
        mean=preprocessing.mean,
        std=preprocessing.std,
        temperature=exportable.temperature,
        flips=flips if config.average_flips else "",
    )
    table = [
        "| file | precision | MB | images/s | top-1 as the model | largest difference | accuracy | the model's |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *map(_row, parities),
    ]
    checks = "\n".join(f"- {parity.in_words}" for parity in parities)
    left_out = "".join(f"\n- Left out: {line}" for line in refused)
    return (
        f"# {config.backbone} on {manifest.data_title} as ONNX\n\n{text}\n"
        f"## Check\n\n{checks}{left_out}\n\nSpeed on the processor of the machine that exported, one after the other:\n\n"
        + "\n".join(table)
        + "\n"
    )


def _row(parity: Parity) -> str:
    return (
        f"| {parity.file} | {parity.precision} | {parity.bytes / 1e6:.1f} | {parity.images_per_second:.0f} | {parity.top1_agreement:.1%} | "
        f"{parity.max_difference:.2g} | {parity.accuracy.fraction:.1%} | {parity.model_accuracy.fraction:.1%} |"
    )
