"""Records what flows through a HunyuanDiTPipeline while its own `__call__` runs."""

from contextlib import contextmanager

import torch

from .sd3_capture import Sd3Recorder

WITH_EMBEDS = ("square", "blocks", "prompts", "batch")
"""Cases that keep what BERT gives, 77 rows a prompt; mT5's 256 rows are in `blocks` alone."""


class HunyuanRecorder(Sd3Recorder):
    """As with Stable Diffusion 3 the branches are one batch, the unconditional one first."""

    def __init__(self, pipe, blocks: bool, name: str):
        super().__init__(pipe, blocks)
        self.name = name

    def encoder(self, module, name: str) -> None:
        """Keeps token ids and masks; the second call of a run is the negative prompt's."""
        calls = []

        def record(args, kwargs, _output):
            prefix = "negative_" if calls else ""
            calls.append(name)
            self.put(f"{prefix}{name}.input_ids", args[0])
            self.put(f"{prefix}{name}.attention_mask", kwargs["attention_mask"])

        self.hook(module, record)

    def transformer_call(self, args, kwargs, output) -> None:
        """Keeps the inputs of the first call and each prediction, without the variance that it learned."""
        if "text_embedding_mask" not in self.tensors:
            if self.name in WITH_EMBEDS:
                self.branches("prompt_embeds", kwargs["encoder_hidden_states"])
            if self.blocks:
                self.branches("prompt_embeds_2", kwargs["encoder_hidden_states_t5"])
            self.branches("text_embedding_mask", kwargs["text_embedding_mask"])
            self.branches("text_embedding_mask_t5", kwargs["text_embedding_mask_t5"])
            self.put("image_rotary_emb.cos", kwargs["image_rotary_emb"][0])
            self.put("image_rotary_emb.sin", kwargs["image_rotary_emb"][1])
            if self.pipe.transformer.config.use_style_cond_and_image_meta_size:
                self.put("image_meta_size", kwargs["image_meta_size"][-1:])
        self.model_input = args[0].chunk(2)[1] if self.guided else args[0]
        self.predictions.append(output[0].chunk(2, dim=1)[0])

    def attach_blocks(self) -> None:
        """Hooks inside the text encoders and the transformer."""
        pipe, dit = self.pipe, self.pipe.transformer
        bert = pipe.text_encoder
        self.keep(bert.embeddings, "bert.hidden_states.0")
        for i, layer in enumerate(bert.encoder.layer):
            self.keep(layer, f"bert.hidden_states.{i + 1}")
        # mT5's layers have 256 rows each: those of one pipeline are enough.
        if not dit.config.use_style_cond_and_image_meta_size:
            self.t5_layers(pipe.text_encoder_2)
        embed = dit.time_extra_emb
        self.keep(embed.time_proj, "transformer.time_proj")
        self.keep(embed.timestep_embedder, "transformer.timestep_embedder")
        self.keep(embed.pooler, "transformer.pooler")
        if embed.use_style_cond_and_image_meta_size:
            self.keep(embed.size_proj, "transformer.size_proj")
            self.keep(embed.style_embedder, "transformer.style_embedder")
        self.keep(embed.extra_embedder, "transformer.extra_embedder")
        self.keep(embed, "transformer.temb")
        self.keep(dit.pos_embed, "transformer.pos_embed")
        self.hook(dit.blocks[0], self.text_input)
        for i, block in enumerate(dit.blocks):
            self.keep(block, f"block.blocks.{i}.hidden_states")
            if block.skip_linear is not None:
                self.keep(block.skip_linear, f"block.blocks.{i}.skip_linear")
        for part in ("attn1", "attn2"):
            self.keep(getattr(dit.blocks[0], part), f"block.blocks.0.{part}.hidden_states")
        self.keep(dit.norm_out, "transformer.norm_out")
        self.keep(dit.proj_out, "transformer.proj_out")
        self.keep(pipe.vae.post_quant_conv, "vae.post_quant_conv")

    def text_input(self, _args, kwargs, _output) -> None:
        """What the blocks attend to: both encoders' tokens, the padding replaced by what was learned."""
        self.put("transformer.encoder_hidden_states", kwargs["encoder_hidden_states"])

    @contextmanager
    def attached(self):
        """Installs every hook for the length of one call."""
        pipe = self.pipe
        with self.stack:
            self.encoder(pipe.text_encoder, "bert")
            self.encoder(pipe.text_encoder_2, "t5")
            self.hook(pipe.transformer, self.transformer_call)
            # Before the decoder's own hook, which sees the same name later.
            self.hook(pipe.vae.post_quant_conv, lambda args, _kwargs, _output: self.put("vae.input", args[0]))
            self.ends()
            if self.blocks:
                self.attach_blocks()
            yield self

    def scheduler_input(self, sample: torch.Tensor) -> None:
        """The initial noise, times the scheduler's `init_noise_sigma`."""
        self.put("latents", sample)

    def step_end(self, pipe, index: int, timestep, callback_kwargs: dict) -> dict:
        """`callback_on_step_end`: as Stable Diffusion 3's, and what the transformer got if the scheduler scaled it."""
        before = self.tensors["latents"] if index == 0 else self.tensors[f"step.{index - 1}.latents"]
        if not torch.equal(self.model_input, before):
            self.put(f"step.{index}.model_input", self.model_input)
        return super().step_end(pipe, index, timestep, callback_kwargs)
