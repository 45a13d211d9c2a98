"""Clusters, near-duplicates and maps of an index, each beside a naive twin."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from echovec import Index
from echovec.cli import app
from echovec.errors import DependencyError, InputError
from echovec.search import clusters, dedup
from echovec.search import map as maps
from echovec.search.clusters import centred, find_clusters, telling_words
from search_stub import some_vectors, source, write_parquet

WORDS = {0: "cat mat purr", 1: "stock market bank", 2: "train rail station"}


def three_kinds(rows=90, dimension=16, seed=0):
    """Vectors around three far directions, and texts of the words of each."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(3, size=rows)
    kinds[:3] = [0, 1, 2]
    vectors = np.eye(dimension)[kinds * 5] + 0.15 * rng.standard_normal((rows, dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    texts = [f"the {WORDS[kind]} and so on {n}" for n, kind in enumerate(kinds.tolist())]
    return vectors.astype(np.float32), kinds, texts


@pytest.fixture
def built(tmp_path):
    """An index of three kinds of texts, with fields."""
    vectors, kinds, texts = three_kinds()
    made = source(
        vectors,
        texts=texts,
        kind=[WORDS[k].split()[0] for k in kinds.tolist()],
        year=[1950 + n if n % 9 else None for n in range(len(texts))],
        alike=[1] * len(texts),
        name_of=[f"name {n}" for n in range(len(texts))],
    )
    return Index.build(made, tmp_path / "built")


def test_clusters_are_the_kinds_there_are():
    """Three far directions are found, largest first, with their words."""
    vectors, kinds, texts = three_kinds()
    found = find_clusters(vectors, 3, texts=texts)
    assert len({(a, b) for a, b in zip(kinds.tolist(), found.labels_N.tolist(), strict=True)}) == 3
    assert found.sizes == sorted(found.sizes, reverse=True)
    assert sum(found.sizes) == 90
    for kind, words in WORDS.items():
        label = int(found.labels_N[kinds == kind][0])
        assert set(found.words[label][:3]) == set(words.split())
        assert "the" not in found.words[label][:3]


def test_clusters_are_a_fixed_point_of_their_own_step():
    """Every row is with its nearest centre, and every centre is the unit mean of its rows."""
    given = some_vectors(700, 20, clusters=9)
    found, vectors = find_clusters(given, 9, seed=4), centred(given)
    assert (vectors @ found.centres_KD.T).argmax(axis=1).tolist() == found.labels_N.tolist()
    for label, centre in enumerate(found.centres_KD):
        mean = vectors[found.labels_N == label].mean(axis=0)
        np.testing.assert_allclose(centre, mean / np.linalg.norm(mean), atol=1e-5)
    again = find_clusters(given, 9, seed=4)
    assert again.labels_N.tolist() == found.labels_N.tolist(), "equal input, equal clusters"


def test_cosines_are_with_the_centres_that_are_given_also_if_rows_still_move(monkeypatch):
    """Stopped after one round, labels and cosines are those of the centres that come out."""
    monkeypatch.setattr(clusters, "ROUNDS", 1)
    vectors = some_vectors(200)
    found = find_clusters(vectors, 9)
    scores = centred(vectors) @ found.centres_KD.T
    assert (found.labels_N == scores.argmax(axis=1)).all()
    np.testing.assert_allclose(found.cosines_N, scores.max(axis=1), atol=1e-6)


def test_clusters_are_as_good_as_those_of_scikit_learn():
    """The sum of cosines with the centres is within two per cent of its best of ten."""
    cluster = pytest.importorskip("sklearn.cluster", reason="scikit-learn comes with eval")
    vectors = centred(some_vectors(600, 20, clusters=9))
    theirs = cluster.KMeans(9, n_init=10, random_state=0).fit(vectors)
    centres = theirs.cluster_centers_
    centres = centres / np.linalg.norm(centres, axis=1, keepdims=True)
    best = (vectors * centres[theirs.labels_]).sum()
    ours = max(find_clusters(vectors, 9, seed=s).cosines_N.sum() for s in range(3))
    assert ours > 0.98 * best


def test_fewer_different_rows_than_clusters_give_fewer_clusters():
    """No cluster is empty, and wrong numbers are refused."""
    same = np.repeat(some_vectors(2), 5, axis=0)
    assert find_clusters(same, 4).sizes == [5, 5]
    with pytest.raises(InputError, match="11 clusters of 10 rows"):
        find_clusters(same, 11)


def test_words_are_those_that_set_a_cluster_apart():
    """P log(p / q) by hand for two clusters; each text counts a word once, common words are out."""
    labels = np.array([0, 0, 1])
    words = telling_words(labels, 2, ["the apple apple pear", "the apple fig", "the pear plum"])
    # Cluster 0: the 2, apple 2, pear 1, fig 1, of 6; cluster 1: the 1, pear 1, plum 1, of 3.
    weight = {
        "apple": 2 / 6 * np.log((2 / 6) / (2 / 9)),
        "fig": 1 / 6 * np.log((1 / 6) / (1 / 9)),
        "the": 2 / 6 * np.log((2 / 6) / (3 / 9)),
        "pear": 1 / 6 * np.log((1 / 6) / (2 / 9)),
    }
    kept = sorted((word for word in weight if weight[word] > 1e-9), key=weight.get, reverse=True)
    assert words[0] == kept == ["apple", "fig"]
    assert words[1] == ["plum", "pear"]
    assert telling_words(labels, 2, [None, None, None]) == [[], []]


def test_a_direction_that_all_rows_share_does_not_blur_clusters():
    """With a strong common direction the kinds are still found."""
    vectors, kinds, _ = three_kinds()
    shared = vectors + 3 * np.eye(16)[1].astype(np.float32)
    shared /= np.linalg.norm(shared, axis=1, keepdims=True)
    found = find_clusters(shared, 3)
    assert len({*zip(kinds.tolist(), found.labels_N.tolist(), strict=True)}) == 3


def naive_groups(vectors, threshold):
    """Row after row: to the nearest kept one if that is near enough, else kept."""
    groups = {}
    for row, vector in enumerate(vectors):
        near = {kept: float(vectors[kept] @ vector) for kept in groups}
        best = max(near, key=near.get, default=None)
        if best is not None and near[best] >= threshold:
            groups[best].append((row, near[best]))
        else:
            groups[row] = []
    return {kept: others for kept, others in groups.items() if others}


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("block", [7, 2048])
def test_groups_are_those_of_a_loop_over_rows(monkeypatch, threshold, block):
    """Every row that could go is near the one that stays, whatever the blocks are."""
    monkeypatch.setattr(dedup, "_BLOCK_ROWS", block)
    vectors = some_vectors(150, 6, clusters=30)
    vectors[100] = vectors[20]
    steps = []
    groups = dedup.find_groups(vectors, threshold, progress=steps.append)
    expected = naive_groups(vectors, threshold)
    assert {g.kept: g.others for g in groups} == {
        kept: [row for row, _ in others] for kept, others in expected.items()
    }
    assert sum(steps) == 150
    for group in groups:
        cosines = [cosine for _, cosine in expected[group.kept]]
        assert group.cosines == pytest.approx(cosines, abs=1e-5)


def test_a_threshold_next_to_nothing_is_a_threshold():
    """Below the rounding that is allowed for, the first row still has none before it."""
    vectors = some_vectors(30)
    found = {g.kept: g.others for g in dedup.find_groups(vectors, 1e-7)}
    expected = naive_groups(vectors, 1e-7)
    assert found == {kept: [row for row, _ in others] for kept, others in expected.items()}


def test_many_equal_rows_are_one_group():
    """Thousands of equal rows, which are millions of pairs, take no time."""
    same = np.repeat(some_vectors(1), 3000, axis=0)
    (group,) = dedup.find_groups(same, 1.0)
    assert (group.kept, len(group.others)) == (0, 2999)
    assert min(group.cosines) == pytest.approx(1, abs=1e-6)
    assert dedup.usual_threshold(same) == pytest.approx(1, abs=1e-6)
    with pytest.raises(InputError, match=r"threshold=1\.5"):
        dedup.find_groups(same, 1.5)


def test_the_usual_threshold_follows_how_near_all_rows_are():
    """A direction that all rows share moves it as it moves the cosines."""
    vectors = some_vectors(300, 30)
    shared = vectors + 3 * np.eye(30)[0]
    shared /= np.linalg.norm(shared, axis=1, keepdims=True)
    for rows in (vectors, shared):
        pairs = (rows @ rows.T)[~np.eye(300, dtype=bool)]
        assert dedup.mean_cosine(rows) == pytest.approx(pairs.mean(), abs=1e-5)
    assert dedup.usual_threshold(vectors) == pytest.approx(0.9, abs=0.05)
    assert dedup.usual_threshold(shared) > 0.98
    assert dedup.mean_cosine(vectors[:1]) == 0


def test_dedup_reports_what_could_go(tmp_path, built):
    """The command counts, shows the largest groups and writes a line for each."""
    out = tmp_path / "groups.jsonl"
    arguments = ["dedup", str(built.folder), "--threshold", "0.4", "-o", str(out)]
    said = CliRunner().invoke(app, arguments).stdout
    assert "90 rows, 3 groups of near-duplicates: 87 rows could go, 3 would stay" in said
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["keep"] for line in lines] == ["r0", "r1", "r2"]
    assert sum(len(line["others"]) for line in lines) == 87


def test_cluster_reports_sizes_words_and_rows(tmp_path, built):
    """The command prints each cluster, and writes where each row is."""
    out = tmp_path / "rows.jsonl"
    arguments = ["cluster", str(built.folder), "-n", "3", "-o", str(out)]
    said = CliRunner().invoke(app, arguments).stdout
    assert "purr" in said
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(90)]
    report = CliRunner().invoke(app, [*arguments, "--json"]).stdout.splitlines()
    assert sum(json.loads(line)["rows"] for line in report) == 90


