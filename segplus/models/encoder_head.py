"""Any encoder under any head, as one model of the library."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn
from transformers import initialization as init

from segplus.models.architecture import SegmentationNetwork, SegmentationOutput
from segplus.models.checkpointing import checkpoint_blocks, knows_checkpointing, list_repeated_blocks
from segplus.models.encoder_head_config import EncoderHeadConfig
from segplus.models.encoders import build_encoder, plan_encoder, read_maps
from segplus.models.heads import find_head
from segplus.models.heads.blocks import SegmentationHead
from segplus.models.heads.fcn import FCNHead
from segplus.models.heads.simple_pyramid import SimplePyramid


class EncoderHeadForSemanticSegmentation(SegmentationNetwork):  # type: ignore[no-untyped-call]
    """An encoder, a pyramid where a head of several maps meets a plain transformer, a head, an auxiliary head.

    Args:
        config: The encoder's config, the head's name and its values.

    Raises:
        ValueError: If the head cannot take the encoder's maps.
    """

    config_class = EncoderHeadConfig
    base_model_prefix = "backbone"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _no_split_modules = ["MaskTransformerLayer", "UNetDecoderBlock", "ConvBlock"]  # noqa: RUF012

    def __init__(self, config: EncoderHeadConfig) -> None:
        encoder, labels = config.complete(), config.num_labels or 2
        super().__init__(config)
        head = find_head(config.head)
        self.plan = plan_encoder(
            encoder,
            head.takes,
            with_auxiliary=config.use_auxiliary_head,
            output_stride=config.output_stride,
        )
        self.backbone = build_encoder(encoder, self.plan, config.output_stride)
        stages = list(self.plan.stages)
        needs_pyramid = self.plan.is_plain and head.takes in ("pyramid", "stem_pyramid")
        self.neck = SimplePyramid(stages[-1].channels) if needs_pyramid else None
        seen = stages if self.neck is None else self.neck.stages
        self.decode_head = head(seen, labels, **config.head_config)
        if config.use_auxiliary_head and len(stages) < 2:
            raise ValueError("use_auxiliary_head: the encoder gives one map, and an auxiliary head reads another")
        self.auxiliary_heads = nn.ModuleList([FCNHead(stages[:-1], labels)] if config.use_auxiliary_head else [])
        self.gradient_checkpointing = False
        self._blocks_are_checkpointed_here = not knows_checkpointing(self.backbone)
        self.post_init()  # type: ignore[no-untyped-call]

    def compute_logits(self, pixel_values: torch.Tensor) -> SegmentationOutput:
        """Return logits at the head's stride; those of the auxiliary head in training."""
        checkpoints = self.gradient_checkpointing and self.training and self._blocks_are_checkpointed_here
        blocks = list_repeated_blocks(self.backbone) if checkpoints else []
        with checkpoint_blocks(blocks) if blocks else nullcontext():
            maps = read_maps(self.backbone, self.plan, pixel_values)
        auxiliary = None
        if len(self.auxiliary_heads) and self.training:
            auxiliary = tuple(head(maps[:-1]) for head in self.auxiliary_heads)
        logits = self.decode_head(maps if self.neck is None else self.neck(maps[-1]))
        return SegmentationOutput(logits=logits, auxiliary_logits=auxiliary)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the heads; the encoder does so by itself."""
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.out_channels != self.config.num_labels:
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, SegmentationHead):
            module.initialize_weights()
