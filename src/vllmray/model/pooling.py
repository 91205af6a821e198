"""Architectures that vLLM serves only for embeddings, scores and classes."""

# Those of its registry that are in no list of models that generate (vllm 0.32, vllm/model_executor/models/registry.py).
POOLING = frozenset(
    {
        "BertForMaskedLM",
        "BertForSequenceClassification",
        "BertForTokenClassification",
        "BertModel",
        "BertSpladeSparseEmbeddingModel",
        "BgeM3EmbeddingModel",
        "CLIPModel",
        "ClefOmniForJointSchema",
        "ColBERTJinaRobertaModel",
        "ColBERTLfm2Model",
        "ColBERTModernBertModel",
        "ColModernVBertForRetrieval",
        "ColPaliForRetrieval",
        "ColQwen3",
        "ColQwen3_5",
        "EmbeddingGemma2Model",
        "GPT2ForSequenceClassification",
        "Gemma2Model",
        "Gemma3TextModel",
        "GteModel",
        "GteNewForSequenceClassification",
        "GteNewModel",
        "HF_ColBERT",
        "InternLM2ForRewardModel",
        "JinaEmbeddingsV5Model",
        "JinaForRanking",
        "LlamaBidirectionalForSequenceClassification",
        "LlamaBidirectionalModel",
        "ModernBertForSequenceClassification",
        "ModernBertForTokenClassification",
        "ModernBertModel",
        "NomicBertModel",
        "OpenAIPrivacyFilterForTokenClassification",
        "OpsColQwen3Model",
        "Qwen2ForProcessRewardModel",
        "Qwen2ForRewardModel",
        "Qwen3ASRForcedAlignerForTokenClassification",
        "Qwen3VLNemotronEmbedModel",
        "RobertaForMaskedLM",
        "RobertaForSequenceClassification",
        "RobertaForTokenClassification",
        "RobertaModel",
        "SiglipModel",
        "Terratorch",
        "TransformersEmbeddingModel",
        "TransformersForSequenceClassification",
        "VoyageQwen3BidirectionalEmbedModel",
        "XLMRobertaForSequenceClassification",
        "XLMRobertaForTokenClassification",
        "XLMRobertaModel",
    }
)
"""They have no head over the vocabulary."""
BOTH_WAYS = frozenset(
    {
        "LlamaBidirectionalForSequenceClassification",
        "LlamaBidirectionalModel",
        "LlamaNemotronVLForSequenceClassification",
        "LlamaNemotronVLModel",
        "OpenAIPrivacyFilterForTokenClassification",
        "VoyageQwen3BidirectionalEmbedModel",
    }
)
"""They attend both ways and keep nothing, whatever their model_type (vllm, EncoderOnlyAttention)."""
SECOND_HEAD = frozenset({"BertForMaskedLM", "BertSpladeSparseEmbeddingModel"})
"""They have a head over the vocabulary that is not the embedding, whole on every GPU (vllm, bert.py)."""
