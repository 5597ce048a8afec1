"""Vocabularies: tiny tokenizer.json files of the six kinds that published code-embedding models use.

Trained on the licence text and a line of code, with the normalisers, splits and special tokens of the published files.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

LICENCE = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
CODE = (
    "def close(self, *, wait=True):\n\tif self.open:\n        self._lock.release()\n    return {'größe': [1, 2, 3]}\n"
)

WORDS = "Instruct Query query passage code task title none text: | <>" + CODE + LICENCE[:4000]
PIECES = 120
"""Pieces that are learnt beside special tokens and single bytes or letters."""
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def mistral(template: str = "<s> $A") -> Tokenizer:
    """Llama-2 and Mistral-7B-v0.1: spaces become ▁ in the normaliser, no pre-tokenizer, bytes for unknown letters."""
    tokenizer = _sentencepiece(["<unk>", "<s>", "</s>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _finished(tokenizer, template)


def gemma(template: str = "<bos> $A") -> Tokenizer:
    """Gemma: no ▁ before the first word, spaces end a piece."""
    tokenizer = _sentencepiece(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return _finished(tokenizer, template)


def byte_level(special: list[str], template: str = "$A", normalise: bool = True) -> Tokenizer:
    """Byte-level BPE: Qwen (NFC), Llama 3 and ModernBERT; special tokens come after the pieces."""
    tokenizer = Tokenizer(models.BPE())
    if normalise:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=256 + PIECES, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([WORDS], trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return _finished(tokenizer, template)


def roberta() -> Tokenizer:
    """RoBERTa: byte-level BPE as in GPT-2, the special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=261 + PIECES, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator([WORDS], trainer)
    return _finished(tokenizer, "<s> $A </s>")


def word_piece() -> Tokenizer:
    """BERT, uncased."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200 + PIECES, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator([WORDS], trainer)
    return _finished(tokenizer, "[CLS] $A [SEP]")


def unigram() -> Tokenizer:
    """XLM-RoBERTa."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=200 + PIECES, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([WORDS], trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True, normalized=False, lstrip=True)])
    return _finished(tokenizer, "<s> $A </s>")


def _sentencepiece(special: list[str]) -> Tokenizer:
    """BPE over pieces that begin with ▁, its 256 bytes right behind the special tokens, as in sentencepiece."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    words = " ".join(WORDS.split())  # line ends and tabs are bytes, as in the published vocabularies
    trainer = trainers.BpeTrainer(vocab_size=len({*words}) + PIECES, special_tokens=["▁"], show_progress=False)
    learner.train_from_iterator([words], trainer)
    learnt = json.loads(learner.to_str())["model"]
    pieces = sorted(learnt["vocab"], key=learnt["vocab"].get)
    names = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    merges = [tuple(pair) for pair in learnt["merges"]]
    vocabulary = {name: index for index, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def _finished(tokenizer: Tokenizer, template: str) -> Tokenizer:
    special = [(name, tokenizer.token_to_id(name)) for name in template.split() if name != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(template, f"{template} $B", special)
    return tokenizer
