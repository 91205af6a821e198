"""Architectures that vLLM serves on one pipeline stage only."""

# Those of its registry whose classes lack SupportsPP: vllm 0.32, vllm/model_executor/models/registry.py, each class
# looked at. tests/oracle asks vLLM again about every architecture that has a configuration in tests/data.
WITHOUT_STAGES = frozenset(
    {
        "AriaForConditionalGeneration",
        "CohereAsrForConditionalGeneration",
        "DeepseekV4ForConditionalGeneration",
        "DiffusionGemmaForBlockDiffusion",
        "FireRedASR2ForConditionalGeneration",
        "FunASRForConditionalGeneration",
        "Gemma3nForCausalLM",
        "Gemma3nForConditionalGeneration",
        "HrmTextForCausalLM",
        "IQuestLoopCoderForCausalLM",
        "Idefics3ForConditionalGeneration",
        "Mamba2ForCausalLM",
        "NemotronH_Nano_Omni_Reasoning_V3",
        "NemotronH_Nano_VL_V2",
        "NemotronH_Omni_Reasoning_V3",
        "NemotronH_Super_Omni_Reasoning_V3",
        "NemotronParseForConditionalGeneration",
        "PaddleOCRVLForConditionalGeneration",
        "Phi4MMForCausalLM",
        "SmolVLMForConditionalGeneration",
        "WhisperForConditionalGeneration",
        "Zamba2ForCausalLM",
    }
)
