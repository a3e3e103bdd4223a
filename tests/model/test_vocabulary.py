"""A vocabulary cut to what data use: the same tokens, the same outputs, fewer rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from archsmith.errors import BadInput
from archsmith.jobs.trim import trim
from archsmith.model.load import Loaded, load
from archsmith.model.vocabulary import kept_tokens, with_vocabulary

torch.set_num_threads(1)
TEXT = "the quick brown fox jumps over lazy dogs while seven wizards quietly examine boxes of jade"
WORDS = TEXT.split()
TRAINED = [" ".join(np.random.default_rng(n).choice(WORDS, 12)) for n in range(80)]
USED = ["the quick fox", "lazy dogs jump over the fox", "foxes"]
OTHER = "seven wizards examine jade boxes"


def bpe() -> Any:
    """Byte-level, with its end of text as the last number, as GPT-2 has it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(
        TRAINED, trainers.BpeTrainer(vocab_size=340, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    made.add_special_tokens(["<|endoftext|>"])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )


def word_piece() -> Any:
    """Special tokens after some unused ones, as BERT has them."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    names = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(TRAINED, trainers.WordPieceTrainer(vocab_size=160, special_tokens=names))
    cls, sep = made.token_to_id("[CLS]"), made.token_to_id("[SEP]")
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", [("[CLS]", cls), ("[SEP]", sep)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def unigram() -> Any:
    """A list with probabilities, and an end of text, as T5 has it."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    names = ["<pad>", "</s>", "<unk>"]
    made.train_from_iterator(TRAINED, trainers.UnigramTrainer(vocab_size=120, special_tokens=names, unk_token="<unk>"))
    made.post_processor = processors.TemplateProcessing(
        "$A </s>", "$A </s> $B </s>", [("</s>", made.token_to_id("</s>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def gpt2(tokenizer: Any) -> Any:
    end = tokenizer.eos_token_id
    ends = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    sizes = {"vocab_size": len(tokenizer) + 5, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
    return transformers.GPT2ForSequenceClassification(transformers.GPT2Config(**sizes, **ends, num_labels=3))


def llama(tokenizer: Any) -> Any:
    ends = {"bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    config = transformers.LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **ends, **SMALL)
    return transformers.LlamaForCausalLM(config)


def roberta(tokenizer: Any) -> Any:
    config = transformers.RobertaConfig(vocab_size=len(tokenizer), pad_token_id=0, max_position_embeddings=80, **SMALL)
    return transformers.RobertaForMaskedLM(config)


def t5(tokenizer: Any) -> Any:
    sizes = {"vocab_size": len(tokenizer) + 8, "d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "d_kv": 8}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, decoder_start_token_id=0))


CASES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "gpt2": (bpe, gpt2),
    "llama": (bpe, llama),
    "roberta": (word_piece, roberta),
    "t5": (unigram, t5),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            torch.manual_seed(0)
            tokenizer = CASES[name][0]()
            made[name] = tmp_path_factory.mktemp(name)
            CASES[name][1](tokenizer).eval().save_pretrained(made[name])
            tokenizer.save_pretrained(made[name])
        return made[name]

    return get


def outputs(loaded: Loaded, texts: list[str]) -> list[Tensor]:
    found = []
    for text in texts:
        inputs = dict(loaded.tokenizer(text, return_tensors="pt"))  # type: ignore[misc]
        inputs.pop("token_type_ids", None)
        if loaded.model.config.is_encoder_decoder:  # type: ignore[union-attr]
            inputs["decoder_input_ids"] = inputs["input_ids"]
        with torch.no_grad():
            found.append(loaded.model(**inputs).logits)
    return found


@pytest.mark.parametrize("name", CASES)
def test_what_was_trimmed_loads_anywhere_and_computes_the_same(
    folders: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    data = tmp_path / "used.tsv"
    data.write_text("text\n" + "\n".join(USED) + "\n")
    found = trim(str(folders(name)), [str(data)], tmp_path / "out")
    whole, small = load(str(folders(name))), load(str(tmp_path / "out"))
    total, count = found["tokens"]
    assert found["texts"] == 3 and count < total == whole.model.config.vocab_size  # type: ignore[union-attr]
    assert small.model.config.vocab_size == count == small.model.get_input_embeddings().weight.shape[0]  # type: ignore
    assert found["parameters"][1] < found["parameters"][0] and found["deviation"] < 1e-5
    order = kept_tokens(whole, {n for text in USED for n in whole.tokenizer(text)["input_ids"]})  # type: ignore[index]
    for text, before, after in zip(USED, outputs(whole, USED), outputs(small, USED), strict=True):
        assert [int(order[n]) for n in small.tokenizer(text)["input_ids"]] == whole.tokenizer(text)["input_ids"]  # type: ignore
        before = before[..., torch.from_numpy(order)] if before.shape[-1] == total else before
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)
    named = "eos_token_id" if name != "roberta" else "mask_token_id"
    assert order[getattr(small.tokenizer, named)] == getattr(whole.tokenizer, named)
    assert not (tmp_path / "out" / "modeling_archsmith.py").exists(), "its config says it all"


@pytest.mark.parametrize("name", CASES)
def test_other_text_is_spelt_and_comes_back(folders: Callable[[str], Path], name: str) -> None:
    loaded = load(str(folders(name)))
    used = {n for text in USED for n in loaded.tokenizer(text)["input_ids"]}  # type: ignore[index]
    small, _ = with_vocabulary(loaded, kept_tokens(loaded, used))
    before, after = (each.tokenizer(OTHER)["input_ids"] for each in (loaded, small))  # type: ignore[index]
    assert len(after) >= len(before)
    assert small.tokenizer.unk_token_id is None or small.tokenizer.unk_token_id not in after  # type: ignore[union-attr]
    if name != "roberta":
        assert small.tokenizer.decode(after, skip_special_tokens=True).strip() == OTHER  # type: ignore[union-attr]


def test_the_model_that_was_loaded_is_not_touched(folders: Callable[[str], Path]) -> None:
    loaded = load(str(folders("llama")))
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}
    config, tokens = loaded.model.config.to_dict(), loaded.tokenizer.get_vocab()  # type: ignore
    with_vocabulary(loaded, kept_tokens(loaded, [5, 9]))
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())
    assert loaded.model.config.to_dict() == config and loaded.tokenizer.get_vocab() == tokens  # type: ignore


def test_a_table_that_is_no_vocabulary_but_as_long_is_noticed(folders: Callable[[str], Path]) -> None:
    """A feed-forward width that is the number of tokens by chance would be cut with them."""
    loaded = load(str(folders("llama")))
    config = loaded.model.config
    config.intermediate_size = config.vocab_size  # type: ignore[union-attr]
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    changed = Loaded(model, loaded.tokenizer, "here", "transformers", example=loaded.example)
    with pytest.raises(BadInput, match="must compute what it computed before"):
        with_vocabulary(changed, kept_tokens(changed, [5, 9]))


def test_what_cannot_be_trimmed_says_why(folders: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="by the data that use them"):
        trim(str(folders("llama")), [], tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    data = tmp_path / "d.txt"
    data.write_text("the fox")
    with pytest.raises(BadInput, match="empty folder"):
        trim(str(folders("llama")), [str(data)], tmp_path / "full")
    with pytest.raises(BadInput):
        trim(str(folders("llama")), [str(tmp_path / "none.tsv")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_token_that_can_be_made_in_several_ways_keeps_them_all() -> None:
    """As where every split of a token is a merge (tokenizers converted from SentencePiece)."""
    names = ["<s>", "a", "b", "c", "d", "x", "ab", "bc", "bcd", "abc"]
    merges = [("a", "b"), ("b", "c"), ("bc", "d"), ("ab", "c"), ("a", "bc")]
    made = Tokenizer(models.BPE({name: n for n, name in enumerate(names)}, merges))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<s>")
    ids = torch.randint(1, 9, (2, 6))
    loaded = Loaded(llama(tokenizer).eval(), tokenizer, "here", "transformers", example={"input_ids": ids})
    used = {n for text in ("abcd", "xbcd") for n in tokenizer(text)["input_ids"]}
    small, _ = with_vocabulary(loaded, kept_tokens(loaded, used))
    for text in ("abcd", "xbcd"):
        assert small.tokenizer.tokenize(text) == tokenizer.tokenize(text)  # type: ignore[union-attr]


def test_a_character_at_the_end_of_a_word_stays() -> None:
    """As CLIP has it: every word ends in a token of its own kind."""
    names = ["<unk>", "a", "c", "t", "a</w>", "c</w>", "t</w>", "ca", "cat</w>"]
    made = Tokenizer(models.BPE({n: i for i, n in enumerate(names)}, [("c", "a"), ("ca", "t</w>")], unk_token="<unk>", end_of_word_suffix="</w>"))  # fmt: skip  # noqa: E501
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", eos_token="<unk>")
    example = {"input_ids": torch.randint(1, 8, (2, 6))}
    loaded = Loaded(llama(tokenizer).eval(), tokenizer, "here", "transformers", example=example)
    small, _ = with_vocabulary(loaded, kept_tokens(loaded, tokenizer("cat")["input_ids"]))
    assert small.tokenizer.tokenize("ta") == ["t", "a</w>"]  # type: ignore[union-attr]


def test_data_without_a_text_is_refused(folders: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "d.txt").write_text(" \n")
    with pytest.raises(BadInput, match="by the texts that use them"):
        trim(str(folders("llama")), [str(tmp_path / "d.txt")], tmp_path / "out")
