"""Many files through one pipeline: what `classify` and `predict` do, with or without a window."""

from napari_cellda.core.batch.classify import (
    ClassifyJob,
    classify_batch,
    classify_images,
    feature_spec,
    read_strokes,
)
from napari_cellda.core.batch.files import BatchOptions, BatchReport, Failure
from napari_cellda.core.batch.models import open_map_maker, open_pipeline, open_saved_enhancer
from napari_cellda.core.batch.predict import predict_batch, predict_images

__all__ = [
    "BatchOptions",
    "BatchReport",
    "ClassifyJob",
    "Failure",
    "classify_batch",
    "classify_images",
    "feature_spec",
    "open_map_maker",
    "open_pipeline",
    "open_saved_enhancer",
    "predict_batch",
    "predict_images",
    "read_strokes",
]
