"""The Random Forest: fitted by scikit-learn, applied by compiled code of our own."""

from napari_cellda.core.forest.fit import ForestParams, fit_forest, grow_forest, warm_up
from napari_cellda.core.forest.trees import Forest

__all__ = ["Forest", "ForestParams", "fit_forest", "grow_forest", "warm_up"]
