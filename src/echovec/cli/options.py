"""Options that several verbs take, with one text for each."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Model = Annotated[
    str | None, typer.Option(help="Model name, folder or GGUF file; by default SmolLM2-135M.")
]
Revision = Annotated[
    str | None, typer.Option(help="A branch, tag or commit of a model of the hub.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; by default the best one here.")]
Dtype = Annotated[
    str | None, typer.Option(help="float32, bfloat16, float16 or int8; by default by device.")
]
Precision = Annotated[
    Literal["exact", "fast", "int8"] | None,
    typer.Option(help="fast: bfloat16 where the processor has it; int8: 8 bits, on a CPU."),
]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, help="Tokens kept of each text; by default the recipe's.")
]
