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
from segplus.models.heads.detail_branch import CorrectingConvolution, DetailBranch
from segplus.models.heads.fcn import FCNHead
from segplus.models.heads.fusion_neck import FusionNeck, WeightedFusion
from segplus.models.heads.point_refinement import PointRefinement
from segplus.models.heads.simple_pyramid import SimplePyramid


class EncoderHeadForSemanticSegmentation(SegmentationNetwork):  # type: ignore[no-untyped-call]
    """An encoder, a pyramid where a head of several maps meets a plain transformer, a head, an auxiliary head.

    Where the config asks for them: a neck before the head; a detail branch and a point head behind it, in this order.

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
        # A neck and a point head want finer maps than a head that reads the last alone.
        self.head_reads_last = head.takes == "last" and (config.neck is not None or config.refinement is not None)
        takes = "pyramid" if self.head_reads_last else head.takes
        self.plan = plan_encoder(
            encoder,
            takes,
            with_auxiliary=config.use_auxiliary_head,
            output_stride=config.output_stride,
        )
        self.backbone = build_encoder(encoder, self.plan, config.output_stride)
        stages = list(self.plan.stages)
        needs_pyramid = self.plan.is_plain and takes in ("pyramid", "stem_pyramid")
        self.neck = SimplePyramid(stages[-1].channels) if needs_pyramid else None
        seen = stages if self.neck is None else self.neck.stages
        fine = seen[0]
        self.fusion_neck = None if config.neck is None else FusionNeck(seen, **config.neck_config)
        seen = seen if self.fusion_neck is None else self.fusion_neck.stages
        self.decode_head = head(seen[-1:] if self.head_reads_last else seen, labels, **config.head_config)
        self.detail_branch = (
            DetailBranch(config.num_channels or 3, labels, **config.detail_config) if config.detail_branch else None
        )
        self.refinement = PointRefinement(fine, labels, **config.refinement_config) if config.refinement else None
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
        seen = maps if self.neck is None else self.neck(maps[-1])
        fine = seen[0]
        seen = seen if self.fusion_neck is None else self.fusion_neck(seen)
        logits = self.decode_head(seen[-1:] if self.head_reads_last else seen)
        if self.detail_branch is not None:
            logits = self.detail_branch(logits, pixel_values)
        if self.refinement is not None:
            logits = self.refinement(logits, fine)
        return SegmentationOutput(logits=logits, auxiliary_logits=auxiliary)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the heads; the encoder does so by itself."""
        if isinstance(module, CorrectingConvolution):
            module.initialize_weights()
            return
        super()._init_weights(module)  # type: ignore[no-untyped-call]
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.out_channels != self.config.num_labels:
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if isinstance(module, SegmentationHead | WeightedFusion):
            module.initialize_weights()
