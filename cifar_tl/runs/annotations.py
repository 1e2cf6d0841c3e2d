"""What people write about a run: name, tags, note, star, archived. The only facts of a run that may change after it."""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from cifar_tl.errors import SettingsError
from cifar_tl.paths import RunFolder
from cifar_tl.runs.names import one_line, seen
from cifar_tl.runs.store import find_run, write_json, writing_in

MAX_NAME_LENGTH = 100
MAX_TAG_LENGTH = 30
MAX_TAGS = 20
MAX_NOTE_LENGTH = 5_000


@dataclass(frozen=True)
class Annotations:
    name: str = ""
    tags: tuple[str, ...] = ()
    note: str = ""
    is_starred: bool = False
    is_archived: bool = False


def read_annotations(folder: RunFolder) -> Annotations:
    """Empty ones where there is no file, or none that can be read: nothing that a run needs is in it. What is too long is cut."""
    try:
        raw: dict[str, Any] = json.loads(folder.annotations.read_text("utf-8"))
        found = _tidy(
            Annotations(
                name=str(raw.get("name", "")),
                tags=tuple(map(str, raw.get("tags", ()))),
                note=str(raw.get("note", "")),
                is_starred=bool(raw.get("is_starred", False)),
                is_archived=bool(raw.get("is_archived", False)),
            )
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return Annotations()
    tags = tuple(tag[:MAX_TAG_LENGTH] for tag in found.tags[:MAX_TAGS])
    return replace(found, name=found.name[:MAX_NAME_LENGTH], tags=tags, note=found.note[:MAX_NOTE_LENGTH])


def annotate(run_id: str, **changes: Any) -> Annotations:
    """Change some of them; an empty name goes back to the one the run was started with, or its id.

    Raises RunNotFound, SettingsError for what is too long, RunError where nothing can be written.
    """
    folder = find_run(run_id)
    changed = _tidy(replace(read_annotations(folder), **changes))
    _refuse_too_long(changed)
    with writing_in(folder.path):
        write_json(folder.annotations, asdict(changed))
    return changed


def _tidy(annotations: Annotations) -> Annotations:
    tags = tuple(dict.fromkeys(tag for tag in map(one_line, annotations.tags) if tag))
    return replace(annotations, name=one_line(annotations.name), tags=tags, note=seen(annotations.note).strip())


def _refuse_too_long(annotations: Annotations) -> None:
    name, tags, note = annotations.name, annotations.tags, annotations.note
    if len(name) > MAX_NAME_LENGTH:
        raise SettingsError(f"A run name has at most {MAX_NAME_LENGTH} characters; this one has {len(name)}.")
    if len(tags) > MAX_TAGS:
        raise SettingsError(f"A run has at most {MAX_TAGS} tags; these are {len(tags)}.")
    if too_long := [tag for tag in tags if len(tag) > MAX_TAG_LENGTH]:
        raise SettingsError(f"A tag has at most {MAX_TAG_LENGTH} characters; {too_long[0]!r} has {len(too_long[0])}.")
    if len(note) > MAX_NOTE_LENGTH:
        raise SettingsError(f"A note has at most {MAX_NOTE_LENGTH:,} characters; this one has {len(note):,}.")
