"""The layers of a model: the weights of each, and its KV cache or state for each sequence."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

from vllmray.model import parts
from vllmray.model.config import STATE_SPACE_ONLY, TextConfig
from vllmray.model.mixers import State, mixing
from vllmray.model.parts import Part
from vllmray.model.pooling import POOLING, SECOND_HEAD
from vllmray.model.schedule import ENCODERS, FEEDS_FORWARD, Mixer, schedule, unknown_schedule, words_of
from vllmray.model.understood import Unknown

ENDS_EVERYWHERE = {
    *("gemma", "gemma2", "gemma3_text", "cohere", "cohere2", "bloom", "falcon", "gpt2", "gptj", "opt", "gpt_oss"),
    *(
        "mixtral",
        "qwen2_moe",
        "qwen3_moe",
        "qwen3_next",
        "phimoe",
        "olmoe",
        "stablelm",
        "granitemoe",
        "granitemoehybrid",
    ),
    *("jamba", "nemotron_h", "mamba", "falcon_mamba", "lfm2"),
    *(
        "nemotron_h_omni",
        "zamba2",
        "whisper",
        "chatglm",
        "internlm2",
        "gemma4_text",
        "molmo",
        "molmo2_text",
        "muse_glimmer_text",
        "plamo3",
        "orion",
        "olmo_hybrid",
        "qwen3_vl_moe_text",
        "cosmos3_edge_text",
    ),
}
"""Families whose classes make embedding and head on every stage (vllm 0.32, vllm/model_executor/models: no
PPMissingLayer in their place); tests/oracle weighs them."""
BEGINS_EVERYWHERE = {"qwen3_5_text", "qwen3_5_moe_text"}
"""Families whose classes make the embedding on every stage, and the head on the last alone (qwen3_5.py there)."""
UNDIVIDED = {"gpt_bigcode"}
"""Families that vLLM serves with transformers' own class, which has no plan for tensor parallelism: each GPU has all of
every feed-forward layer (vllm/model_executor/models/transformers/base.py, recursive_replace)."""
TIED_UNLESS_SAID = {
    *("gemma", "gemma2", "gemma3", "gemma3_text", "gpt2", "opt", "falcon", "bloom", "mpt", "cohere", "cohere2"),
    *("gpt_bigcode", "starcoder2", "lfm2", "phi3small", "smollm3", "mamba2", "mamba", "falcon_mamba"),
    *("whisper", "minicpm", "minicpm3", "bert", "roberta", "xlm-roberta", "modernbert", "zamba2"),
}


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer."""

    mixer: Mixer
    parts: tuple[Part, ...]
    """Its weights."""
    state: State


@dataclass(frozen=True, slots=True)
class Shape:
    """A model, layer by layer, with what comes before and after the layers."""

    config: TextConfig
    layers: tuple[Layer, ...]
    embedding: int
    """Parameters; the GPUs of the first stage share them."""
    positions: int
    """Parameters of learned positions and of what is between the embedding and the layers, whole on every GPU."""
    tied: bool
    """The head is the embedding: one stage holds it once, and with more the last has it again."""
    shares_embedding: bool = True
    """The GPUs of a stage share the embedding; Whisper's have all of it each."""
    others: tuple[Part, ...] = ()
    """Further parts of the first stage: an encoder."""
    kv_unknown: tuple[str, ...] = ()
    """Why the KV cache of a sequence is not known; empty where it is known."""
    weights_unknown: tuple[str, ...] = ()
    """Why the weights do not follow from the shapes; empty where they do."""

    @property
    def begins_everywhere(self) -> bool:
        """Every stage has the embedding, whether it uses it or not."""
        return self.ends_everywhere or self._is_one_of(BEGINS_EVERYWHERE)

    @property
    def ends_everywhere(self) -> bool:
        """Every stage has the embedding and the head."""
        return self._is_one_of(ENDS_EVERYWHERE)

    def _is_one_of(self, families: Set[str]) -> bool:
        generic = self.config.architecture.startswith("Transformers")  # has none of these families' own classes
        return self.config.model_type in families and not generic

    @property
    def headless(self) -> bool:
        """No stage has a head over the vocabulary."""
        return self.config.architecture in POOLING

    @property
    def parameters(self) -> int:
        """The number of parameters of the model."""
        inside = sum(part.count for layer in self.layers for part in layer.parts)
        inside += sum(part.count for part in self.others)
        return (
            inside
            + self.embedding * (1 if self.tied or self.headless else 2)
            + self.positions
            + self.config.hidden_size
        )


