"""How byte-level vocabularies cut text into words before merging, by GGUF's `tokenizer.ggml.pre`.

A kind is a chain of regular expressions: each cuts every piece that the one before left, into its
matches and the stretches between them. The expressions are facts of the models, as their
tokenizer.json files and llama.cpp's llama-vocab.cpp record them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from loguru import logger

if TYPE_CHECKING:
    import tokenizers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
WORDS_AND_MARKS = rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{SPACES}"
LLAMA3 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{WORDS_AND_MARKS}"
QWEN2 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{WORDS_AND_MARKS}"
QWEN35 = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{SPACES}"
)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
START = r"[^\r\n\p{L}\p{N}]?"
CASED = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{SPACES}"
TEKKEN = rf"{START}{UPPER}*{LOWER}+|{START}{UPPER}+{LOWER}*|\p{{N}}|{CASED}"
GPT4O = (
    rf"{START}{UPPER}*{LOWER}+{CONTRACTIONS}?|{START}{UPPER}+{LOWER}*{CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{CASED}"
)
SEED_CODER = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{SPACES}"
)
BAILING = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
DEEPSEEK_V3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# code points, because Unicode normalization of this file would change some of the characters
DEEPSEEK_LETTERS = (
    "41-5A 61-7A B5-B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376-377 37B-37D 37F-37F "
    "386-386 388-38A 38C-38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5 13F8-13FD "
    "1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D 1F20-1F45 1F48-1F4D "
    "1F50-1F57 1F59-1F59 1F5B-1F5B 1F5D-1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE-1FBE 1FC2-1FC4 "
    "1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102-2102 2107-2107 210A-2113 "
    "2115-2115 2119-211D 2124-2124 2126-2126 2128-2128 212A-212D 212F-2134 2139-2139 213C-213F "
    "2145-2149 214E-214E 2183-2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2-2CF3 A640-A66D A680-A69B "
    "A722-A76F A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F "
    "104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943"
)
DEEPSEEK_MARKS = "21-2F 3A-7E FF01-FF0F FF1A-FF5E 2018-201F 3000-3002"
DEEPSEEK_CJK = "4E00-9FA5 800-4E00 AC00-D7FF"
DEEPSEEK_V3_CJK = "4E00-9FA5 3040-309F 30A0-30FF"
BLOOM = r" ?[^(\s|.,!?\x{2026}\x{3002}\x{FF0C}\x{3001}\x{964}\x{6D4}\x{60C})]+"


def _range(code_points: str) -> str:
    """A class of characters from ranges in hexadecimal."""
    ends = [pair.split("-") for pair in code_points.split()]
    return "[" + "".join(rf"\x{{{first}}}-\x{{{last}}}" for first, last in ends) + "]"


@dataclass(frozen=True, slots=True)
class Kind:
    """splits         regular expressions in their order
    nfc            text is brought into Unicode's NFC first, as these models' tokenizer.json says
    ignore_merges  a word that is itself a token stays whole, whatever the merges
    adds_bos       what the kind does where the file does not say
    """

    splits: tuple[str, ...]
    nfc: bool = False
    ignore_merges: bool = False
    adds_bos: bool = False


_BY_NAMES: dict[str, Kind] = {
    "default gpt-2 phi-2 jina-es jina-de jina-v1-en jina-v2-es jina-v2-de jina-v2-code roberta-bpe "
    "gigachat a.x-4.0 mellum modern-bert jais exaone4 trillion granite-docling": Kind((GPT2,)),
    "mpt olmo gpt-neox": Kind((GPT2,), nfc=True),
    "smollm starcoder refact codeshell exaone minerva-7b mellum2": Kind((r"\p{N}", GPT2)),
    "command-r": Kind((r"\p{N}", GPT2), nfc=True),
    "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano": Kind(
        (LLAMA3,), ignore_merges=True, adds_bos=True
    ),
    "dbrx smaug-bpe glm4 chatglm-bpe": Kind((LLAMA3,)),
    "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez": Kind((QWEN2,), nfc=True),
    "stablelm2 hunyuan solar-open grok-2": Kind((QWEN2,)),
    "qwen35": Kind((QWEN35,), nfc=True),
    "tekken": Kind((TEKKEN,), ignore_merges=True, adds_bos=True),
    "gpt-4o llama4 kanana2 talkie minimax-m2": Kind((GPT4O,)),
    "seed-coder": Kind((SEED_CODER,)),
    "bailingmoe bailingmoe2 llada-moe": Kind((BAILING,)),
    "falcon": Kind((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, r"[0-9][0-9][0-9]")),
    "deepseek-llm": Kind(
        (
            *(r"[\r\n]", rf"\s?{_range(DEEPSEEK_LETTERS)}+", rf"\s?{_range(DEEPSEEK_MARKS)}+"),
            *(r"\s+$", rf"{_range(DEEPSEEK_CJK)}+", r"\p{N}+"),
        )
    ),
    "deepseek-coder": Kind(
        (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", rf"{_range(DEEPSEEK_CJK)}+", r"\p{N}")
    ),
    "deepseek-v3 hunyuan-dense joyai-llm hy_v4": Kind(
        (r"\p{N}{1,3}", rf"{_range(DEEPSEEK_V3_CJK)}+", DEEPSEEK_V3)
    ),
    "bloom poro-chat gpt3-finnish": Kind((BLOOM,)),
    "viking": Kind((BLOOM, r"\p{N}")),
}
KINDS = {name: kind for names, kind in _BY_NAMES.items() for name in names.split()}


def kind_named(pre: str | None) -> Kind:
    """The kind that a file asks for; GPT-2's, with a warning, when it is missing or unknown."""
    if pre in KINDS:
        return KINDS[pre]
    said = "does not name its pre-tokenizer" if pre is None else f"asks for {pre!r}, unknown here"
    logger.warning("the tokenizer {}; cutting words as GPT-2 does, answers may suffer", said)
    return KINDS["gpt-2"]


def pre_tokenizer(kind: Kind) -> tokenizers.pre_tokenizers.PreTokenizer:
    """The chain of `kind`, then bytes spelled as characters."""
    from tokenizers import Regex, pre_tokenizers

    cuts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in kind.splits]
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*cuts, spell])
