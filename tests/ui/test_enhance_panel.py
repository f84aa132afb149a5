"""The panel Enhance: choosing a model, consent, options, doubts; clicked as a user would."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_cellda.core.enhancer import Enhancer
from napari_cellda.core.errors import ProgramRefused, UserError
from napari_cellda.core.modelzoo.bundled import bundled_folder
from napari_cellda.core.modelzoo.card import ModelCard
from napari_cellda.core.modelzoo.model import Model
from napari_cellda.ui.classes import class_list
from napari_cellda.ui.images import choose_image, default_choice
from napari_cellda.ui.model_loading import ask_consent
from napari_cellda.ui.panels.enhance import EnhancePanel
from napari_cellda.ui.panels.model_card import card_rows
from napari_cellda.ui.panels.model_picker import PROMPT, QUESTIONS, ModelPicker

if TYPE_CHECKING:
    from pathlib import Path

    from pytestqt.qtbot import QtBot

CARD = ModelCard(
    id="nuclei",
    name="Nuclei enhancer",
    structure="nuclei",
    object_diameter=20.0,
    licence="CC-BY-4.0",
    output_names=("foreground", "boundary"),
    feature_sets=("ilastik",),
)


def fake_enhancer(card: ModelCard = CARD) -> Enhancer:
    runner = lambda block: np.repeat(block, card.n_outputs, axis=1)  # noqa: E731
    return Enhancer(Model(card, runner, network=None, sha256=""))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A model package that is not bundled."""
    return shutil.copytree(bundled_folder("nuclei"), tmp_path / "brought along")


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def panel(qtbot: QtBot, viewer: ViewerModel) -> EnhancePanel:
    panel = EnhancePanel(viewer)
    qtbot.addWidget(panel)
    panel.show()
    return panel


@pytest.fixture
def opened(panel: EnhancePanel, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot) -> EnhancePanel:
    """The panel with a model that is switched on."""
    monkeypatch.setattr(Enhancer, "open", lambda source, trusted: fake_enhancer())
    panel.open("nuclei")
    qtbot.waitUntil(lambda: panel.session.enhancer is not None)
    return panel


# -- choosing --------------------------------------------------------------------------------


def test_a_package_from_a_folder_is_opened_shown_and_switched_on(
    panel: EnhancePanel, package: Path, qtbot: QtBot
):
    panel.open(str(package))
    assert not panel.use.isEnabled()
    qtbot.waitUntil(lambda: panel.session.enhancer is not None, timeout=20000)
    assert panel.session.enhancer.card.structure == "nuclei"
    assert panel.switch.isChecked()
    assert panel.card.isVisible()
    assert panel.use.isEnabled()
    assert panel.picker.currentText() == "brought along"


def test_a_broken_package_is_told_in_one_sentence_and_nothing_stays_on(
    opened: EnhancePanel, tmp_path: Path, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
):
    def refuse(source: str, trusted: object) -> None:
        raise UserError("broken.zip is no model package: it holds no rdf.yaml.")

    monkeypatch.setattr(Enhancer, "open", refuse)
    opened.open(str(tmp_path / "broken.zip"))
    qtbot.waitUntil(lambda: opened.message.text != "")
    assert opened.message.text == "broken.zip is no model package: it holds no rdf.yaml."
    assert opened.message.kind == "error"
    assert opened.session.enhancer is None
    assert not opened.switch.isChecked()
    assert not opened.use.isEnabled()


def test_any_other_error_is_shown_as_well(
    panel: EnhancePanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
):
    def explode(source: str, trusted: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Enhancer, "open", explode)
    panel.open("nuclei")
    qtbot.waitUntil(lambda: panel.message.text == "out of memory")
    assert panel.session.enhancer is None


REFUSED = ProgramRefused("Elsewhere's model", Path("a/weights.pt"), "ab" * 32)


