import pytest
import torch
from lyra_pack.comfyui_lyra.gen3c.text import (
    TextEmbeddings,
    default_negative_prompt,
    encode_text,
    fit_rows,
    load_text,
    save_text,
    zero_text,
)
from safetensors.torch import save_file


def test_no_text_is_zeros_in_all_rows(tiny):
    text = zero_text(tiny)
    assert text.prompt.shape == (1, 5, 12)
    assert not text.prompt.any()
    assert not text.negative.any()


def test_embeddings_are_cut_padded_and_masked_to_the_rows(tiny):
    embedding = torch.arange(1.0, 85.0).reshape(1, 7, 12)
    assert torch.equal(fit_rows(embedding, tiny), embedding[:, :5])
    short = fit_rows(embedding[:, :3], tiny)
    assert torch.equal(short[:, :3], embedding[:, :3])
    assert not short[:, 3:].any()
    masked = fit_rows(embedding, tiny, torch.tensor([[1, 1, 0, 0, 0, 0, 0]]))
    assert torch.equal(masked[:, :2], embedding[:, :2])
    assert not masked[:, 2:].any()


def test_an_embedding_of_another_text_encoder_is_refused(tiny):
    with pytest.raises(ValueError, match=r"expected \[1 L 12\], got \(1, 7, 16\); the teacher needs the old T5"):
        fit_rows(torch.zeros(1, 7, 16), tiny)


def test_saved_embeddings_come_back_in_bfloat16_precision(tiny, tmp_path):
    g = torch.Generator().manual_seed(0)
    text = TextEmbeddings(prompt=torch.randn(1, 5, 12, generator=g), negative=torch.randn(1, 5, 12, generator=g))
    save_text(tmp_path / "text.safetensors", text, note="a test")
    back = load_text(tmp_path / "text.safetensors", tiny)
    assert torch.equal(back.prompt, text.prompt.bfloat16().float())
    assert torch.equal(back.negative, text.negative.bfloat16().float())


def test_absent_and_foreign_files_are_named(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="no text embeddings at .*encode-text"):
        load_text(tmp_path / "none.safetensors", tiny)
    save_file({"prompt": torch.zeros(1, 5, 12)}, tmp_path / "half.safetensors")
    with pytest.raises(ValueError, match="holds no negative; expected a file of encode-text"):
        load_text(tmp_path / "half.safetensors", tiny)
    with pytest.raises(FileNotFoundError, match="no config.json in .*t5-11b"):
        encode_text(tmp_path, tiny)


@pytest.mark.slow
def test_t5_of_a_folder_encodes_prompt_and_negative(tiny, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "blue": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(tmp_path)
    torch.manual_seed(0)
    encoder = T5EncoderModel(T5Config(vocab_size=8, d_model=12, d_kv=4, d_ff=16, num_layers=2, num_heads=2)).eval()
    encoder.save_pretrained(tmp_path)

    text = encode_text(tmp_path, tiny, "a blue", "a", dtype=torch.float32)
    with torch.inference_mode():  # without padding: the mask must keep it out of the attention
        expected = encoder(input_ids=torch.tensor([[3, 4, 1]])).last_hidden_state
    torch.testing.assert_close(text.prompt[:, :3], expected)
    assert not text.prompt[:, 3:].any()
    assert text.negative[:, 1].any()
    assert not text.negative[:, 2:].any()
    alone = encode_text(tmp_path, tiny, "a blue", "", dtype=torch.float32)
    assert torch.equal(alone.negative, alone.prompt)
    released = encode_text(tmp_path, tiny, "", dtype=torch.float32)
    assert not torch.equal(released.negative, released.prompt)
    assert default_negative_prompt().startswith("The video captures a series of frames showing ugly scenes")
