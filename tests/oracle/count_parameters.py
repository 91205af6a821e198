"""Counts the parameters of the models in tests/data/models by building them without memory, and prints JSON.

Stand-alone: run with the Python of the environment that has transformers and torch.

    python tests/oracle/count_parameters.py [NAME…]

prints {name: {"parameters": …, "counted_by": "transformers", "known": …}} for the models named, or all of them; a
model takes about a third of a second, the imports some seconds. tests/data/models/parameters.json is its output, and
is where "known", the number that the model's makers or its page give, is kept: a count does not change it.

What is counted: what vLLM loads to generate text. Tied embeddings once; no layers for multi-token prediction; of a
model that sees, the language model with its head ("with_vision" is the whole); numbers before quantisation, without
scales; the routers' correction biases, which transformers calls buffers and vLLM parameters.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parent.parent / "data" / "models"
KNOWN = MODELS / "parameters.json"
VISION = re.compile(r"^(model\.)?(visual|vision_tower|vision_model|multi_modal_projector)\.")
# Model types that transformers builds with another's classes.
SAME_AS = {"kimi_k2": "deepseek_v3"}


def build(config: dict[str, Any]) -> Any:
    """The model on the meta device, with transformers' own class."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    facts = {key: value for key, value in config.items() if key not in ("model_type", "quantization_config")}
    model_type = SAME_AS.get(config["model_type"], config["model_type"])
    loader = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
    with torch.device("meta"):
        model = loader.from_config(AutoConfig.for_model(model_type, **facts))
    model.tie_weights()
    return model


def count(config: dict[str, Any]) -> dict[str, int]:
    """Parameters of the language model, and of the whole where that is more."""
    model = build(config)
    tensors = [*model.named_parameters()]
    tensors += [(name, buffer) for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias")]
    whole = sum(tensor.numel() for _, tensor in tensors)
    language = sum(tensor.numel() for name, tensor in tensors if not VISION.match(name))
    return {"parameters": language} if language == whole else {"parameters": language, "with_vision": whole}


def main() -> None:
    """Prints the counts of the models named, or of all."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    names = sys.argv[1:] or sorted(path.stem for path in MODELS.glob("*.json") if path != KNOWN)
    counts = {}
    for name in names:
        counted = count(json.loads((MODELS / f"{name}.json").read_text()))
        counts[name] = {**counted, "counted_by": "transformers", "known": known.get(name, {}).get("known")}
    print(json.dumps(counts, indent=2))


if __name__ == "__main__":
    main()