def data_of(page):
    """The JSON inside a page."""
    start = page.index('id="data">') + len('id="data">')
    return json.loads(page[start : page.index("</script>", start)])


def test_a_map_holds_every_point_and_colour(tmp_path, built):
    """Points, texts, clusters and the fields that tell rows apart are in the page."""
    said = CliRunner().invoke(app, ["map", str(built.folder), "-o", str(tmp_path / "map.html")])
    assert "90 of 90 rows" in said.stderr
    assert f"uvx embedding-atlas {tmp_path}/map.parquet --x x --y y" in said.stderr
    page = (tmp_path / "map.html").read_text("utf-8")
    data = data_of(page)
    assert data["ids"] == [f"r{n}" for n in range(90)]
    assert np.abs(data["xy"]).max() == pytest.approx(1, abs=1e-3)
    assert [colour["name"] for colour in data["colours"]] == ["cluster", "kind", "year"]
    years = data["colours"][2]
    assert years["labels"][-1] == "none"
    assert (np.bincount(years["values"])[:-1] >= 10).all(), "parts of about equally many rows"
    assert "src=" not in page, "nothing is fetched"
    assert "http" not in page.replace("http-equiv", "")
    table = pq.read_table(tmp_path / "map.parquet")
    assert {"id", "text", "x", "y", "cluster", "kind", "year"} <= set(table.column_names)


