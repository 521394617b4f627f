"""Records what flows through a FluxPipeline while its own `__call__` runs."""

from contextlib import ExitStack, contextmanager
from functools import wraps

import torch


class Recorder:
    """Hooks on a pipeline; `tensors` fills up under diffusers' names as the call goes on."""

    def __init__(self, pipe, blocks: bool):
        self.pipe = pipe
        self.blocks = blocks
        self.tensors: dict[str, torch.Tensor] = {}
        self.counts = {"clip": 0, "t5": 0}
        self.predictions: list[torch.Tensor] = []
        self.combined: torch.Tensor | None = None
        self.stack = ExitStack()

    def put(self, name: str, tensor: torch.Tensor) -> None:
        """Keeps a copy; the first tensor of a name stays."""
        self.tensors.setdefault(name, tensor.detach().clone())

    def hook(self, module, function) -> None:
        """Calls `function(args, kwargs, output)` after each forward of `module` until the recorder closes."""
        handle = module.register_forward_hook(
            lambda _module, args, kwargs, output: function(args, kwargs, output), with_kwargs=True
        )
        self.stack.callback(handle.remove)

    def keep(self, module, name: str) -> None:
        """Keeps the first output of `module`."""
        self.hook(module, lambda _args, _kwargs, output: self.put(name, first(output)))

    def text_encoder(self, module, tokenizer: str, embeds: str, pick) -> None:
        """Keeps token ids and embeddings; the second call of a run is the negative prompt's."""

        def record(args, kwargs, output):
            prefix = "negative_" if self.counts[tokenizer] else ""
            ids = args[0] if args else kwargs["input_ids"]
            self.put(f"{prefix}{tokenizer}.input_ids", ids)
            self.put(f"{prefix}{embeds}.per_prompt", pick(output))
            self.counts[tokenizer] += 1

        self.hook(module, record)

    def transformer_call(self, _args, kwargs, output) -> None:
        """Keeps the inputs of the first call and each prediction."""
        negative = len(self.predictions) == 1
        prefix = "negative_" if negative else ""
        self.put(f"{prefix}prompt_embeds", kwargs["encoder_hidden_states"])
        self.put(f"{prefix}pooled_prompt_embeds", kwargs["pooled_projections"])
        self.put("text_ids", kwargs["txt_ids"])
        self.put("img_ids", kwargs["img_ids"])
        self.put("latents", kwargs["hidden_states"])
        if kwargs["guidance"] is not None:
            self.put("guidance", kwargs["guidance"])
        self.predictions.append(output[0])

    def clip_layers(self, clip, name: str) -> None:
        """Hooks inside a CLIPTextModel."""
        self.keep(clip.embeddings, f"{name}.hidden_states.0")
        for i, layer in enumerate(clip.encoder.layers):
            self.keep(layer, f"{name}.hidden_states.{i + 1}")
        self.keep(clip.final_layer_norm, f"{name}.last_hidden_state")

    def t5_layers(self, t5) -> None:
        """Hooks inside T5's encoder."""
        self.keep(t5.encoder.embed_tokens, "t5.hidden_states.0")
        for i, block in enumerate(t5.encoder.block):
            self.keep(block, f"t5.hidden_states.{i + 1}")
        self.keep(t5.encoder.final_layer_norm, "t5.last_hidden_state")

    def attach_blocks(self) -> None:
        """Hooks inside the text encoders and the transformer."""
        dit = self.pipe.transformer
        self.clip_layers(self.pipe.text_encoder, "clip")
        self.t5_layers(self.pipe.text_encoder_2)
        embed = dit.time_text_embed
        self.keep(embed.time_proj, "transformer.time_proj")
        self.keep(embed.timestep_embedder, "transformer.timestep_embedder")
        if hasattr(embed, "guidance_embedder"):
            self.keep(embed.guidance_embedder, "transformer.guidance_embedder")
        self.keep(embed.text_embedder, "transformer.text_embedder")
        self.keep(embed, "transformer.temb")
        self.keep(dit.x_embedder, "transformer.x_embedder")
        self.keep(dit.context_embedder, "transformer.context_embedder")
        for kind in ("transformer_blocks", "single_transformer_blocks"):
            for i, block in enumerate(getattr(dit, kind)):
                self.hook(block, self.block_output(f"block.{kind}.{i}"))
        for kind, part in (("transformer_blocks", "attn"), ("single_transformer_blocks", "attn")):
            self.hook(getattr(getattr(dit, kind)[0], part), self.attention_output(f"block.{kind}.0.attn"))
        self.keep(dit.norm_out, "transformer.norm_out")

    def block_output(self, name: str):
        """Diffusers' blocks return (text, image)."""

        def record(_args, _kwargs, output):
            self.put(f"{name}.encoder_hidden_states", output[0])
            self.put(f"{name}.hidden_states", output[1])

        return record

    def attention_output(self, name: str):
        """Diffusers' joint attention returns (image, text), the single blocks' one stream."""

        def record(_args, _kwargs, output):
            if isinstance(output, tuple):
                self.put(f"{name}.hidden_states", output[0])
                self.put(f"{name}.encoder_hidden_states", output[1])
            else:
                self.put(f"{name}.hidden_states", output)

        return record

    @contextmanager
    def attached(self):
        """Installs every hook for the length of one call."""
        pipe = self.pipe
        with self.stack:
            self.text_encoder(pipe.text_encoder, "clip", "pooled_prompt_embeds", lambda out: out.pooler_output)
            self.text_encoder(pipe.text_encoder_2, "t5", "prompt_embeds", lambda out: out[0])
            self.hook(pipe.transformer, self.transformer_call)
            self.hook(pipe.transformer.pos_embed, self.rotary)
            self.ends()
            if self.blocks:
                self.attach_blocks()
            yield self

    def ends(self) -> None:
        """Hooks on what comes after the transformer in every pipeline: scheduler and VAE."""
        pipe = self.pipe
        self.hook(pipe.vae.decoder, lambda args, _kwargs, _output: self.put("vae.input", args[0]))
        step = pipe.scheduler.step

        # HunyuanDiT's pipeline looks at the signature: a step that takes a generator gets one.
        @wraps(step)
        def recorded_step(model_output, *args, **kwargs):
            self.combined = model_output
            self.scheduler_input(args[1])
            return step(model_output, *args, **kwargs)

        pipe.scheduler.step = recorded_step
        self.stack.callback(lambda: delattr(pipe.scheduler, "step"))

    def scheduler_input(self, sample: torch.Tensor) -> None:
        """What a step starts from; here the transformer has shown it."""

    def rotary(self, _args, _kwargs, output) -> None:
        """Rotary tables, text rows first, each frequency twice."""
        self.put("image_rotary_emb.cos", output[0])
        self.put("image_rotary_emb.sin", output[1])

    def step_end(self, pipe, index: int, _timestep, callback_kwargs: dict) -> dict:
        """`callback_on_step_end`: the prediction that the scheduler got and the latents it returned."""
        if len(self.predictions) == 2:
            self.put(f"step.{index}.noise_pred_cond", self.predictions[0])
            self.put(f"step.{index}.noise_pred_uncond", self.predictions[1])
        self.put(f"step.{index}.noise_pred", self.combined)
        self.put(f"step.{index}.latents", callback_kwargs["latents"])
        if index == 0:
            self.schedule(pipe.scheduler)
        self.predictions = []
        return {}

    def schedule(self, scheduler) -> None:
        """Keeps the timesteps, and the sigmas if the scheduler has them."""
        self.put("timesteps", scheduler.timesteps)
        if hasattr(scheduler, "sigmas"):
            self.put("sigmas", scheduler.sigmas)


def first(output) -> torch.Tensor:
    """The tensor of a module's output."""
    return output[0] if isinstance(output, tuple) else output
