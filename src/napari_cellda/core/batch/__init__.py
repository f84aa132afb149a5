"""Many files through one pipeline: what `classify` and `predict` do, with or without a window."""

from napari_cellda.core.batch.classify import (
    ClassifyJob,
    classify_batch,
    feature_spec,
    read_strokes,
)
from napari_cellda.core.batch.files import BatchOptions, BatchReport, Failure, insist
from napari_cellda.core.batch.models import open_map_maker, open_pipeline, open_saved_enhancer
from napari_cellda.core.batch.predict import predict_batch

__all__ = [
    "BatchOptions",
    "BatchReport",
    "ClassifyJob",
    "Failure",
    "classify_batch",
    "feature_spec",
    "insist",
    "open_map_maker",
    "open_pipeline",
    "open_saved_enhancer",
    "predict_batch",
    "read_strokes",
]
