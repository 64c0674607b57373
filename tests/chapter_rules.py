"""The rules that every chapter keeps.  A rule is a function that takes a notebook and returns what is wrong with it."""

import ast
import re

# The brackets keep this file from matching its own pattern.
MACHINE_PATH = re.compile(r"(?<![\w.~:/-])/(?:root|home|work|Users|tmp|opt)[/]\w|[C-Z]:\\\\?Users|site[-]packages/")


def code_cells(nb) -> list:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def has_picture(cell) -> bool:
    return any(mime.startswith("image/") for output in cell.outputs for mime in output.get("data", {}))


def name(cell) -> str:
    """What a cell is called in a message: its first line."""
    return repr(cell.source.strip().split("\n")[0][:60])


def not_run_in_order(nb) -> list[str]:
    counts = [cell.execution_count for cell in code_cells(nb)]
    return [] if counts == [*range(1, len(counts) + 1)] else [f"not run once from top to bottom: {counts}"]


def stored_stderr(nb) -> list[str]:
    return [name(cell) for cell in code_cells(nb) for o in cell.outputs if o.get("name") == "stderr"]


def stored_errors(nb) -> list[str]:
    cells = [cell for cell in code_cells(nb) if "raises-exception" not in tags(cell)]
    return [f"{name(cell)}: {o.ename}" for cell in cells for o in cell.outputs if o.output_type == "error"]


def skipped_checks(nb) -> list[str]:
    marked = re.compile(r"NBVAL_(SKIP|IGNORE)|nbval-(skip|ignore)")
    return [name(cell) for cell in code_cells(nb) if marked.search(cell.source + " ".join(tags(cell)))]


def pictures_without_alt_text(nb) -> list[str]:
    wrong = []
    for cell in filter(has_picture, code_cells(nb)):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if len(alt) <= 30 or alt.endswith(".png") or not alt.rstrip().endswith("."):
            wrong.append(f"{name(cell)}: alt text {alt!r} is no sentence")
    return wrong


def pictures_without_caption(nb) -> list[str]:
    wrong = []
    for cell in filter(has_picture, code_cells(nb)):
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if len(figure.get("caption", "")) < 20 or not figure.get("name", "").startswith("fig-"):
            wrong.append(f"{name(cell)}: figure {dict(figure)} lacks a caption or a name fig-…")
    names = figure_names(nb)
    return wrong + [f"{n} twice" for n in set(names) if names.count(n) > 1]


def figure_names(nb) -> list[str]:
    figures = (cell.metadata.get("mystnb", {}).get("figure", {}) for cell in code_cells(nb))
    return [figure["name"] for figure in figures if "name" in figure]


def several_pictures_in_a_cell(nb) -> list[str]:
    """Their one caption and name would be given twice."""
    pictures = {name(cell): sum("data" in o for o in cell.outputs) for cell in filter(has_picture, code_cells(nb))}
    return [f"{cell}: {count} pictures" for cell, count in pictures.items() if count > 1]


