"""The OpenAPI document: this server's own names and limits, and every answer it may give."""

from __future__ import annotations

from echovec.serve.app import create_app
from serve_stub import service


def document(**limits):
    """What /openapi.json has."""
    return create_app(service(**limits)).app.openapi()


def fields(name, **limits):
    """The fields of a body."""
    return document(**limits)["components"]["schemas"][name]["properties"]


def test_names_and_limits_are_the_servers_own():
    """Model names, width of vectors, vocabulary, special ids and counts stand in the schema."""
    found = fields("EmbeddingsRequest", max_inputs=7)
    names = [f"{n}{r}" for n in ("echo", "classical") for r in ("", ":query", ":document")]
    assert found["model"]["enum"] == names
    assert found["dimensions"]["anyOf"][0]["maximum"] == 32
    _, texts, ids, rows = found["input"]["anyOf"]
    assert texts["maxItems"] == ids["maxItems"] == rows["maxItems"] == 7
    assert ids["items"] == {"type": "integer", "minimum": 0, "maximum": 257} | {
        "not": {"enum": [256, 257]}
    }
    assert found["instruction"]["anyOf"] == [{"type": "null"}]  # no recipe here takes one
    assert fields("EmbedRequest")["embedding_types"]["maxItems"] == 4


def test_every_answer_is_described():
    """Each route has every error in one form, none has the framework's own; keys where needed."""
    paths = document(keys=("one",))["paths"]
    assert len(paths) >= 14
    for path, methods in paths.items():
        for operation in methods.values():
            assert {"200", "400", "401", "404", "413", "415", "429", "500"} <= set(
                operation["responses"]
            )
            assert "422" not in operation["responses"]
            for status, answer in operation["responses"].items():
                if status != "200":
                    schema = answer["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Error"}
            assert ("security" in operation) == (path not in ("/health", "/ready"))


def test_two_servers_describe_themselves_apart():
    """What one application fills in does not show in another's document."""
    first = fields("EmbeddingsRequest", max_inputs=3)
    second = fields("EmbeddingsRequest", max_inputs=9)
    assert first["input"]["anyOf"][1]["maxItems"] == 3
    assert second["input"]["anyOf"][1]["maxItems"] == 9
    assert first["input"]["anyOf"][1]["maxItems"] == 3
