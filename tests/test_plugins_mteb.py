"""mteb: the recipes that ship in its registry, and its own mock tasks over a registered one."""

from __future__ import annotations

import pytest

mteb = pytest.importorskip("mteb")

from mteb.models.model_implementations import MODEL_REGISTRY  # noqa: E402

from echovec.errors import InputError  # noqa: E402
from echovec.evaluate.encoder import model_meta  # noqa: E402
from echovec.evaluate.quiet import without_noise  # noqa: E402
from echovec.plugins.mteb import RECIPES, TRAINED, register, shipped_metas  # noqa: E402
from plugins_stub import embedder  # noqa: E402


@pytest.fixture(autouse=True)
def _registry(monkeypatch):
    kept = dict(MODEL_REGISTRY)
    for name in [name for name in kept if name.startswith("echovec/")]:
        del MODEL_REGISTRY[name]  # a page of docs/ that was run in this process registers them
    yield
    MODEL_REGISTRY.clear()
    MODEL_REGISTRY.update(kept)


def test_registered_models_pass_all_of_mtebs_mock_tasks():
    """`mteb.mock_run` on a model fetched by name: every task of texts passes, none is left out."""
    *_, name = register(embedder())
    with without_noise():
        model = mteb.get_model(name)
        results = mteb.mock_run(model)
    ran = [status for _, status in results.items() if status is not None]
    assert results.all_passed
    assert len(ran) >= 20
    assert all(type(status).__name__ == "TaskResult" for status in ran)


def test_rows_are_complete():
    """Each row says what mteb's own rows say, and its revision is a fingerprint."""
    metas = shipped_metas()
    assert [meta.name.rpartition("--")[2] for meta in metas] == [*RECIPES, *TRAINED]
    for meta in metas:
        assert len(meta.revision) == 16
        assert meta.name.startswith("echovec/SmolLM2-135M-Instruct--")
        assert None not in (meta.license, meta.embed_dim, meta.n_parameters, meta.reference)
    assert len({meta.revision for meta in metas}) == len(metas)


def test_rows_are_true_of_the_default_model(default_embedder):
    """Name, revision, width and budget of each recipe's row are those of the model with it."""
    for name, said in zip(RECIPES, shipped_metas(), strict=False):
        found = model_meta(default_embedder.with_recipe(name))
        for field in ("name", "revision", "embed_dim", "max_tokens", "use_instructions"):
            assert getattr(found, field) == getattr(said, field), f"{name}: {field}"


def test_rows_are_found_by_name_after_register_only():
    """No import changes mteb; `register` does, for this process."""
    name = shipped_metas()[0].name
    assert name not in MODEL_REGISTRY
    register()
    assert mteb.get_model_meta(name).revision == shipped_metas()[0].revision


def test_a_trained_row_says_what_it_saw():
    """The adapter's row has its own licence and its training sets, which its card names, too."""
    from echovec.saved import saved_folder

    for meta, name in zip(shipped_metas()[len(RECIPES) :], TRAINED, strict=True):
        card = (saved_folder(name) / "README.md").read_text("utf-8")
        assert meta.training_datasets
        assert all(one in card for one in meta.training_datasets)
        assert meta.license == "cc-by-sa-4.0"
        assert "CC BY-SA 4.0" in card


@pytest.mark.slow
def test_the_adapter_passes_mtebs_mock_tasks(default_model):
    """`mteb.mock_run` over the trained embedder that ships, fetched by name: every task passes."""
    name = register()[len(RECIPES)]
    assert name.endswith("--smollm2-135m-echo")
    with without_noise():
        results = mteb.mock_run(mteb.get_model(name))
    ran = [status for _, status in results.items() if status is not None]
    assert results.all_passed
    assert len(ran) >= 20


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [*RECIPES, *TRAINED])
def test_a_row_is_true_of_the_model(recipe, default_model):
    """Loaded, name, revision, width and budget are those that the row promised."""
    names = register()
    name = names[[*RECIPES, *TRAINED].index(recipe)]
    with without_noise():
        model = mteb.get_model(name)
    found, said = model_meta(model.model), mteb.get_model_meta(name)
    for field in ("name", "revision", "embed_dim", "max_tokens", "use_instructions"):
        assert getattr(found, field) == getattr(said, field), field


def test_options_that_would_move_vectors_are_refused():
    """A row's revision is a promise: only the device may be chosen."""
    *_, name = register(embedder())
    with pytest.raises(InputError, match="precision"):
        mteb.get_model(name, precision="fast")