def not_one_title(nb) -> list[str]:
    prose = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    prose = re.sub(r"^(```+|~~~+).*?^\1", "", prose, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^# .*", prose, re.MULTILINE)
    first = nb.cells[0].source if nb.cells[0].cell_type == "markdown" else ""
    return [] if len(titles) == 1 and first.startswith("# ") else [f"titles: {titles}"]


def long_cells(nb) -> list[str]:
    hidden = {"remove-cell", "remove-input", "hide-input", "hide-cell"}
    lengths = {name(cell): len(cell.source.strip().split("\n")) for cell in code_cells(nb) if not tags(cell) & hidden}
    return [f"{cell}: {length} lines" for cell, length in lengths.items() if length > 20]


def machine_paths(nb) -> list[str]:
    wrong = []
    for cell in code_cells(nb):
        for o in cell.outputs:
            shown = {k: v for k, v in o.get("data", {}).items() if not k.startswith("image/") or k == "image/svg+xml"}
            text = "\n".join([*map(str, shown.values()), o.get("text", ""), *o.get("traceback", [])])
            wrong += [f"{name(cell)}: {found.group()}" for found in MACHINE_PATH.finditer(text)]
    return wrong


def timing(nb) -> list[str]:
    """Timing changes at every run, so it would make every run a change to commit."""
    return [name(cell) for cell in nb.cells if "execution" in cell.metadata] + ["papermill"] * (
        "papermill" in nb.metadata
    )


def raw_roles(nb) -> list[str]:
    """Markup of MyST, which no notebook front end shows: a role, a directive, a label, a definition list."""
    marks = re.compile(r"\{[a-zA-Z:+-]+\}`|^:::+|^```+\{|^\([\w-]+\)=$|^\$\$ \([\w-]+\)$|^: \S", re.MULTILINE)
    texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"] + [text for _, text in prose_outputs(nb)]
    return [found.group() for text in texts for found in marks.finditer(text)]


def prose_outputs(nb) -> list[tuple]:
    """The cells that show prose, each with a paragraph that it showed."""
    return [
        (cell, output.data["text/markdown"])
        for cell in code_cells(nb)
        for output in cell.outputs
        if "text/markdown" in output.get("data", {})
    ]


def prose_beside_other_output(nb) -> list[str]:
    """A cell that shows a paragraph shows nothing else: no source, neither on the site nor in a front end."""
    wrong = []
    for cell in code_cells(nb):
        if re.search(r"^display_markdown\(", cell.source, re.MULTILINE):
            folded = tags(cell) == {"remove-input"} and cell.metadata.get("jupyter", {}).get("source_hidden")
            shown = cell.outputs and all("text/markdown" in output.get("data", {}) for output in cell.outputs)
            wrong += [] if folded and shown else [name(cell)]
    return wrong


def prose_with_too_many_digits(nb) -> list[str]:
    """A processor that adds in another order changes the last digits; whole numbers have none."""
    wrong = []
    for cell, text in prose_outputs(nb):
        numbers = re.findall(r"(?<![\w/.(-])\d[\d,]*\.\d+", text)
        wrong += [n for n in numbers if len(re.sub(r"\D", "", n).lstrip("0")) > 6]
        wrong += [name(cell)] * bool(re.search(r"np\.\w+\(|tensor\(", text))
    return wrong


def parsed(cell) -> ast.Module:
    """The code of a cell, its magics left out."""
    return ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", cell.source, flags=re.MULTILINE))


def bare_asserts(nb) -> list[str]:
    """A reader's picture must not end the run: claim() checks in its place."""
    nodes = [(cell, node) for cell in code_cells(nb) for node in ast.walk(parsed(cell))]
    return [name(cell) for cell, node in nodes if isinstance(node, ast.Assert)]


def is_removed(cell) -> bool:
    return bool(tags(cell) & {"remove-cell", "remove-input"})


def before_prose(cell) -> list[str]:
    """The lines of a cell, without those of its prose."""
    return re.split(r"^display_markdown\(", cell.source, flags=re.MULTILINE)[0].strip().split("\n")


def long_removed_cells(nb) -> list[str]:
    lengths = {name(cell): len(before_prose(cell)) for cell in code_cells(nb) if is_removed(cell)}
    return [f"{cell}: {length} lines" for cell, length in lengths.items() if length > 12]


def made_and_used(cells) -> tuple[set[str], set[str]]:
    made, used = set(), set()
    for node in (node for cell in cells for node in ast.walk(parsed(cell))):
        if isinstance(node, ast.alias):
            made.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
    return made, used


def hidden_names(nb) -> list[str]:
    """What the page uses, it also shows how it is made; and no claim is made in secret."""
    cells = code_cells(nb)
    removed_made, _ = made_and_used(filter(is_removed, cells))
    made, used = made_and_used(cell for cell in cells if not is_removed(cell))
    secret = [name(cell) for cell in cells if is_removed(cell) and "claim(" in cell.source]
    return sorted(removed_made & used - made) + secret


def wide_cells(nb) -> list[str]:
    hidden = {"remove-cell", "remove-input", "hide-input", "hide-cell"}
    cells = [cell for cell in code_cells(nb) if not tags(cell) & hidden]
    return [line for cell in cells for line in cell.source.split("\n") if len(line) > 88]


RULES = [
    not_run_in_order, stored_stderr, stored_errors, skipped_checks, pictures_without_alt_text,
    pictures_without_caption, several_pictures_in_a_cell, not_one_title, long_cells, machine_paths, timing,
    raw_roles, prose_beside_other_output, prose_with_too_many_digits, bare_asserts, long_removed_cells, hidden_names, wide_cells,
]  # fmt: skip
