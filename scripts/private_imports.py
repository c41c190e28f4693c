"""The contract that a module whose name begins with an underscore is imported by its own package alone.

import-linter's wildcards stand for whole names, so `_*` needs a contract type of its own; pyproject.toml registers it.
"""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output


def private_imports(graph: ImportGraph) -> list[tuple[str, str]]:
    """Sorted pairs (importer, imported), where the importer lies outside the package that the private module is in."""
    pairs = []
    for imported in graph.modules:
        package, underscore, _ = imported.partition("._")
        if underscore and "." in package:  # modules directly in kshot/ serve all of kshot
            importers = graph.find_modules_that_directly_import(imported)
            pairs += [(name, imported) for name in importers if not f"{name}.".startswith(f"{package}.")]
    return sorted(pairs)


class PrivateImports(Contract):
    """Fails for each import of a private module from another package; takes no options."""

    type_name = "private_imports"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        pairs = private_imports(graph)
        return ContractCheck(kept=not pairs, metadata={"pairs": pairs})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for importer, imported in check.metadata["pairs"]:
            output.print_error(f"{importer} imports {imported}", bold=False)
