"""Which features the forest sees, how the image is normalised, and how the forest is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QCheckBox, QComboBox, QFormLayout, QGridLayout, QLabel, QWidget

from napari_cellda.core.errors import UserError
from napari_cellda.core.features.sets import GROUPS, SETS, FeatureSpec
from napari_cellda.ui.forms import Form

if TYPE_CHECKING:
    from napari_cellda.ui.state import Session

SET_TITLES = {
    "ilastik": "ilastik (49 channels, recommended)",
    "compact": "compact (28 channels, faster)",
    "s2d": "shallow-to-deep (44 channels)",
}
GROUP_TITLES = {
    "raw": "Raw intensity",
    "gaussian": "Smoothing",
    "laplacian": "Laplacian (blobs)",
    "gradient": "Gradient (edges)",
    "dog": "Difference of Gaussians",
    "structure": "Structure tensor",
    "hessian": "Hessian (ridges)",
}
NORMALISATIONS = {
    "percentile": "1st to 99.8th percentile",
    "minmax": "minimum to maximum",
    "zscore": "mean and deviation",
    "none": "none",
}


class FeatureSettings(QWidget):
    """Edits `session.spec`, `session.normalisation` and `session.forest_params`."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.sets = QComboBox()
        for name, title in SET_TITLES.items():
            self.sets.addItem(title, name)
        self.ndim = QComboBox()
        self.ndim.addItem("planes (2D)", 2)
        self.ndim.addItem("volumes (3D, slower)", 3)
        self.ndim.setToolTip("Whether the filters look along z too; only for stacks")
        self.normalisation = QComboBox()
        for kind, title in NORMALISATIONS.items():
            self.normalisation.addItem(title, kind)
        self.normalisation.setToolTip(
            "How grey values are scaled, measured once over the whole image"
        )
        self._groups: dict[str, QCheckBox] = {}
        self._scales: dict[float, QCheckBox] = {}
        self._group_box, self._scale_box = QWidget(), QWidget()
        self._count = QLabel()
        self._form = Form(session.forest_params, skip=("jobs", "out_of_bag", "seed"))
        layout = QFormLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addRow("Set", self.sets)
        layout.addRow("Filter", self.ndim)
        layout.addRow("Groups", self._group_box)
        layout.addRow("Scales", self._scale_box)
        layout.addRow("", self._count)
        layout.addRow("Scaling", self.normalisation)
        layout.addRow(self._form)
        self._layout = layout
        self._fill_boxes()
        self.sets.activated.connect(self._on_set)
        self.ndim.activated.connect(self._apply)
        self.normalisation.activated.connect(
            lambda: session.set_normalisation(self.normalisation.currentData())
        )
        self._form.changed.connect(session.set_forest_params)
        self._form.refused.connect(session.report)
        self.refresh()

    def _fill_boxes(self) -> None:
        for box in (self._group_box, self._scale_box):
            grid = QGridLayout(box)
            grid.setContentsMargins(0, 0, 0, 0)
            grid.setVerticalSpacing(2)
        for i, group in enumerate(GROUPS):
            check = self._groups[group] = QCheckBox(GROUP_TITLES[group])
            self._group_box.layout().addWidget(check, i, 0)
        of_sets = {scale for one in SETS.values() for scale in one.scales}
        scales = sorted(of_sets | set(self._session.spec.scales or ()))
        for i, scale in enumerate(scales):
            check = self._scales[scale] = QCheckBox(f"{scale:g}")
            check.setToolTip(f"Filters with a radius of about {scale:g} pixels")
            self._scale_box.layout().addWidget(check, i // 4, i % 4)
        for check in (*self._groups.values(), *self._scales.values()):
            check.clicked.connect(self._apply)

    def refresh(self) -> None:
        """Show the session's settings."""
        session, spec = self._session, self._session.spec
        self.sets.setCurrentIndex(self.sets.findData(spec.name))
        self.ndim.setCurrentIndex(self.ndim.findData(spec.ndim))
        self.normalisation.setCurrentIndex(self.normalisation.findData(session.normalisation))
        for group, check in self._groups.items():
            check.setVisible(group in spec.set.groups)
            check.setChecked(group in (spec.groups or spec.set.groups))
        for scale, check in self._scales.items():
            check.setChecked(scale in (spec.scales or spec.set.scales))
        self._form.set_value(session.forest_params)
        painted = session.current
        is_stack = painted is not None and painted.image.limits[0] > 1
        self._layout.setRowVisible(self.ndim, is_stack or spec.ndim == 3)
        n_channels = painted.image.n_channels if painted is not None else 1
        self._count.setText(f"{spec.count(n_channels)} features per pixel")

    def _on_set(self) -> None:
        self._session.set_spec(
            FeatureSpec(name=self.sets.currentData(), ndim=self.ndim.currentData())
        )
        self.refresh()

    def _apply(self) -> None:
        name = self.sets.currentData()
        chosen = SETS[name]
        groups = tuple(g for g in chosen.groups if self._groups[g].isChecked())
        scales = tuple(scale for scale, check in self._scales.items() if check.isChecked())
        try:
            if not groups or not scales:
                raise UserError("At least one feature group and one scale are needed.")
            spec = FeatureSpec(
                name=name,
                ndim=self.ndim.currentData(),
                groups=None if groups == chosen.groups else groups,
                scales=None if scales == chosen.scales else scales,
            )
            spec.filters()
        except UserError as error:
            self._session.report(error)
        else:
            self._session.set_spec(spec)
        self.refresh()
