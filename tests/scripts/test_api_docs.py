"""What the API page shows of a definition."""

import ast

import kshot
from scripts import api_docs

SOURCE = '''
@dataclass(frozen=True)
class Settings:
    """Of a kernel."""

    kappa: float = 20.0
    """Concentration; higher trusts
    only near-identical tokens."""
    _hidden: int = 0
    names: tuple[str, ...] = field(default=())

    @property
    def width(self) -> "int":
        """One over kappa."""

    def fit(self, image: "str | Path", *rest: int, size: int = 4, **more: Any) -> None:
        """Fit::

            settings.fit("a.jpg")
        """

    def _secret(self) -> None:
        """Not shown."""
'''


def test_a_class_shows_its_fields_with_the_strings_below_them_and_its_public_methods() -> None:
    node = ast.parse(SOURCE).body[0]
    assert isinstance(node, ast.ClassDef)
    text = "\n".join(api_docs.described(node))
    assert "- `kappa: float = 20.0`: Concentration; higher trusts only near-identical tokens.\n" in text
    assert "- `names: tuple[str, ...]`\n" in text
    assert "- `width: int` (property): One over kappa.\n" in text
    assert "def fit(image: str | Path, *rest: int, size: int = 4, **more: Any) -> None\n" in text
    assert 'Fit:\n\n    settings.fit("a.jpg")\n' in text
    assert "hidden" not in text and "secret" not in text


def test_every_public_name_of_kshot_is_on_the_page() -> None:
    page = api_docs.build()
    for name in set(kshot.__all__) - {"__version__", "errors"}:
        assert f"### `kshot.{name}`\n" in page, name
    assert "### `kshot.errors.KshotError`\n" in page
