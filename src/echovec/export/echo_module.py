"""echo_module: an echo embedder as a sentence-transformers module, complete in this one file.

Written by `echovec export` beside a model's weights. `echo.json` holds the prompt taken apart:
fixed token ids, slots, and which pieces are pooled; `echo.safetensors` the calibrations' numbers.

    texts --preprocess--> padded ids, spans --forward--> states --pooling--> sentence_embedding

A text is tokenised once, as plain text (special tokens in it are broken up), cut to the budget, and
its ids are put into every slot: the pooled span is known by counting. Licence: Apache-2.0.

Shapes: S sequences, L their longest, V views, D width.
"""

import json
import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

try:
    from sentence_transformers.base.modules import InputModule
except ImportError:  # sentence-transformers 5
    from sentence_transformers.models import InputModule

PROGRAM = "echo.json"
ARRAYS = "echo.safetensors"
KEYS = (
    *("roles", "combine", "max_tokens", "max_positions", "text_share", "num_layers", "dim"),
    *("special", "arrays"),
)
"""What is read of `echo.json`; the rest is a record."""


class EchoModule(InputModule):  # type: ignore[misc]
    """Texts to pooled vectors; what follows (dense layers, normalising) is in modules of its own.

    Args:
        model: a causal language model without its head.
        tokenizer: its tokenizer, unchanged.
        program: what `echo.json` holds.
        arrays: what `echo.safetensors` holds.
    """

    config_file_name = PROGRAM

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        program: dict[str, Any],
        arrays: dict[str, Tensor],
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer
        self.program = program
        self.names = sorted(arrays)
        for place, name in enumerate(self.names):
            self.register_buffer(f"array_{place}", arrays[name], persistent=False)

    @property
    def max_seq_length(self) -> int:
        """The budget of each copy of a text, in tokens."""
        return int(self.program["max_tokens"])

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.program["max_tokens"] = int(value)

    def get_embedding_dimension(self) -> int:
        """Numbers in each vector."""
        return int(self.program["dim"])

    get_sentence_embedding_dimension = get_embedding_dimension

    # -- texts to ids -------------------------------------------------------------------------

    def preprocess(
        self, inputs: Sequence[str], prompt: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Texts to padded ids, masks and spans; `prompt` is the instruction, `task` the role."""
        role = str(options.get("task"))
        role = role if role in self.program["roles"] else "symmetric"
        features: dict[str, Any] = {"role": role}
        passes = self._passes(role)
        if prompt and not any(p["kind"] == "instruction" for one in passes for p in one["pieces"]):
            raise ValueError(f"this model's {role} prompt takes no instruction (got {prompt!r})")
        for place, one in enumerate(passes):
            suffix = f"_{place}" if place else ""
            ids, spans = self._render(one, list(inputs), prompt)
            longest = max(map(len, ids))
            padded = torch.zeros(len(ids), longest, dtype=torch.long)
            mask = torch.zeros(len(ids), longest, dtype=torch.long)
            for row, own in enumerate(ids):
                padded[row, : len(own)] = torch.tensor(own)
                mask[row, : len(own)] = 1
            features |= {
                f"input_ids{suffix}": padded,
                f"attention_mask{suffix}": mask,
                f"spans{suffix}": torch.tensor(spans),
            }
        return features

    def tokenize(self, texts: Sequence[str], **options: Any) -> dict[str, Any]:
        """The older name of `preprocess`."""
        return self.preprocess(texts, **options)

    def _passes(self, role: str) -> list[dict[str, Any]]:
        passes = self.program["roles"][role]
        return self.program["roles"][passes] if isinstance(passes, str) else passes  # type: ignore[no-any-return]

    def _render(
        self, one: dict[str, Any], texts: list[str], instruction: str | None
    ) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
        """The ids of each text's prompt and, for each view, the positions it pools."""
        budget = self.program["max_tokens"]
        pieces = one["pieces"]
        slots = [piece for piece in pieces if piece["kind"] == "text"]
        fixed: dict[int, list[int]] = {}
        for place, piece in enumerate(pieces):
            if piece["kind"] == "ids":
                fixed[place] = piece["ids"]
            elif piece["kind"] == "instruction":
                if (chosen := instruction or piece["default"]) is None:
                    raise ValueError("this model needs an instruction; give prompt='...'")
                said = piece["lead"] + chosen + piece["tail"]
                fixed[place] = self._ids([said])[0][:budget]
        if self.program["max_positions"]:
            around = sum(map(len, fixed.values()))
            budget = min(budget, (self.program["max_positions"] - around) // len(slots))
        lead, kept = slots[0]["lead"], {}
        for wording in {slot.get("wording", "") for slot in slots}:
            rows = self._ids([lead + WORDINGS[wording](text) for text in texts])
            share = self.program["text_share"]
            kept[wording] = [row[: math.ceil(share * len(row))][: max(0, budget)] for row in rows]
        if any(not row for rows in kept.values() for row in rows):  # no token, no mean
            raise ValueError(
                f"a text has no tokens that could be pooled (budget {budget}); leave out empty "
                "texts, or shorten the instruction"
            )
        ids, spans = [], []
        for number in range(len(texts)):
            starts, prompt = [0], []
            for place, piece in enumerate(pieces):
                own = fixed.get(place)
                prompt += kept[piece.get("wording", "")][number] if own is None else own
                starts.append(len(prompt))
            ids.append(prompt)
            spans.append([(starts[v["span"][0]], starts[v["span"][1]]) for v in one["views"]])
        return ids, spans

    def _ids(self, texts: list[str]) -> list[list[int]]:
        """Ids of texts as plain text: nothing special is read from them or added."""
        special = self.program["special"]
        rows = self._tokenized(texts)
        forbidden = set(special.values())
        for place, row in enumerate(rows):
            if not forbidden.isdisjoint(row):  # some vocabularies hold "</s>" as a plain piece
                parts = [texts[place]]
                for spelling in special:
                    if len(spelling) > 1:
                        parts = [bit for part in parts for bit in _broken(part, spelling)]
                joined = [i for own in self._tokenized([p for p in parts if p]) for i in own]
                rows[place] = [i for i in joined if i not in forbidden]
        return rows

    def _tokenized(self, texts: list[str]) -> list[list[int]]:
        return self.tokenizer(  # type: ignore[no-any-return]
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]

    # -- ids to vectors -----------------------------------------------------------------------

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Adds `sentence_embedding`, float32 [S, D]."""
        found: dict[int, Tensor] = {}
        passes = self._passes(features.get("role", "symmetric"))
        for place, (one, states) in enumerate(
            zip(passes, self._states(passes, features), strict=True)
        ):
            suffix = f"_{place}" if place else ""
            spans_SV2, ids_SL = features[f"spans{suffix}"], features[f"input_ids{suffix}"]
            for number, view in enumerate(one["views"]):
                spans_S2 = spans_SV2[:, number].to(states[view["layers"][0]].device)
                read = [states[k] for k in view["layers"]]
                pooled = [_pool(view["pooling"], h_SLD, spans_S2, ids_SL) for h_SLD in read]
                found[view["place"]] = self._through(view["steps"], torch.stack(pooled).mean(dim=0))
        parts = [found[place] for place in sorted(found)]
        joined = torch.cat(parts, dim=1) if self.program["combine"] == "concat" else sum(parts)
        return {**features, "sentence_embedding": joined}

    def _states(
        self, passes: Sequence[dict[str, Any]], features: dict[str, Any]
    ) -> Iterable[dict[int, Tensor]]:
        """For each pass hidden states [S, L, D] by layer; each through the model by itself."""
        for place, one in enumerate(passes):
            suffix = f"_{place}" if place else ""
            ids_SL, mask_SL = features[f"input_ids{suffix}"], features[f"attention_mask{suffix}"]
            yield self._run([one], ids_SL, mask_SL)

    def _run(
        self, passes: Sequence[dict[str, Any]], ids_SL: Tensor, mask_SL: Tensor
    ) -> dict[int, Tensor]:
        """Hidden states [S, L, D] by layer, for the layers that these passes read."""
        last = self.program["num_layers"]
        wanted = {layer for one in passes for view in one["views"] for layer in view["layers"]}
        inner = wanted != {last}
        output = self.model(
            input_ids=ids_SL,
            attention_mask=mask_SL,
            use_cache=False,
            output_hidden_states=inner,
            return_dict=True,
        )
        # hidden_states[-1] is before the final norm in some families: the last is read by name.
        read = {layer: output.hidden_states[layer] for layer in wanted - {last}} if inner else {}
        return read | {last: output.last_hidden_state}

    def _array(self, name: str) -> Tensor:
        array: Tensor = getattr(self, f"array_{self.names.index(name)}")
        return array

    def _through(self, steps: list[dict[str, Any]], z_SD: Tensor) -> Tensor:
        for step in steps:
            if step["kind"] == "normalize":
                z_SD = z_SD / z_SD.norm(dim=1, keepdim=True).clamp_min(1e-30)
            else:
                matrix, bias = (self._array(step[key]).to(z_SD) for key in ("matrix", "bias"))
                z_SD = z_SD * matrix + bias if matrix.ndim == 1 else z_SD @ matrix + bias
        return z_SD

    # -- files --------------------------------------------------------------------------------

    def save(self, output_path: str, *args: Any, **options: Any) -> None:
        """Write model, tokenizer, program, arrays and this file."""
        folder = Path(output_path)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / PROGRAM).write_text(json.dumps(self.program, indent=1), "utf-8")
        if self.names:
            save_file({name: self._array(name) for name in self.names}, folder / ARRAYS)
        own = Path(__file__)
        if own.resolve() != (folder / own.name).resolve():
            (folder / "echo_module.py").write_bytes(own.read_bytes())

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> "EchoModule":
        """Read what `save` wrote, from a folder or a hub; ValueError if `echo.json` lacks a key."""
        hub = {
            key: options.get(key)
            for key in ("token", "cache_folder", "revision", "local_files_only")
        }
        program = cls.load_config(model_name_or_path, subfolder=subfolder, **hub)
        if problem := problem_of(program):
            raise ValueError(f"{model_name_or_path}: {PROGRAM} {problem}")
        arrays: dict[str, Tensor] = {}
        if program["arrays"]:
            file = cls.load_file_path(model_name_or_path, ARRAYS, subfolder=subfolder, **hub)
            arrays = load_file(file)
        shared = {
            "subfolder": subfolder,
            "token": hub["token"],
            "cache_dir": hub["cache_folder"],
            "revision": hub["revision"],
            "local_files_only": bool(hub["local_files_only"]),
        }
        chosen = {"dtype": "auto", **(options.get("model_kwargs") or {})}
        model = AutoModel.from_pretrained(
            model_name_or_path, use_safetensors=True, **{**shared, **chosen}
        )
        tokenizer = AutoTokenizer.from_pretrained(
            model_name_or_path, **{**shared, **(options.get("processor_kwargs") or {})}
        )
        return cls(model.eval(), tokenizer, program, arrays)


def problem_of(program: Any) -> str | None:
    """Why `echo.json` cannot be used, and what to do; None if it holds every key."""
    if not isinstance(program, dict):
        return f"is {program!r:.40} and no object; export again"
    lacking = [key for key in KEYS if key not in program]
    return (
        f"lacks {', '.join(lacking)}: it was edited or is not whole; export again"
        if lacking
        else None
    )


def _bare(text: str) -> str:
    """A text's words in lower case, without punctuation around them; see `echovec.text.wording`."""
    words = []
    for word in text.lower().split():
        marks = [unicodedata.category(character).startswith("P") for character in word]
        if not all(marks):
            words.append(word[marks.index(False) : len(word) - marks[::-1].index(False)])
    return " ".join(words) or text


def _sorted(text: str) -> str:
    """The bare words in order."""
    return " ".join(sorted(_bare(text).split())) or text


def _reversed(text: str) -> str:
    """The bare words, the last one first."""
    return " ".join(reversed(_bare(text).split())) or text


WORDINGS: dict[str, Callable[[str], str]] = {
    "": str,
    "bare": _bare,
    "sorted": _sorted,
    "reversed": _reversed,
}
"""In which form a text stands in a copy: the same names and functions as echovec's."""


def _pool(pooling: str, h_SLD: Tensor, spans_S2: Tensor, ids_SL: Tensor) -> Tensor:
    """One vector for each sequence, in float32."""
    start_S1, stop_S1 = spans_S2[:, :1], spans_S2[:, 1:]
    rows = torch.arange(spans_S2.shape[0], device=h_SLD.device)  # len() would fix it
    if pooling == "lasttoken":
        return h_SLD[rows, stop_S1[:, 0] - 1].float()
    place_SL = torch.arange(h_SLD.shape[1], device=h_SLD.device)[None] - start_S1
    inside_SL = (place_SL >= 0) & (place_SL < stop_S1 - start_S1)
    weights_SL = inside_SL.float()
    if pooling == "weightedmean":
        weights_SL = weights_SL * (place_SL + 1)
    elif pooling == "sif":  # how rare a token is, by Zipf's law of its place in the vocabulary
        rank_SL = (ids_SL + 1).to(weights_SL)
        weights_SL = weights_SL * (rank_SL / (rank_SL + 1000))
    weights_SL = weights_SL / weights_SL.sum(dim=1, keepdim=True)
    return torch.einsum("sl,sld->sd", weights_SL, h_SLD.float())


def _broken(text: str, spelling: str) -> list[str]:
    """The text, cut after the first character of each occurrence of a special spelling."""
    first, *rest = text.split(spelling)
    bits = [first]
    for bit in rest:
        bits[-1] += spelling[0]
        bits.append(spelling[1:] + bit)
    return bits