def test_a_text_cannot_break_out_of_the_page(tmp_path):
    """Markup in texts, ids and titles is data; long texts are cut."""
    evil = ["</script><script>alert(1)</script>", "<!-- ", "\u2028 and x" * 200]
    index = Index.build(source(some_vectors(3), texts=evil, ids=["<b>", "b", "c"]), tmp_path / "i")
    maps.write_map(index.points(), tmp_path / "map.html", title="<i>")
    page = (tmp_path / "map.html").read_text("utf-8")
    assert page.count("</script>") == 2
    assert data_of(page)["texts"][:2] == evil[:2]
    assert len(data_of(page)["texts"][2]) == maps.TEXT_CHARACTERS


def test_a_map_replaces_its_own_points_and_no_other_file(tmp_path, built):
    """Vectors of the page's name, or what is no Parquet: refused before the work, untouched."""
    args = ["map", str(built.folder), "-o"]
    assert CliRunner().invoke(app, [*args, str(tmp_path / "m.html")]).exit_code == 0
    assert CliRunner().invoke(app, [*args, str(tmp_path / "m.html")]).exit_code == 0, "its own"
    vectors = write_parquet(tmp_path / "docs.parquet", some_vectors(3), x=[1] * 3, y=[1] * 3)
    (tmp_path / "notes.parquet").write_text("mine")
    for file in (vectors, tmp_path / "notes.parquet"):
        before = file.read_bytes()
        with pytest.raises(InputError, match=r"parquet would be replaced .* another name"):
            maps.write_map(built.points(), file.with_suffix(".html"), title="t")
        assert file.read_bytes() == before
        assert not file.with_suffix(".html").exists()


