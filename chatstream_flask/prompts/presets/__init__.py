"""Prompt formats of models whose tokenizer has no chat template, one file per family of models.

For a model with a chat template use ChatPrompt.
"""

from .cyberagent_open_calm import ChatPromptCyberAgentOpenCalm
from .databricks_dolly import ChatPromptDatabricksDolly
from .linecorp_jp_large_lm_inst_sft import ChatPromptLineCorpJpLargeLmInstSft
from .matsuolab_jp_gpt_neox_inst_sft import ChatPromptMatsuoLabJpGptNeoxInstSft
from .meta_llama2_chat import ChatPromptMetaLlamaLlama2Chat
from .mosaicml_mpt_chat import ChatPromptMosaicmlMptChat
from .openlmr_open_llama import ChatPromptOpenlmrOpenLlama
from .rinna_japanese_gpt_neox_inst import ChatPromptRinnaJapaneseGPTNeoxInst, ChatPromptRinnaJpGptNeoxInstSft
from .stabilityai_jp_stablelm_inst import ChatPromptStabilityAiJpGptNeoxInstSft
from .stockmark_gpt_neox_jp import ChatPromptStockmarkGptNeoxJp
from .together_redpajama_incite_chat import ChatPromptTogetherRedPajamaINCITEChat

__all__ = [
    "ChatPromptCyberAgentOpenCalm",
    "ChatPromptDatabricksDolly",
    "ChatPromptLineCorpJpLargeLmInstSft",
    "ChatPromptMatsuoLabJpGptNeoxInstSft",
    "ChatPromptMetaLlamaLlama2Chat",
    "ChatPromptMosaicmlMptChat",
    "ChatPromptOpenlmrOpenLlama",
    "ChatPromptRinnaJapaneseGPTNeoxInst",
    "ChatPromptRinnaJpGptNeoxInstSft",
    "ChatPromptStabilityAiJpGptNeoxInstSft",
    "ChatPromptStockmarkGptNeoxJp",
    "ChatPromptTogetherRedPajamaINCITEChat",
]
