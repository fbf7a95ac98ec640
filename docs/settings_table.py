"""Render the table of settings in ``docs/reference/settings.md`` from the declarations in ``sdata_sync.conf``.

``python -m docs.settings_table`` rewrites the text between the lines ``<!-- settings -->`` and ``<!-- /settings -->``.
Run it in the root of the repository after a change of a declaration; a test compares the page with the declarations.
"""

from pathlib import Path
from typing import Any

from sdata_sync.conf import Setting, Settings

PAGE = Path(__file__).parent / "reference" / "settings.md"
START, END = "<!-- settings -->\n", "<!-- /settings -->\n"


def render_table() -> str:
    """Return the Markdown table of all settings, in the order of their declaration."""
    lines = ["| name | default | expected value | meaning |", "|---|---|---|---|"]
    for setting in Settings.TABLE:
        cells = (f"`{setting.name}`", _default(setting), setting.expected, _meaning(setting))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def render_page(text: str) -> str:
    """Return ``text``, the content of the page, with the rendered table between the marker lines.

    Raises:
        ValueError: if a marker line is missing or occurs twice.
    """
    before, table_and_after = text.split(START)
    _, after = table_and_after.split(END)
    return f"{before}{START}{render_table()}{END}{after}"


def _default(setting: Setting[Any]) -> str:
    value = setting.default
    if setting.is_required:
        return "none, must be set"
    if isinstance(value, bool) or not isinstance(value, int):
        return f"`{value}`"
    if setting.unit == "bytes" and value % 2**20 == 0:
        return f"{value // 2**20} MiB"
    is_large_power_of_two = value >= 2**20 and value.bit_count() == 1
    return f"2^{value.bit_length() - 1}" if is_large_power_of_two else f"{value:,}"


def _meaning(setting: Setting[Any]) -> str:
    sentences = [setting.help]
    if setting.page:
        title = setting.page.rpartition("/")[2].replace("-", " ")
        sentences.append(f"See [{title}](../{setting.page}.md).")
    if setting.former_names:
        sentences.append(f"Former name: {', '.join(f'`{name}`' for name in setting.former_names)}.")
    return " ".join(sentences)


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text()))
