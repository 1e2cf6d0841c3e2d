"""The README's table of settings, made from their declarations. `python -m tests.readme_table` writes it into README.md."""

from pathlib import Path

from cifar_tl.settings import Setting, settings

README = Path(__file__).resolve().parent.parent / "README.md"
BEGIN, END = "<!-- settings: written by python -m tests.readme_table -->", "<!-- end of settings -->"


def table() -> str:
    rows = ["| setting | default | bounds or choices | what it does |", "| --- | --- | --- | --- |"]
    section = ""
    for item in settings():
        if item.section != section:
            section = item.section
            rows.append(f"| **{section}** | | | |")
        rows.append(f"| `{item.name}` | {_default(item)} | {_bounds(item)} | {item.help.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def _default(item: Setting) -> str:
    if item.is_optional or item.default == ():
        return "all" if item.name in ("classes", "images_per_class") else "empty"
    if isinstance(item.default, bool):
        return "on" if item.default else "off"
    return f"`{item.default}`" if item.default != "" else "empty"


def _bounds(item: Setting) -> str:
    if item.choices:
        return ", ".join(f"`{choice}`" for choice in item.choices)
    if item.minimum is None:
        return ""
    low = f"{'>' if item.exclusive_minimum else '≥'} {item.minimum:,}"
    high = f", up to {item.maximum:,}" if item.maximum is not None else ""
    return f"{low}{high}{' ' + item.unit if item.unit else ''}"


def with_table(text: str) -> str:
    before, rest = text.split(BEGIN, 1)
    return before + BEGIN + "\n\n" + table() + "\n\n" + END + rest.split(END, 1)[1]


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
