"""Which imports the contract about private modules refuses."""

from grimp import ImportGraph
from scripts.private_imports import private_imports


def test_a_private_module_is_for_its_own_package() -> None:
    graph = ImportGraph()
    allowed = [
        ("kshot.methods.text", "kshot.methods._embeddings"),
        ("kshot.methods.auto.task", "kshot.methods._embeddings"),
        ("kshot.methods", "kshot.methods._embeddings"),
        ("kshot.cli.main", "kshot._plugins"),
    ]
    refused = [
        ("kshot.batch.run", "kshot.formats._instances"),
        ("kshot.methods.text", "kshot.methods.auto._weights"),
        ("kshot.methods_extra", "kshot.methods._embeddings"),
    ]
    for importer, imported in allowed + refused:
        graph.add_import(importer=importer, imported=imported)
    assert private_imports(graph) == sorted(refused)