def test_fields_called_as_the_maps_own_columns_stay(tmp_path):
    """x, y and cluster of the rows are in the table unchanged, the map's beside them."""
    vectors, _, texts = three_kinds(30)
    own = {"x": list(range(30)), "map_x": ["m"] * 30, "cluster": [f"c{n % 2}" for n in range(30)]}
    index = Index.build(source(vectors, texts=texts, **own), tmp_path / "index")
    said = CliRunner().invoke(app, ["map", str(index.folder), "-o", str(tmp_path / "map.html")])
    assert "--x map_map_x --y y --text text" in said.stderr
    table = pq.read_table(tmp_path / "map.parquet").to_pydict()
    assert {name: table[name] for name in own} == own
    assert max(map(abs, table["map_map_x"] + table["y"])) == pytest.approx(1)
    assert all("," in words for words in table["map_cluster"]), "words, as ever"
    data = data_of((tmp_path / "map.html").read_text("utf-8"))
    assert [colour["name"] for colour in data["colours"]] == ["map_cluster", "x", "cluster"]
    again = CliRunner().invoke(app, ["map", str(index.folder), "-o", str(tmp_path / "map.html")])
    assert again.exit_code == 0, "its own table is replaced"


@pytest.mark.parametrize(
    ("verb", "name"), [("cluster", "rows.jsonl"), ("dedup", "groups.jsonl"), ("map", "map.html")]
)
def test_a_place_that_cannot_be_is_said_before_the_work(monkeypatch, tmp_path, built, verb, name):
    """A folder that is not there, or a folder of the file's name: with the next step, at once."""
    monkeypatch.setattr(Index, "points", lambda *_: pytest.fail("worked"))
    (tmp_path / name).mkdir()
    for out, said in ((tmp_path / "no such" / name, "mkdir -p '"), (tmp_path / name, "not a file")):
        done = CliRunner().invoke(app, [verb, str(built.folder), "-o", str(out)])
        assert isinstance(done.exception, InputError)
        assert said in str(done.exception)


def test_a_limit_is_said_on_the_map(tmp_path, built):
    """Fewer points than rows: the page says how many of how many."""
    maps.write_map(built.points(20), tmp_path / "map.html", title="x")
    assert "20 of 90 rows" in data_of((tmp_path / "map.html").read_text("utf-8"))["facts"]


def test_many_values_share_a_colour():
    """Fifteen values keep a colour of their own, the rest share one that says so."""
    values = [f"v{n}" for n in range(40) for _ in range(40 - n)]
    colour = maps._field_colour("tag", values)
    assert colour.labels[-1] == "other"
    assert len(colour.labels) == maps.KINDS_SHOWN
    shown = dict(zip(values, colour.values, strict=True))
    assert all(colour.labels[label] in (value, "other") for value, label in shown.items())


def test_umap_missing_names_the_extra(built, monkeypatch):
    """Without umap-learn the message says what to install; other methods are refused."""
    import sys

    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(DependencyError, match=r"echovec\[viz\]"):
        maps.plane(built.points(), "umap")
    with pytest.raises(InputError, match="method 'tsne'"):
        maps.plane(built.points(), "tsne")


@pytest.mark.slow
def test_umap_keeps_kinds_apart(built):
    """On a UMAP plane the nearest point of each point is of its kind."""
    pytest.importorskip("umap", reason="the extra viz")
    points = built.points()
    xy = maps.plane(points, "umap")
    distances = np.linalg.norm(xy[:, None] - xy[None], axis=2) + 9 * np.eye(len(xy))
    kinds = np.array(points.fields["kind"])
    assert (kinds[distances.argmin(axis=1)] == kinds).mean() > 0.95


def test_the_map_works_in_a_browser(tmp_path, built):
    """Points show their text, the search counts, colours change, and nothing is fetched."""
    sync = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    import shutil

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium here")
    maps.write_map(built.points(), tmp_path / "map.html", title="three kinds", clusters=3)
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 700})
        problems, fetched = [], []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(f"file://{tmp_path}/map.html")
        assert page.title() == "three kinds"
        assert page.locator("#legend li").count() == 3
        x, y = page.evaluate("echovecMap.place(17)")
        page.mouse.move(x, y)
        assert page.locator("#tip").is_visible()
        assert page.locator("#tip").inner_text().splitlines()[1] in built.points().texts
        page.fill("#search", "STATION")
        kinds = built.points().fields["kind"]
        assert page.locator("#found").inner_text() == f"{kinds.count('train')} of 90"
        page.fill("#search", "")
        page.select_option("#colour", "kind")
        assert page.locator("#legend li span").all_inner_texts() != []
        page.locator("#legend button").first.click()
        assert page.locator('#legend button[aria-pressed="false"]').count() == 2
        before = page.evaluate("document.documentElement.dataset.theme")
        page.click("#theme")
        assert page.evaluate("document.documentElement.dataset.theme") != before
        page.mouse.move(700, 300)
        page.mouse.wheel(0, -600)
        assert page.evaluate("echovecMap.place(0)") != [x, y]
        browser.close()
    assert problems == []
    assert fetched == [f"file://{tmp_path}/map.html"]
