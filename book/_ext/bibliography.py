"""The list of references labelled as the text cites: by author and year. A Sphinx extension."""

import unicodedata

from pybtex.plugin import register_plugin
from pybtex.style.formatting.unsrt import Style as Unsorted
from pybtex.style.labels import BaseLabelStyle
from pybtex.style.sorting import BaseSortingStyle
from sphinx.application import Sphinx


class AuthorYear(BaseLabelStyle):
    """Ballé et al., 2018; a letter follows where two would be the same."""

    def format_labels(self, sorted_entries):
        seen: dict[str, int] = {}
        for entry in sorted_entries:
            label = f"{names(entry)}, {entry.fields.get('year', 'n. d.')}"
            seen[label] = seen.get(label, 0) + 1
            yield label if seen[label] == 1 else f"{label}{'abcdefgh'[seen[label] - 1]}"


def names(entry) -> str:
    people = [
        " ".join(str(part) for part in (*person.rich_prelast_names, *person.rich_last_names))
        for person in entry.persons["author"]
    ]
    return f"{people[0]} et al." if len(people) > 2 else " and ".join(people)


class ByLabel(BaseSortingStyle):
    """In the order of the labels, as a reader looks for them: é stands with e, and years rise."""

    def sorting_key(self, entry):
        letters = unicodedata.normalize("NFKD", names(entry)).casefold()
        plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
        return plain, entry.fields.get("year", ""), entry.fields.get("title", "")


class Style(Unsorted):
    default_sorting_style = ByLabel
    default_label_style = AuthorYear


def setup(app: Sphinx) -> dict[str, bool]:
    register_plugin("pybtex.style.formatting", "author_year", Style)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
