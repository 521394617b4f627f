"""Records what flows through a StableDiffusion3Pipeline while its own `__call__` runs."""

from contextlib import contextmanager

import torch

from .capture import Recorder


class Sd3Recorder(Recorder):
    """With guidance, diffusers stacks the unconditional branch before the conditional one; here they come apart.

    Inside the first step (`blocks`) the stack stays as it is.
    """

    def encoder(self, module, name: str) -> None:
        """Keeps token ids and pooled outputs; the second call of a run is the negative prompt's."""
        calls = []

        def record(args, kwargs, output):
            prefix = "negative_" if calls else ""
            calls.append(name)
            self.put(f"{prefix}{name}.input_ids", args[0] if args else kwargs["input_ids"])
            if name != "t5":
                self.put(f"{prefix}{name}.text_embeds", output.text_embeds)

        self.hook(module, record)

    def transformer_call(self, _args, kwargs, output) -> None:
        """Keeps the inputs of the first call and each prediction."""
        parts = {"prompt_embeds": "encoder_hidden_states", "pooled_prompt_embeds": "pooled_projections"}
        if "prompt_embeds" not in self.tensors:
            for name, argument in parts.items():
                self.branches(name, kwargs[argument])
            latents = kwargs["hidden_states"]
            self.put("latents", latents.chunk(2)[1] if self.guided else latents)
        self.predictions.append(output[0])

    def branches(self, name: str, value: torch.Tensor) -> None:
        """Keeps the conditional rows, and the unconditional ones, one row if they are all the same."""
        if not self.guided:
            self.put(name, value)
            return
        negative, positive = value.chunk(2)
        same = all(torch.equal(row, negative[0]) for row in negative)
        self.put(name, positive)
        self.put(f"negative_{name}", negative[:1] if same else negative)

    @property
    def guided(self) -> bool:
        """Whether the running call has two branches."""
        return self.pipe.do_classifier_free_guidance

    def attach_blocks(self) -> None:
        """Hooks inside the text encoders and the transformer."""
        pipe, dit = self.pipe, self.pipe.transformer
        # The CLIPs of the pipeline without T5 are like the others': their layers would only take room.
        if pipe.text_encoder_3 is not None:
            self.clip_layers(pipe.text_encoder.text_model, "clip")
            self.clip_layers(pipe.text_encoder_2.text_model, "clip_2")
            self.t5_layers(pipe.text_encoder_3)
        embed = dit.time_text_embed
        self.keep(embed.time_proj, "transformer.time_proj")
        self.keep(embed.timestep_embedder, "transformer.timestep_embedder")
        self.keep(embed.text_embedder, "transformer.text_embedder")
        self.keep(embed, "transformer.temb")
        self.hook(dit.pos_embed, self.position_table)
        self.keep(dit.pos_embed, "transformer.pos_embed")
        self.keep(dit.context_embedder, "transformer.context_embedder")
        for i, block in enumerate(dit.transformer_blocks):
            self.hook(block, self.block_output(f"block.transformer_blocks.{i}"))
        first = dit.transformer_blocks[0]
        self.hook(first.attn, self.attention_output("block.transformer_blocks.0.attn"))
        if first.attn2 is not None:
            self.hook(first.attn2, self.attention_output("block.transformer_blocks.0.attn2"))
        self.keep(dit.norm_out, "transformer.norm_out")

    def position_table(self, args, _kwargs, _output) -> None:
        """The part of the position table that belongs to the image."""
        embed = self.pipe.transformer.pos_embed
        self.put("cropped_pos_embed", embed.cropped_pos_embed(*args[0].shape[-2:]))

    def block_output(self, name: str):
        """Diffusers' blocks return (text, image); the last one no text."""

        def record(_args, _kwargs, output):
            if output[0] is not None:
                self.put(f"{name}.encoder_hidden_states", output[0])
            self.put(f"{name}.hidden_states", output[1])

        return record

    @contextmanager
    def attached(self):
        """Installs every hook for the length of one call."""
        pipe = self.pipe
        with self.stack:
            self.encoder(pipe.text_encoder, "clip")
            self.encoder(pipe.text_encoder_2, "clip_2")
            if pipe.text_encoder_3 is not None:
                self.encoder(pipe.text_encoder_3, "t5")
            self.hook(pipe.transformer, self.transformer_call)
            self.ends()
            if self.blocks:
                self.attach_blocks()
            yield self

    def step_end(self, pipe, index: int, _timestep, callback_kwargs: dict) -> dict:
        """`callback_on_step_end`: the predictions, what the scheduler got and the latents it returned."""
        if self.guided:
            uncond, cond = self.predictions[0].chunk(2)
            self.put(f"step.{index}.noise_pred_uncond", uncond)
            self.put(f"step.{index}.noise_pred_cond", cond)
        if len(self.predictions) == 2:
            self.put(f"step.{index}.noise_pred_skip_layers", self.predictions[1])
        self.put(f"step.{index}.noise_pred", self.combined)
        self.put(f"step.{index}.latents", callback_kwargs["latents"])
        if index == 0:
            self.schedule(pipe.scheduler)
        self.predictions = []
        return {}
