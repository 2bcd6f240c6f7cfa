"""Shared fixtures: tiny models and tokenizers made on the spot, so that no test needs a network."""

import os
import tempfile

os.environ["COURSE_PROGRESS"] = os.path.join(tempfile.mkdtemp(), "progress.json")  # not that of whoever runs this
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import matplotlib

matplotlib.use("Agg")

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from course_lib import load_policy
from course_lib.world import build_tokenizer


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer()


def tiny_llama(vocab_size: int, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab_size, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, pad_token_id=0, eos_token_id=5,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def tiny_model(tokenizer):
    return tiny_llama(len(tokenizer))


@pytest.fixture
def sft_policy():
    return load_policy("pocket-world-sft", device="cpu")


@pytest.fixture(scope="session")
def bpe_tokenizer():
    """A byte-level BPE tokenizer whose merges cross word borders, with pad == eos and no chat template."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    text = ["the answer is yes and the answer is no", "what is it? the answer", "is it yes? no no no yes"] * 5
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=400, special_tokens=["<eos>"], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")


@pytest.fixture(scope="session")
def letters():
    """A tokenizer of sixty words (a to z, and n26 to n56) behind <pad>, <bos> and <eos>, ids 0 to 2; it adds no BOS."""
    words = [chr(97 + i) for i in range(26)] + [f"n{i}" for i in range(26, 57)]
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")
