"""What every backend of nearest neighbours must do."""

import shutil

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from smartsplat_large.config import NeighborSearch
from smartsplat_large.errors import MissingDependencyError, UsageError
from smartsplat_large.sampling import neighbors_keops
from smartsplat_large.sampling.neighbors import Neighbors

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="KeOps needs a C++ compiler"
)
BACKENDS = ["kdtree", pytest.param("keops", marks=needs_compiler)]


def clustered(rng: np.random.Generator) -> np.ndarray:
    """A dense cluster with duplicates, and so few points elsewhere that neighbours are many cells away."""
    dense = rng.normal(size=(1500, 2)) * 3 + 40
    return np.concatenate([dense, rng.random((30, 2)) * 4000, dense[:20]])


LAYOUTS = {
    "even": lambda rng: rng.random((1500, 2)) * 300,
    "far": lambda rng: rng.random((1500, 2)) + 1e5,
    "clustered": clustered,
    "line": lambda rng: rng.random((1500, 2)) * (100_000, 0) + (0, 0.5),
    "grid": lambda rng: np.argwhere(np.ones((30, 50))) + 0.5,
    "one place": lambda rng: np.full((100, 2), 3.25),
    "few": lambda rng: rng.random((4, 2)) * 10,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_distances_are_those_of_brute_force(backend: NeighborSearch, layout: str) -> None:
    rng = np.random.default_rng(3)
    references = LAYOUTS[layout](rng).astype(np.float64)
    low, high = references.min(axis=0), references.max(axis=0)
    queries = low + (rng.random((400, 2)) * 1.4 - 0.2) * (high - low)

    distances, indices = Neighbors(references, 3, backend=backend).of(queries)

    np.testing.assert_allclose(distances, np.sort(cdist(queries, references), axis=1)[:, :3], rtol=1e-6, atol=1e-9)
    at = np.linalg.norm(references[indices] - queries[:, None], axis=2)
    np.testing.assert_allclose(distances, at, rtol=1e-12, atol=1e-12)
    assert all(len(set(row)) == 3 for row in indices.tolist())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_query_may_be_kept_from_finding_itself(backend: NeighborSearch, layout: str) -> None:
    points = LAYOUTS[layout](np.random.default_rng(4)).astype(np.float64)
    itself = np.arange(len(points))

    distances, indices = Neighbors(points, 3, backend=backend, excluding=True).of(points, itself)

    assert not (indices == itself[:, None]).any()
    others = cdist(points, points)
    np.fill_diagonal(others, np.inf)
    np.testing.assert_allclose(distances, np.sort(others, axis=1)[:, :3], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fewer_references_than_asked_for(backend: NeighborSearch) -> None:
    references = np.array([[0.0, 0.0], [3.0, 4.0]])

    distances, indices = Neighbors(references, 4, backend=backend).of(np.zeros((1, 2)))
    assert (distances.tolist(), indices.tolist()) == ([[0, 5, np.inf, np.inf]], [[0, 1, -1, -1]])

    distances, indices = Neighbors(references, 2, backend=backend, excluding=True).of(references, np.array([0, 1]))
    assert (distances.tolist(), indices.tolist()) == ([[5, np.inf], [5, np.inf]], [[1, -1], [0, -1]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_search_or_to_find(backend: NeighborSearch) -> None:
    none = np.zeros((0, 2))

    assert Neighbors(np.ones((5, 2)), 3, backend=backend).of(none)[0].shape == (0, 3)
    distances, indices = Neighbors(none, 1, backend=backend).of(np.ones((2, 2)))
    assert (distances.tolist(), indices.tolist()) == ([[np.inf]] * 2, [[-1]] * 2)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(UsageError, match="'faiss'"):
        Neighbors(np.ones((1, 2)), 1, backend="faiss")  # type: ignore[arg-type]


def test_without_a_compiler_keops_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(MissingDependencyError, match="no C\\+\\+ compiler") as caught:
        Neighbors(np.ones((1, 2)), 1, backend="keops")
    assert "kdtree" in (caught.value.hint or "")


def test_gathered_references_are_split_into_groups_of_cells() -> None:
    limit = neighbors_keops._GATHERED

    groups = neighbors_keops._groups([limit - 1, 1, 1, limit + 5, 3])

    assert groups == [slice(0, 2), slice(2, 3), slice(3, 4), slice(4, 5)]