@pytest.mark.parametrize("answer", [True, False])
def test_a_program_runs_only_after_a_yes_which_holds_for_that_file(
    panel: EnhancePanel, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, answer: bool
):
    asked = []

    def open_program(source: str, trusted) -> Enhancer:
        if REFUSED.sha256 not in trusted:
            raise REFUSED
        return fake_enhancer()

    monkeypatch.setattr(Enhancer, "open", open_program)
    monkeypatch.setattr(panel.loader, "_ask", lambda refused: asked.append(refused) or answer)
    for _ in range(2):
        panel.open("from/elsewhere.zip")
        qtbot.waitUntil(lambda: panel.card.isVisible() or panel.message.text != "")
    assert asked == ([REFUSED] if answer else [REFUSED, REFUSED])
    assert (panel.session.enhancer is not None) == answer
    assert panel.session.trusted == ({REFUSED.sha256} if answer else set())


@pytest.mark.parametrize(("button", "expected"), [("Run it", True), ("Do not load", False)])
def test_the_dialog_says_what_it_is_and_no_is_the_default(
    panel: EnhancePanel, monkeypatch: pytest.MonkeyPatch, button: str, expected: bool
):
    seen = []

    def press(box: QMessageBox) -> int:
        seen.append((box.text(), box.informativeText(), box.defaultButton().text()))
        next(b for b in box.buttons() if b.text() == button).click()
        return 0

    monkeypatch.setattr(QMessageBox, "exec", press)
    assert ask_consent(panel, REFUSED) is expected
    text, more, default = seen[0]
    assert "Elsewhere's model comes as TorchScript, which is a program" in text
    assert "a/weights.pt" in more
    assert default == "Do not load"


def test_the_newest_choice_wins(panel: EnhancePanel, qtbot: QtBot, monkeypatch):
    cards = {name: ModelCard(id=name, name=name) for name in ("first", "second")}
    monkeypatch.setattr(Enhancer, "open", lambda source, trusted: fake_enhancer(cards[source]))
    panel.open("first")
    panel.open("second")
    qtbot.waitUntil(lambda: panel.session.enhancer is not None)
    qtbot.wait(50)
    assert panel.session.enhancer.card.id == "second"


def test_a_seam_is_told(opened: EnhancePanel):
    opened._on_loaded(fake_enhancer(), 0.12)
    assert "up to 0.12 where they meet" in opened.message.text


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # bioimageio.spec's
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_check_shows_the_report_of_a_package_good_or_bad(
    panel: EnhancePanel, package: Path, qtbot: QtBot
):
    (package / "weights.pt").write_bytes(b"not what it was")
    (package / "weights.onnx").unlink()
    panel.open(str(package))
    qtbot.waitUntil(lambda: panel.message.text != "", timeout=20000)
    assert panel.message.kind == "error"
    panel.check.click()
    qtbot.waitUntil(lambda: panel.status.text() == "The package was checked.", timeout=30000)
    assert panel.report.isVisible()
    assert "by bioimageio.spec" in panel.report.text.toPlainText()
    panel.report.close()


def test_picker_keeps_its_choice_when_a_dialog_is_cancelled(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
):
    picker = ModelPicker()
    qtbot.addWidget(picker)
    picker.fill((("nuclei", "Nuclei", "round things"), ("mito", "Mitochondria", "long things")))
    chosen: list[str] = []
    picker.chosen.connect(chosen.append)
    assert picker.currentText() == PROMPT
    picker.pick("mito")
    monkeypatch.setattr(
        "napari_cellda.ui.panels.model_picker.QFileDialog.getOpenFileName", lambda *a: ("", "")
    )
    picker.setCurrentText(QUESTIONS[0].title)
    picker.activated.emit(picker.currentIndex())
    assert picker.currentText() == "Mitochondria"
    monkeypatch.setattr(
        "napari_cellda.ui.panels.model_picker.QFileDialog.getOpenFileName",
        lambda *a: ("/models/new.zip", ""),
    )
    picker.activated.emit(picker.findText(QUESTIONS[0].title))
    assert picker.currentText() == "new.zip"
    assert chosen == ["mito", "/models/new.zip"]


