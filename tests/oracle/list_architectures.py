"""Makes a config.json for each architecture that vLLM registers, and prints them all as JSON.

Stand-alone: run with the Python of the environment that has vLLM and transformers.

    python tests/oracle/list_architectures.py > tests/data/architectures.json

prints {architecture: {"from": "transformers", "config": {…}}}. A configuration is the default of transformers' class
for the architecture, or of vllm's own class; what neither has is kept as tests/data/architectures.json has it
("published": numbers of a model that somebody published, written down by hand). Fields that decide no size and no
refusal (tokens, dropout, losses, labels, how images are cut) are left out; vLLM and vllmray are asked the same file.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

KEPT = Path(__file__).parent.parent / "data" / "architectures.json"
# Fields that decide no size and no refusal.
OF_NO_MATTER = re.compile(
    r"^(_name_or_path|transformers_version|return_dict|output_\w+|chunk_size_feed_forward|id2label|label2id|problem_type"
    r"|\w*dropout\w*|\w*drop_rate|\w*droprate|\w*layerdrop|initializer_\w+|\w*initializer|init_\w+|\w*_std|use_cache"
    r"|\w*token_id|\w*token_ids|\w*token_index|attention_probs|\w*loss_\w+|\w*_loss|\w*_coef|mask_\w+"
    r"|begin_suppress_tokens|suppress_tokens|apply_spec_augment|\w*_coefficient|gradient_checkpointing|router_jitter_noise"
    r"|scale_\w+|time_step_(min|max|floor|limit|rate)|pretraining_tp|summary_\w+|finetuning_task|ctc_\w+|\w*mel_bins_mask)$"
)
# Architectures that vllm's own configuration classes describe (vllm/transformers_utils/config.py).
BY_VLLM = {
    "BagelForConditionalGeneration": "bagel",
    "BailingMoeV3VLForConditionalGeneration": "bailing_moe_v3_vl",
    "ChatGLMModel": "chatglm",
    "ChatGLMForConditionalGeneration": "chatglm",
    "ColModernVBertForRetrieval": "modernvbert",
    "ColQwen3": "colqwen3",
    "OpsColQwen3Model": "ops_colqwen3",
    "Qwen3VLNemotronEmbedModel": "qwen3_vl_nemotron_embed",
    "Cosmos3ForConditionalGeneration": "cosmos3_edge",
    "DeepseekVLV2ForCausalLM": "deepseek_vl_v2",
    "DeepseekV4ForCausalLM": "deepseek_v4",
    "DeepseekV4ForConditionalGeneration": "deepseek_v4",
    "DeepseekV41ForCausalLM": "deepseek_v41",
    "Dots3NoteForCausalLM": "dots3_note",
    "FunAudioChatForConditionalGeneration": "funaudiochat",
    "HYV4ForCausalLM": "hy_v4",
    "HyperCLOVAXForCausalLM": "hyperclovax",
    "IsaacForConditionalGeneration": "isaac",
    "KimiLinearForCausalLM": "kimi_linear",
    "KimiVLForConditionalGeneration": "kimi_vl",
    "KimiK25ForConditionalGeneration": "kimi_k25",
    "KimiK3ForConditionalGeneration": "kimi_k3",
    "MuseGlimmerForCausalLM": "muse_glimmer_text",
    "MuseGlimmerForConditionalGeneration": "muse_glimmer",
    "MiDashengLMModel": "midashenglm",
    "MiniMaxM3SparseForConditionalGeneration": "minimax_m3_vl",
    "Moondream3ForCausalLM": "moondream3",
    "HfMoondream": "moondream3",
    "MossTranscribeDiarizeForConditionalGeneration": "moss_transcribe_diarize",
    "OpenVLAForActionPrediction": "openvla",
    "Ovis": "ovis",
    "UltravoxModel": "ultravox",
    "Step3VLForConditionalGeneration": "step3_vl",
    "Step3TextForCausalLM": "step3_text",
    "Step3p5ForCausalLM": "step3p5",
    "QianfanOCRForConditionalGeneration": "qianfan_ocr",
    "Qwen3ASRForConditionalGeneration": "qwen3_asr",
    "Qwen3ASRRealtimeGeneration": "qwen3_asr",
    "UnlimitedOCRForCausalLM": "unlimited_ocr",
    "InklingForConditionalGeneration": "inkling_mm_model",
    "InklingForCausalLM": "inkling_model",
}


LEFT_OUT: dict[str, str] = {
    **dict.fromkeys(
        (
            "ClefOmniForJointSchema",
            "DeepseekOCR2ForCausalLM",
            "FireRedASR2ForConditionalGeneration",
            "FunASRForConditionalGeneration",
            "HCXVisionV2ForCausalLM",
            "InternS1ProForConditionalGeneration",
            "InternS2MobiusForConditionalGeneration",
            "InternS2PreviewForConditionalGeneration",
            "K2HorizonForCausalLM",
            "LlavaOnevision2ForConditionalGeneration",
            "MiMoV2OmniForCausalLM",
            "MiniCPMO",
            "MoonshotKimiaForCausalLM",
            "MossAudioModel",
            "NemotronH_Nano_Omni_Reasoning_V3",
            "NemotronH_Nano_VL_V2",
            "NemotronH_Omni_Reasoning_V3",
            "NemotronH_Super_Omni_Reasoning_V3",
            "NemotronParseForConditionalGeneration",
            "OpenPanguVLForConditionalGeneration",
            "Ovis2_5",
            "Ovis2_6ForCausalLM",
            "Ovis2_6_MoeForCausalLM",
            "Phi4MMForCausalLM",
            "Qwen3ASRForcedAlignerForTokenClassification",
            "RForConditionalGeneration",
            "StepVLForConditionalGeneration",
            "VoxtralRealtimeGeneration",
            "ColBERTJinaRobertaModel",
        ),
        "no configuration class in transformers or vllm: published files come with a program of their own",
    ),
    **dict.fromkeys(
        (
            "ColQwen3",
            "ColQwen3_5",
            "Emu3ForConditionalGeneration",
            "HunYuanVLForConditionalGeneration",
            "InternVLChatModel",
            "OpsColQwen3Model",
            "Qwen3VLNemotronEmbedModel",
            "TransformersMultiModalForCausalLM",
            "VibeVoiceAsrForConditionalGeneration",
        ),
        "vllm asks for its processor's or tokenizer's files while it is configured",
    ),
    **dict.fromkeys(
        (
            "Gemma3nForConditionalGeneration",
            "KananaVForConditionalGeneration",
            "MiDashengLMModel",
            "Terratorch",
            "UnlimitedOCRForCausalLM",
        ),
        "its tower is built by a library that .venv-cpu does not have",
    ),
    **dict.fromkeys(
        (
            "CohereAsrForConditionalGeneration",
            "ColModernVBertForRetrieval",
            "DeepseekV41ForCausalLM",
            "DeepseekVLV2ForCausalLM",
            "Ernie4_5_VLMoeForConditionalGeneration",
            "FunAudioChatForConditionalGeneration",
            "Glm5NextForCausalLM",
            "Glm5NextForConditionalGeneration",
            "HfMoondream",
            "KimiK3ForConditionalGeneration",
            "MiniMaxM3SparseForConditionalGeneration",
            "Moondream3ForCausalLM",
            "PixtralForConditionalGeneration",
            "Step3p7ForConditionalGeneration",
            "TeleChat2ForCausalLM",
            "UltravoxModel",
            "DeepseekV4ForConditionalGeneration",
        ),
        "the default configuration lacks what vllm's class reads, and no published one is at hand",
    ),
    **dict.fromkeys(
        (
            "DiffusionGemmaForBlockDiffusion",
            "Dots3NoteForCausalLM",
            "LongcatFlashNgramForCausalLM",
        ),
        "built with kernels or a model runner that vllm for CPUs does not have",
    ),
    **dict.fromkeys(
        (
            "TransformersMoEEmbeddingModel",
            "TransformersMoEForSequenceClassification",
            "TransformersMultiModalEmbeddingModel",
            "TransformersMultiModalForSequenceClassification",
            "TransformersMultiModalMoEForCausalLM",
        ),
        "a name for models that vllm has no class of its own for: what it builds is another architecture here",
    ),
}
"""Architectures without a configuration that this vLLM builds here, and why."""


def default_configs() -> Iterator[tuple[str, str, Any]]:
    """(architecture, where from, configuration)."""
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from vllm.model_executor.models import registry
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    types: dict[str, list[str]] = {}
    for name, mapping in vars(modeling_auto).items():
        for model_type, classes in mapping.items() if name.endswith("_MAPPING_NAMES") else ():
            for each in [classes] if isinstance(classes, str) else classes:
                types.setdefault(each, []).append(model_type)
    for architecture in set(registry._VLLM_MODELS) - set(registry._SPECULATIVE_DECODING_MODELS) - set(LEFT_OUT):
        if architecture in BY_VLLM:
            yield architecture, "vllm", _CONFIG_REGISTRY[BY_VLLM[architecture]]
        for model_type in types.get(architecture, ())[:1]:
            yield architecture, "transformers", CONFIG_MAPPING[model_type]


def trimmed(value: Any) -> Any:
    """Without what decides nothing, and without what is not said."""
    if isinstance(value, Mapping):
        return {
            key: trimmed(each)
            for key, each in value.items()
            if each not in (None, {}, []) and not OF_NO_MATTER.match(str(key))
        }
    return [trimmed(each) for each in value] if isinstance(value, list | tuple) else value


def main() -> None:
    """Prints every configuration, a line each."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", CUDA_VISIBLE_DEVICES="", VLLM_LOGGING_LEVEL="ERROR")
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    found = {name: entry for name, entry in kept.items() if entry["from"] not in ("transformers", "vllm")}
    for architecture, source, make in default_configs():
        try:
            config = {"architectures": [architecture], **trimmed(make().to_dict())}
            config["architectures"] = [architecture]
            found.setdefault(architecture, {"from": source, "config": json.loads(json.dumps(config, default=str))})
        except Exception as error:  # noqa: BLE001  # a class without defaults has no default configuration
            print(f"{architecture}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
    lines = (f"{json.dumps(name)}: {json.dumps(found[name], separators=(',', ':'))}" for name in sorted(found))
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
