"""Small CIFAR data sets made up for tests, in the three published forms, with formats whose MD5s fit them.

content = made_content(published.CIFAR100)
form = write_archive(content, published.CIFAR100, root)
monkeypatch.setitem(published.FORMATS, "cifar100", form)
"""

import hashlib
import io
import json
import pickle
import tarfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cifar_tl.data.cifar.published import CifarFormat, PublishedFile


@dataclass(frozen=True)
class MadeSplit:
    images_NHWC: np.ndarray
    labels_N: np.ndarray
    superclass_labels_N: np.ndarray


def made_content(form: CifarFormat, *, train_per_class: int = 2) -> dict[str, MadeSplit]:
    """Random pixels, classes in turn, class c in superclass c // 5."""
    classes = len(form.class_names)
    made = {}
    for number, (split, per_class) in enumerate((("train", train_per_class), ("test", 1))):
        labels = np.arange(classes * per_class) % classes
        images = np.random.default_rng(number).integers(0, 256, (len(labels), 32, 32, 3), np.uint8)
        made[split] = MadeSplit(images, labels, labels // 5)
    return made


def pickled_files(content: dict[str, MadeSplit], form: CifarFormat) -> dict[str, bytes]:
    """File name -> bytes, as the authors wrote them (Python 2's protocol)."""
    files = {}
    for split, items in form.pickles.items():
        rows = np.array_split(np.arange(len(content[split].labels_N)), len(items))
        for item, chosen in zip(items, rows, strict=True):
            files[item.name] = pickle.dumps(_batch(content[split], chosen, form), protocol=2)
    meta = {form.names_key: list(form.class_names)}
    if form.superclass_names_key:
        meta[form.superclass_names_key] = list(form.superclass_names)
    files[form.meta.name] = pickle.dumps(meta, protocol=2)
    return files


def _batch(split: MadeSplit, rows: np.ndarray, form: CifarFormat) -> dict[str, Any]:
    planes = split.images_NHWC[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1)
    batch: dict[str, Any] = {"data": np.ascontiguousarray(planes), form.labels_key: split.labels_N[rows].tolist()}
    if form.superclass_labels_key:
        batch[form.superclass_labels_key] = split.superclass_labels_N[rows].tolist()
    return batch


def archive_bytes(files: dict[str, bytes], form: CifarFormat) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{form.folder}/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write_archive(content: dict[str, MadeSplit], form: CifarFormat, root: Path) -> CifarFormat:
    """Write the archive; returns the format with its MD5."""
    root.mkdir(parents=True, exist_ok=True)
    data = archive_bytes(pickled_files(content, form), form)
    (root / form.archive.name).write_bytes(data)
    return replace(form, archive=PublishedFile(form.archive.name, md5(data)))


def write_folder(content: dict[str, MadeSplit], form: CifarFormat, root: Path) -> CifarFormat:
    """Write the unpacked files; returns the format with their MD5s."""
    files = pickled_files(content, form)
    (root / form.folder).mkdir(parents=True)
    for name, data in files.items():
        (root / form.folder / name).write_bytes(data)
    checked = {split: tuple(PublishedFile(item.name, md5(files[item.name])) for item in items) for split, items in form.pickles.items()}
    return replace(form, pickles=checked, meta=PublishedFile(form.meta.name, md5(files[form.meta.name])))


def write_parquet(content: dict[str, MadeSplit], form: CifarFormat, root: Path, *, with_names: bool = True) -> None:
    for split in content:
        path = form.parquet_file(root, split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(parquet_bytes(content[split], form, with_names=with_names))


def parquet_bytes(split: MadeSplit, form: CifarFormat, *, with_names: bool = True) -> bytes:
    columns: dict[str, Any] = {
        "img": [{"bytes": png_bytes(image), "path": f"{row}.png"} for row, image in enumerate(split.images_NHWC)],
        form.labels_column: split.labels_N,
    }
    features = {form.labels_column: {"names": form.class_names, "_type": "ClassLabel"}}
    if form.superclass_labels_column:
        columns[form.superclass_labels_column] = split.superclass_labels_N
        features[form.superclass_labels_column] = {"names": form.superclass_names, "_type": "ClassLabel"}
    table = pa.table(columns)
    if with_names:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=64)
    return buffer.getvalue()


def png_bytes(image_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()