def test_card_tells_what_matters_and_hides_what_is_unknown():
    rows = dict(card_rows(CARD))
    assert rows["Made for"] == "nuclei, about 20 px across"
    assert rows["Gives"] == "foreground and boundary"
    assert rows["Licence"] == "CC-BY-4.0"
    bare = dict(card_rows(ModelCard(id="x", name="x")))
    assert bare["Made for"] == bare["Licence"] == "not told by the package"
    assert "Features" not in bare


# -- use --------------------------------------------------------------------------------


def test_off_and_on_again_keeps_the_model(opened: EnhancePanel, qtbot: QtBot):
    enhancer = opened.session.enhancer
    opened.switch.click()
    assert opened.session.enhancer is None
    assert opened.card.isVisible()
    opened.switch.click()
    assert opened.session.enhancer is enhancer


def test_options_reach_the_session(opened: EnhancePanel):
    opened.live.click()
    opened.stretch.click()
    options = opened.session.enhancer_options
    assert (options.live, options.scale_range) == (False, True)


def test_class_list_follows_the_classes(opened: EnhancePanel):
    opened.session.set_classes(class_list(("background", "nuclei", "stroma")))
    names = [opened.target.itemText(i) for i in range(opened.target.count())]
    assert names == ["nuclei", "stroma"]
    opened.target.setCurrentIndex(1)
    opened.target.activated.emit(1)
    assert opened.session.enhancer_options.class_index == 2
    opened.session.set_classes(class_list(("background", "nuclei")))
    assert opened.session.enhancer_options.class_index == 1
    assert opened.target.currentText() == "nuclei"


def test_rescale_brings_objects_to_the_training_size(opened: EnhancePanel):
    opened.size.set_diameter(40)
    assert opened.session.enhancer_options.rescale == 1.0
    opened.size.switch.click()
    assert opened.session.enhancer_options.rescale == pytest.approx(0.5)
    opened.size.diameter.setValue(10)
    assert opened.session.enhancer_options.rescale == pytest.approx(2)
    opened.size.switch.click()
    assert opened.session.enhancer_options.rescale == 1.0


def test_rescale_is_off_when_the_package_does_not_tell_its_size(opened: EnhancePanel):
    opened.size.switch.click()
    opened._on_loaded(fake_enhancer(ModelCard(id="x", name="x")), 0.0)
    assert not opened.size.switch.isEnabled()
    assert opened.session.enhancer_options.rescale == 1.0


def test_an_enhancer_set_elsewhere_is_shown(panel: EnhancePanel):
    panel.session.set_enhancer(fake_enhancer())
    assert panel.switch.isChecked()
    assert panel.card.isVisible()
    assert panel.picker.currentData() == "nuclei"


def test_a_warning_of_another_feature_set(opened: EnhancePanel):
    assert opened.message.text == ""
    opened.session.set_spec(opened.session.spec.model_copy(update={"name": "compact"}))
    assert "compact" in opened.message.text
    assert opened.message.kind == "warning"


# -- doubts --------------------------------------------------------------------------------


def disks(n: int, radius: int = 10, size: int = 128) -> np.ndarray:
    """Return a map with a grid of n x n round objects."""
    y, x = np.mgrid[:size, :size]
    step = size / n
    distance = np.hypot((y % step) - step / 2, (x % step) - step / 2)
    return (distance < radius).astype(np.float32)


@pytest.fixture
def painted(opened: EnhancePanel, viewer: ViewerModel):
    layer = viewer.add_image(np.random.default_rng(0).random((128, 128), np.float32))
    painted = choose_image(opened.session, default_choice(layer))
    painted.arrays["forest:1"] = disks(4)
    return painted


