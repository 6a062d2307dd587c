"""The notebook runs from its first cell to its last, with tiny weights."""

import nbformat
import pytest
from nbclient import NotebookClient

from lumiere_jax.checkpoints.exporting import export
from tests.docs.blocks import REPOSITORY
from tests.tiny_runs import overrides

NOTEBOOK = REPOSITORY / "notebooks" / "quickstart.ipynb"


@pytest.fixture(name="notebook")
def fixture_notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_all_cells_run(notebook, cascade, tmp_path, monkeypatch):
    export([str(cascade[s]) for s in ("stunet", "ssr", "stunet_conditional")], tmp_path / "bundle")
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    (place,) = (
        i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", [])
    )
    values = {"WEIGHTS": "bundle", "TRAINING": overrides("t2i")}
    injected = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(injected))
    NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}}).execute()
    data = [out.data for cell in notebook.cells for out in cell.get("outputs", []) if "data" in out]
    shown = [kind for item in data for kind in ("image/gif", "image/png") if kind in item]
    assert shown == ["image/gif", "image/gif", "image/png"]


def test_it_is_stored_without_outputs(notebook):
    assert not any(cell.get("outputs") for cell in notebook.cells)