def shape_of(config: TextConfig, unknown: Unknown) -> Shape:
    """The model that a configuration describes.

    Args:
        unknown: keys of the configuration that are not understood.
    """
    layers = tuple(_layer(config, index, mixer) for index, mixer in enumerate(schedule(config)))
    unscheduled = unknown_schedule(config)
    tied = config.tie_word_embeddings
    if tied is None:
        tied = config.model_type in TIED_UNLESS_SAID
    return Shape(
        config,
        layers,
        config.vocab_size * (config.word_embed_proj_dim or config.hidden_size),
        _positions(config),
        tied,
        shares_embedding=config.model_type != "whisper",
        others=_others(config),
        kv_unknown=(*unscheduled, *unknown.cache),
        weights_unknown=(*unscheduled, *unknown.weights),
    )


def _others(config: TextConfig) -> tuple[Part, ...]:
    """An encoder's own: positions that GPUs share out, and heads that they do not, of which those that classify are in
    32 bits (vllm/model_executor/models/bert.py, bert_with_rope.py, roberta.py).
    """
    hidden = config.hidden_size
    if config.model_type == "whisper":
        return parts.encoder(config)
    found = [*parts.layer_embeddings(config)]
    if config.model_type in parts.LEARNED_POSITIONS:
        found.append(Part("embedding", (config.max_position_embeddings or 0) * hidden))
    if config.architecture in SECOND_HEAD:
        found.append(Part("norm", (hidden + 1) * config.vocab_size + hidden * hidden, ways=parts.WHOLE))
    classifies = config.model_type in ENCODERS and config.architecture.endswith("ForSequenceClassification")
    if config.model_type == "siglip_text_model" or config.architecture == "ModernBertForTokenClassification":
        found.append(Part("norm", hidden * hidden, ways=parts.WHOLE))
    if classifies or config.architecture == "BgeM3EmbeddingModel":
        found.append(Part("head", hidden * hidden, ways=parts.WHOLE))
    return tuple(found)


def _positions(config: TextConfig) -> int:
    """Learned positions: GPT-2's and OPT's, which has two more (transformers, OPTLearnedPositionalEmbedding)."""
    extra = {
        "gpt2": 0,
        "gpt_bigcode": 0,
        "opt": 2,
        "whisper": config.max_source_positions or 0,
    }.get(config.model_type)
    learned = 0 if extra is None else ((config.max_position_embeddings or 0) + extra) * config.hidden_size
    inner = config.word_embed_proj_dim or config.hidden_size
    return learned + (2 * inner * config.hidden_size if inner != config.hidden_size else 0)


def _layer(config: TextConfig, index: int, mixer: Mixer) -> Layer:
    norms = Part("norm", 2 * config.hidden_size, ways=parts.WHOLE)
    state, made = mixing(mixer, config.at(index), index)
    if config.borrows(index):
        state, made = State(), made[:1]
    held = (norms, *made, *parts.per_layer(config), *_feed_forward(config, index))
    if config.model_type in UNDIVIDED:
        held = tuple(replace(part, ways=parts.WHOLE) if part.kind == "mlp" else part for part in held)
    return Layer(mixer, held, state)


def _feed_forward(config: TextConfig, index: int) -> tuple[Part, ...]:
    if config.model_type in STATE_SPACE_ONLY or config.model_type == "zamba2":
        return ()
    if config.block_configs is not None:
        width = config.block_configs[index].feed_forward_size(config.hidden_size)
        return parts.dense(config, width) if width else ()
    words = words_of(config) or ()
    if any(word in FEEDS_FORWARD for word in words):  # each layer is one thing: it mixes, or it feeds forward
        kind = FEEDS_FORWARD.get(words[index])
        if kind == "experts":
            return parts.experts(config)
        return parts.dense(config, parts.feed_forward_size(config)) if kind else ()
    if config.num_experts and _is_sparse(config, index):
        return parts.experts(config)
    wide = 2 if config.use_double_wide_mlp and config.borrows(index) else 1
    return parts.dense(config, wide * parts.dense_size(config))


def _is_sparse(config: TextConfig, index: int) -> bool:
    """Whether a layer of a model with experts has them."""
    if config.moe_layers is not None:
        return index in config.moe_layers
    if config.mlp_layer_types is not None:
        return config.mlp_layer_types[index] != "dense"
    if config.mlp_only_layers and index in config.mlp_only_layers:
        return False
    if config.expert_layer_period:
        return index % config.expert_layer_period == config.expert_layer_offset
    every = config.moe_layer_freq
    if isinstance(every, tuple):
        return bool(every[index]) if index < len(every) else True
    if config.first_k_dense_replace is not None:
        return index >= config.first_k_dense_replace and index % (every or 1) == 0
    return (index + 1) % every == 0 if every else True
