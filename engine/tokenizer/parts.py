"""What a tokenizer is made of, wherever it was read from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tokenizers

# tokens that end a turn or a text, by the spelling of well-known model families
END_NAMES = frozenset(
    "<|im_end|> <|eot_id|> <|eom_id|> <|end|> <|endoftext|> <|end_of_text|> <|EOT|> <EOT> [EOT] "
    "<|end_of_turn|> <end_of_turn> <|endofturn|> <|END_OF_TURN_TOKEN|> <end_of_utterance> </s> "
    "<eos> <|eot|> <turn|> <｜end▁of▁sentence｜> <|return|>".split()
)


@dataclass(frozen=True, slots=True)
class Parts:
    """A vocabulary with its rules.

    backend          recognises special and added tokens in text and adds none of its own accord
    spelling         piece → bytes
    special          control tokens, id: text; never shown and never read out of untrusted text
    added            other tokens that are matched as a whole before all splitting, id: text
    named            "bos_token": id, …, as far as they exist
    prefix, suffix   ids that surround a text encoded with add_special_tokens
    strip_one_space  decoding drops the first space of a text
    end_ids          tokens that the file names as ends of a turn, EOS among them
    """

    backend: tokenizers.Tokenizer
    spelling: Callable[[str], bytes]
    special: Mapping[int, str]
    added: Mapping[int, str]
    named: Mapping[str, int]
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()
    strip_one_space: bool = False
    end_ids: frozenset[int] = field(default_factory=frozenset)