def test_a_contradiction_is_shown_in_a_coloured_box_and_goes_away(
    opened: EnhancePanel, painted, qtbot: QtBot
):
    painted.arrays["enhanced"] = 1 - painted.arrays["forest:1"]
    opened.session.rested.emit()
    qtbot.waitUntil(lambda: "contradicts the forest" in opened.doubts.text)
    assert opened.doubts.isVisible()
    assert opened.doubts.kind == "warning"
    painted.arrays["enhanced"] = painted.arrays["forest:1"]
    opened.session.rested.emit()
    qtbot.waitUntil(lambda: not opened.doubts.isVisible())


def test_objects_of_another_size_are_doubted_until_rescaled(
    opened: EnhancePanel, painted, qtbot: QtBot
):
    painted.arrays["forest:1"] = painted.arrays["enhanced"] = disks(8, radius=4)
    opened.session.rested.emit()
    qtbot.waitUntil(lambda: "trained on 20 px" in opened.doubts.text)
    opened.size.measure.click()
    qtbot.waitUntil(lambda: opened.size.diameter.value() != 20)
    assert opened.size.diameter.value() == pytest.approx(8, abs=1)
    opened.size.switch.click()
    opened.session.rested.emit()
    qtbot.waitUntil(lambda: not opened.doubts.isVisible())


def test_measuring_without_a_map_says_what_to_do(opened: EnhancePanel):
    opened.size.measure.click()
    assert "paint two classes" in opened.status.text()


def test_switching_off_takes_the_warning_away(opened: EnhancePanel, painted, qtbot: QtBot):
    painted.arrays["enhanced"] = 1 - painted.arrays["forest:1"]
    opened.session.rested.emit()
    qtbot.waitUntil(lambda: opened.doubts.isVisible())
    opened.switch.click()
    assert not opened.doubts.isVisible()


def test_nothing_is_cut_off_in_a_narrow_dock(opened: EnhancePanel, qtbot: QtBot):
    opened.doubts.tell("A sentence that is long enough to need more than a single line.", "warning")
    qtbot.wait(20)
    width = opened.minimumSizeHint().width()
    opened.resize(width, 500)
    qtbot.wait(20)
    assert width < 400
    for child in opened.findChildren(QWidget):
        if child.isVisible():
            assert child.mapTo(opened, child.rect().topRight()).x() < width


def test_a_closed_panel_is_left_alone(opened: EnhancePanel, painted, qtbot: QtBot):
    session = opened.session
    painted.arrays["enhanced"] = painted.arrays["forest:1"]
    second = EnhancePanel(session.viewer)  # not known to qtbot, which would close it again
    session.rested.emit()
    second.size.measure.click()
    second.open("nuclei")
    second.deleteLater()
    qtbot.waitUntil(lambda: is_deleted(second))
    session.rested.emit()
    session.say("nobody reads this")
    session.set_enhancer(None)
    session.set_classes(class_list(("background", "a", "b")))
    session.report(UserError("nor this"))
    qtbot.wait(200)
    assert opened.target.count() == 2


def is_deleted(widget: QWidget) -> bool:
    try:
        widget.objectName()
    except RuntimeError:
        return True
    return False


def test_stretching_a_stack_says_where_window_and_export_differ(
    opened: EnhancePanel, viewer: ViewerModel
):
    for shape, is_stack in (((40, 50), False), ((5, 40, 50), True)):
        layer = viewer.add_image(np.zeros(shape, np.uint8))
        choose_image(opened.session, default_choice(layer))
        opened.stretch.setChecked(False)
        assert not opened.stretch_note.isVisible()
        opened.stretch.setChecked(True)
        assert opened.stretch_note.isVisible() is is_stack


def test_what_it_was_opened_by_is_kept_for_the_project(opened: EnhancePanel):
    assert opened.session.enhancer_source == "nuclei"
    opened.switch.setChecked(False)
    opened.switch.setChecked(True)
    assert opened.session.enhancer_source == "nuclei"
