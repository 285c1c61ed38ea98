"""The `sam2` package's own network and automatic mask generator, built from a `Sam2Model`.

The package builds the four official sizes from its yaml files. Its modules take any size: this
assembles them by transformers' config, to compare both projects' code on one network, however
small.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rsvp.errors import BadInput
from rsvp.platform.pretrained import IMAGENET_MEAN, IMAGENET_STD
from rsvp.segmenters.automatic import AutomaticMasks
from rsvp.segmenters.mask_filter import AutomaticSettings
from rsvp.segmenters.sam2_package import Sam2PackageSegmenter, load_package
from rsvp.segmenters.sam2_weights import rename_official
from rsvp.types import Image, PackedMask

if TYPE_CHECKING:
    from transformers import Sam2Model

_POINT = "sam_prompt_encoder.point_embeddings."


def official_network(net: Sam2Model) -> Any:
    """The same network by the package: a `SAM2Base` without its video predictor.

    Raises:
        MissingExtra, ModelUnavailable: see `load_package`.
    """
    load_package()
    config: Any = net.config
    base = importlib.import_module("sam2.modeling.sam2_base")
    network = base.SAM2Base(
        _image_encoder(config.vision_config),
        memory_attention=None,
        memory_encoder=None,
        image_size=config.prompt_encoder_config.image_size,
        directly_add_no_mem_embed=True,
        use_high_res_features_in_sam=True,
        iou_prediction_use_sigmoid=True,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
    )
    network.sam_mask_decoder = _mask_decoder(config.mask_decoder_config)
    weights = {key: value.detach().cpu() for key, value in net.state_dict().items()}
    network.load_state_dict(official_weights(weights, network.state_dict()))
    _set_image_positions(
        network.sam_prompt_encoder, weights["shared_image_embedding.positional_embedding"]
    )
    return network.eval()


def official_weights(
    weights: Mapping[str, torch.Tensor], official: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """A `Sam2Model`'s weights under the package's names.

    Args:
        official: the state dict of the package's network; weights of the video predictor stay.
    """
    found = {}
    for key, value in official.items():
        if key.startswith(_POINT):
            row = int(key.removeprefix(_POINT).partition(".")[0])
            found[key] = weights["prompt_encoder.point_embed.weight"][row : row + 1].clone()
            continue
        renamed = next(iter(rename_official({key: value})), None)  # None: of the video predictor
        found[key] = value if renamed is None else weights[renamed].clone()
    return found


def _set_image_positions(prompt_encoder: Any, frequencies: torch.Tensor) -> None:
    """Give the image's positions their own table, where it differs from that of the points.

    Official checkpoints have one table for images and points; transformers keeps two, and a network
    trained there may have two different ones.
    """
    if torch.equal(prompt_encoder.pe_layer.positional_encoding_gaussian_matrix, frequencies):
        return
    pe_layer = copy.deepcopy(prompt_encoder.pe_layer)
    pe_layer.positional_encoding_gaussian_matrix.copy_(frequencies)
    prompt_encoder.image_pe_layer = pe_layer  # a submodule, so that `to(device)` moves it
    size = prompt_encoder.image_embedding_size
    prompt_encoder.get_dense_pe = lambda: pe_layer(size).unsqueeze(0)


def _image_encoder(vision: Any) -> Any:
    encoder = importlib.import_module("sam2.modeling.backbones.image_encoder")
    position = importlib.import_module("sam2.modeling.position_encoding")
    neck = encoder.FpnNeck(
        position.PositionEmbeddingSine(vision.fpn_hidden_size),
        vision.fpn_hidden_size,
        list(vision.backbone_channel_list),
        fpn_top_down_levels=list(vision.fpn_top_down_levels),
        fpn_interp_model="nearest",
    )
    return encoder.ImageEncoder(_trunk(vision.backbone_config), neck, scalp=1)


def _trunk(backbone: Any) -> Any:
    """The backbone; the package doubles widths from stage to stage, here the config gives them."""
    hiera = importlib.import_module("sam2.modeling.backbones.hieradet")
    trunk = hiera.Hiera(
        embed_dim=backbone.hidden_size,
        num_heads=backbone.num_attention_heads_per_stage[0],
        q_pool=backbone.num_query_pool_stages,
        q_stride=tuple(backbone.query_stride),
        stages=tuple(backbone.blocks_per_stage),
        window_pos_embed_bkg_spatial_size=tuple(
            backbone.window_positional_embedding_background_size
        ),
        window_spec=tuple(backbone.window_size_per_stage),
        global_att_blocks=tuple(backbone.global_attention_blocks),
    )
    blocks = [hiera.MultiScaleBlock(**settings) for settings in _blocks(backbone)]
    trunk.blocks = torch.nn.ModuleList(blocks)
    trunk.channel_list = [blocks[end].dim_out for end in trunk.stage_ends[::-1]]
    return trunk


def _blocks(backbone: Any) -> Iterator[dict[str, Any]]:
    """The settings of every block; the first of a stage has the window of the stage before."""
    widths, windows = backbone.embed_dim_per_stage, backbone.window_size_per_stage
    block = 0
    for stage, depth in enumerate(backbone.blocks_per_stage):
        for place in range(depth):
            entering = place == 0 and stage > 0
            window = windows[stage - 1] if entering else windows[stage]
            pools = entering and stage <= backbone.num_query_pool_stages
            yield {
                "dim": widths[stage - 1] if entering else widths[stage],
                "dim_out": widths[stage],
                "num_heads": backbone.num_attention_heads_per_stage[stage],
                "mlp_ratio": backbone.mlp_ratio,
                "q_stride": tuple(backbone.query_stride) if pools else None,
                "window_size": 0 if block in backbone.global_attention_blocks else window,
            }
            block += 1


def _mask_decoder(decoder: Any) -> Any:
    masks = importlib.import_module("sam2.modeling.sam.mask_decoder")
    transformer = importlib.import_module("sam2.modeling.sam.transformer")
    return masks.MaskDecoder(
        transformer_dim=decoder.hidden_size,
        transformer=transformer.TwoWayTransformer(
            depth=decoder.num_hidden_layers,
            embedding_dim=decoder.hidden_size,
            num_heads=decoder.num_attention_heads,
            mlp_dim=decoder.mlp_dim,
            attention_downsample_rate=decoder.attention_downsample_rate,
        ),
        num_multimask_outputs=decoder.num_multimask_outputs,
        iou_head_depth=decoder.iou_head_depth,
        iou_head_hidden_dim=decoder.iou_head_hidden_dim,
        use_high_res_features=True,
        iou_prediction_use_sigmoid=True,
        dynamic_multimask_via_stability=decoder.dynamic_multimask_via_stability,
        dynamic_multimask_stability_delta=decoder.dynamic_multimask_stability_delta,
        dynamic_multimask_stability_thresh=decoder.dynamic_multimask_stability_thresh,
        pred_obj_scores=True,
        pred_obj_scores_mlp=True,
        use_multimask_token_for_obj_ptr=True,
    )


class PackageGenerator:
    """`SAM2AutomaticMaskGenerator` with the same settings; it filters at the image's own size.

    Args:
        net: the package's network, a `SAM2Base`.
        settings: without `by` and `judged_side`, which it doesn't have.
    """

    def __init__(self, net: Any, settings: AutomaticSettings | None = None) -> None:
        self._settings = settings = settings or AutomaticSettings()
        self._generator = load_package().generator(
            net,
            points_per_side=settings.points_per_side,
            points_per_batch=settings.points_per_batch,
            pred_iou_thresh=settings.min_iou,
            stability_score_thresh=settings.min_stability,
            stability_score_offset=settings.stability_offset,
            box_nms_thresh=settings.overlap,
            crop_nms_thresh=settings.overlap,
            crop_n_layers=settings.crop_layers,
            crop_overlap_ratio=settings.crop_overlap,
            crop_n_points_downscale_factor=settings.crop_points_divisor,
        )
        size = int(net.image_size)
        # The predictor assumes the feature maps of a 1024-pixel input, whatever the network's.
        self._generator.predictor._bb_feat_sizes = [(size // s, size // s) for s in (4, 8, 16)]

    @classmethod
    def of(cls, segmenter: Any, settings: AutomaticSettings | None = None) -> PackageGenerator:
        """The package's generator on the network of one of our segmenters, on its device.

        Args:
            segmenter: a `Sam2PackageSegmenter`, or a `Sam2Segmenter`, whose network is built anew
                by the package with the same weights.

        Raises:
            BadInput: its preprocessing differs from the package's.
        """
        net, preprocessing = segmenter.net, segmenter.preprocessing
        if not isinstance(segmenter, Sam2PackageSegmenter):
            if (preprocessing.mean, preprocessing.std) != (IMAGENET_MEAN, IMAGENET_STD):
                raise BadInput(
                    f"the sam2 package cannot preprocess images as {segmenter.name} does"
                )
            net = official_network(net).to(segmenter.device)
        return cls(net, settings)

    def __call__(self, image: Image) -> AutomaticMasks:
        """The masks of an image; empty ones are left out."""
        records = [record for record in self._generator.generate(image.rgb) if record["area"]]
        records = records[: self._settings.limit]
        return AutomaticMasks(
            tuple(PackedMask.pack(record["segmentation"]) for record in records),
            _column(records, "predicted_iou").clip(0, 1),
            _boxes(_column(records, "bbox").reshape(-1, 4)),
            _column(records, "stability_score"),
            _column(records, "point_coords").reshape(-1, 2),
        )


def _column(records: list[dict[str, Any]], name: str) -> Any:
    return np.array([record[name] for record in records], dtype=np.float32)


def _boxes(xywh: Any) -> Any:
    """Its boxes end at the outermost pixels, ours after them."""
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:] + 1], axis=1)
