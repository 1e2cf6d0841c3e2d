"""The safetensors bundle: weights by the library's names, a model card, and a short predict.py that needs nothing of this program.

model.safetensors   float32, loaded by `predict.py` as by any library
config.json         what `predict.py` needs besides: classes, sizes, normalisation, temperature
run.json            what the run became, as in its folder
classes.txt         a class a line, in the order of the outputs
README.md           the model card
predict.py
"""

import json
from pathlib import Path
from string import Template

import numpy as np
import torch
from safetensors.torch import save_file

from cifar_tl.data.batches import to_model_input
from cifar_tl.export.model_card import model_card
from cifar_tl.export.network import Exportable
from cifar_tl.export.original import Original, original_of
from cifar_tl.export.report import Parity

WEIGHTS = "model.safetensors"
FILES = (WEIGHTS, "config.json", "run.json", "classes.txt", "README.md", "predict.py")
_TEMPLATE = Path(__file__).parent / "predict.py.template"
_BATCH = 32
_LOAD = "model.load_state_dict(state, strict=False)  # without the counters of batch norms"
_COPY = "[tensor.copy_(state.get(name, tensor)) for name, tensor in model.state_dict().items()]  # its own loading asks for a version"
# timm brings safetensors along, torchvision does not; the format is the length of a header, the header as JSON, and the tensors.
_IMPORTS = {
    "timm": "import json, sys\nimport timm, torch\nfrom safetensors.torch import load_file",
    "torchvision": "import json, math, sys\nimport torch, torchvision",
}
_READING = {
    "timm": 'state = load_file(folder / "model.safetensors")',
    "torchvision": """data = bytearray((folder / "model.safetensors").read_bytes())
start = 8 + int.from_bytes(data[:8], "little")
found = {name: (t["shape"], start + t["data_offsets"][0]) for name, t in json.loads(data[8:start]).items() if name != "__metadata__"}
state = {name: torch.frombuffer(data, dtype=torch.float32, count=math.prod(shape), offset=at).view(shape) for name, (shape, at) in found.items()}""",
}


def write_weights(exportable: Exportable, folder: Path) -> Original:
    """The weights and what loads them; the card comes when they have been checked. Raises CifarTLError."""
    original = original_of(exportable)
    save_file(original.state, folder / WEIGHTS, metadata={"format": "pt", "run": exportable.manifest.run_id})
    manifest = exportable.manifest
    preprocessing = manifest.preprocessing
    facts = {
        "classes": manifest.class_names,
        "library": original.library,
        "architecture": original.architecture,
        "arguments": original.arguments,
        "stored_pixels": preprocessing.store_resolution,
        "reduced_from": exportable.reduced_from,
        "input_pixels": preprocessing.image_size,
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "average_flips": exportable.config.average_flips,
        "temperature": exportable.temperature,
    }
    (folder / "config.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    (folder / "run.json").write_bytes(exportable.folder.manifest.read_bytes())
    (folder / "classes.txt").write_text("\n".join(manifest.class_names) + "\n", "utf-8")
    template = Template(_TEMPLATE.read_text("utf-8"))
    script = template.substitute(
        needs="torchvision, timm" if original.library == "timm" else "torchvision",
        imports=_IMPORTS[original.library],
        weights=_READING[original.library],
        load=_COPY if original.has_versions else _LOAD,
        constructor=original.constructor,
        architecture=original.architecture,
        adapt=f"\n{original.adapt}" if original.adapt else "",
    )
    (folder / "predict.py").write_text(script, "utf-8")
    return original


def write_card(exportable: Exportable, original: Original, parity: Parity, folder: Path) -> None:
    card = model_card(
        exportable.folder,
        exportable.config,
        exportable.manifest,
        library=original.library,
        architecture=original.architecture,
        temperature=exportable.temperature,
        parity=parity,
    )
    (folder / "README.md").write_text(card, "utf-8")


@torch.inference_mode()
def answers_of(original: Original, exportable: Exportable, squares_NHWC: np.ndarray) -> np.ndarray:
    """float32 N x C: the library's own network with the exported weights, as `predict.py` asks it."""
    found = []
    for start in range(0, len(squares_NHWC), _BATCH):
        images = to_model_input(
            torch.from_numpy(squares_NHWC[start : start + _BATCH]).permute(0, 3, 1, 2), exportable.manifest.preprocessing
        )
        views = [images, images.flip(-1)] if exportable.config.average_flips else [images]
        logits = torch.stack([original.model(view) for view in views]).mean(0)
        found.append((logits / exportable.temperature).softmax(1).numpy())
    return np.concatenate(found)
