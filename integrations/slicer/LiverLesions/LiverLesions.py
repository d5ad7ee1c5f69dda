"""3D Slicer module: outline the liver and its lesions on a CT with the command `liverseg`."""

from __future__ import annotations

import ctk
import qt
import slicer
from LiverLesionsLib.prediction import DEVICES, Prediction, PredictionError, Results, Settings
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

POLL_MS = 200
SETTINGS_GROUP = "LiverLesions"
COLUMNS = ("id", "type", "volume_ml", "longest_diameter_mm")


class LiverLesions(ScriptedLoadableModule):
    """Name, place and help text of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "Liver Lesions"
        self.parent.categories = ["Segmentation"]
        self.parent.dependencies = []
        self.parent.contributors = ["liverseg developers"]
        self.parent.helpText = (
            "Outlines the liver and its lesions on a portal venous CT and names each lesion cyst, hemangioma or "
            "metastasis. Runs the command liverseg, which is installed separately. For research only; not a medical "
            "device. Lesion types have not been tested on real lesions."
        )
        self.parent.acknowledgementText = ""


class LiverLesionsWidget(ScriptedLoadableModuleWidget):
    """Panel of the module: volume, settings, buttons and log."""

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = LiverLesionsLogic()
        self._prediction = None
        self._volume = None
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self._on_timer)

        inputs = self._section("CT")
        self.volumeSelector = slicer.qMRMLNodeComboBox()
        self.volumeSelector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        self.volumeSelector.addEnabled = False
        self.volumeSelector.removeEnabled = False
        self.volumeSelector.setMRMLScene(slicer.mrmlScene)
        self.volumeSelector.toolTip = "A CT in Hounsfield units"
        inputs.addRow("Volume:", self.volumeSelector)

        saved = self.logic.load_settings()
        settings = self._section("Settings")
        self.commandEdit = ctk.ctkPathLineEdit()
        self.commandEdit.filters = ctk.ctkPathLineEdit.Files | ctk.ctkPathLineEdit.Executable
        self.commandEdit.currentPath = saved.command
        self.commandEdit.toolTip = "liverseg in its environment, such as /home/me/liverseg/.venv/bin/liverseg"
        settings.addRow("Command:", self.commandEdit)
        self.deviceBox = qt.QComboBox()
        self.deviceBox.editable = True
        for device in DEVICES:
            self.deviceBox.addItem(device)
        self.deviceBox.setEditText(saved.device)
        settings.addRow("Device:", self.deviceBox)
        self.weightsEdit = ctk.ctkPathLineEdit()
        self.weightsEdit.filters = ctk.ctkPathLineEdit.Files
        self.weightsEdit.nameFilters = ["Weights (*.safetensors *.pt *.pth)"]
        self.weightsEdit.currentPath = saved.weights
        self.weightsEdit.toolTip = "Empty: the weights that come with liverseg"
        settings.addRow("Weights:", self.weightsEdit)

        buttons = qt.QHBoxLayout()
        self.applyButton = qt.QPushButton("Find lesions")
        self.cancelButton = qt.QPushButton("Cancel")
        buttons.addWidget(self.applyButton)
        buttons.addWidget(self.cancelButton)
        self.layout.addLayout(buttons)
        self.logBox = qt.QPlainTextEdit()
        self.logBox.readOnly = True
        self.layout.addWidget(self.logBox)
        self.layout.addStretch(1)

        self.applyButton.connect("clicked(bool)", self._on_apply)
        self.cancelButton.connect("clicked(bool)", self._on_cancel)
        self.volumeSelector.connect("currentNodeChanged(vtkMRMLNode*)", self._update_buttons)
        self._update_buttons()

    def _section(self, title):
        box = ctk.ctkCollapsibleButton()
        box.text = title
        self.layout.addWidget(box)
        return qt.QFormLayout(box)

    def cleanup(self):
        """Slicer calls this when the module is closed or reloaded."""
        self._timer.stop()
        self._close_prediction()

    def _close_prediction(self):
        if self._prediction is not None:
            self._prediction.close()
            self._prediction = None

    def _update_buttons(self, *_):
        running = self._prediction is not None
        self.applyButton.enabled = not running and self.volumeSelector.currentNode() is not None
        self.cancelButton.enabled = running

    def _on_apply(self, *_):
        settings = Settings(
            command=self.commandEdit.currentPath,
            device=self.deviceBox.currentText,
            weights=self.weightsEdit.currentPath,
        )
        self.logic.save_settings(settings)
        self.logBox.clear()
        self._volume = self.volumeSelector.currentNode()
        with slicer.util.tryWithErrorDisplay("The prediction could not start.", waitCursor=True):
            self._prediction = self.logic.start(self._volume, settings)
            self._timer.start()
        self._update_buttons()

    def _on_cancel(self, *_):
        if self._prediction is not None:
            self._prediction.cancel()
            self.logBox.appendPlainText("Cancelling ...")

    def _on_timer(self):
        if self._prediction is None:
            return
        lines, running = self._prediction.poll()
        for line in lines:
            self.logBox.appendPlainText(line)
        if running:
            return
        self._timer.stop()
        try:
            results = self._prediction.results()
            self.logic.show(results, self._volume)
            for lesion in results.lesions:
                self.logBox.appendPlainText("  ".join(lesion.get(column, "") for column in COLUMNS))
            for warning in results.warnings:
                self.logBox.appendPlainText(f"Warning: {warning}")
        except PredictionError as error:
            self.logBox.appendPlainText(str(error))
            if not self._prediction.cancelled:
                slicer.util.errorDisplay(str(error))
        finally:
            self._close_prediction()
            self._update_buttons()


class LiverLesionsLogic(ScriptedLoadableModuleLogic):
    """The steps that need Slicer's scene; all others are in `LiverLesionsLib`."""

    @staticmethod
    def load_settings():
        """Return the settings of the last use."""
        store, default = qt.QSettings(), Settings()
        return Settings(
            command=str(store.value(f"{SETTINGS_GROUP}/command", default.command)),
            device=str(store.value(f"{SETTINGS_GROUP}/device", default.device)),
            weights=str(store.value(f"{SETTINGS_GROUP}/weights", default.weights)),
        )

    @staticmethod
    def save_settings(settings):
        """Keep the settings for the next use."""
        store = qt.QSettings()
        for name in ("command", "device", "weights"):
            store.setValue(f"{SETTINGS_GROUP}/{name}", getattr(settings, name))

    @staticmethod
    def start(volume: slicer.vtkMRMLScalarVolumeNode, settings: Settings) -> Prediction:
        """Export the volume and start a prediction of it.

        Raises:
            PredictionError: if the command, the weights or the volume cannot be used.
        """
        prediction = Prediction(settings, slicer.util.startupEnvironment())
        try:
            slicer.util.exportNode(volume, str(prediction.ct))  # without the transforms above it
            prediction.start()
        except Exception:
            prediction.close()
            raise
        return prediction

    @staticmethod
    def show(results: Results, volume: slicer.vtkMRMLScalarVolumeNode) -> None:
        """Load segmentation and table into the scene, beside the volume."""
        table = slicer.util.loadTable(str(results.table))
        table.SetName(f"{volume.GetName()} lesions")
        if results.segmentation is None:
            return
        segmentation = slicer.util.loadSegmentation(str(results.segmentation))
        segmentation.SetName(f"{volume.GetName()} liver and lesions")
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())


class LiverLesionsTest(ScriptedLoadableModuleTest):
    """Test for "Reload and Test" of Slicer's developer mode; needs the command and some minutes."""

    def runTest(self):
        self.setUp()
        self.test_sample_ct()

    def setUp(self):
        slicer.mrmlScene.Clear()

    def test_sample_ct(self):
        """Predict Slicer's sample CT of a liver and load what is found."""
        import SampleData

        volume = SampleData.downloadSample("CTLiver")
        logic = LiverLesionsLogic()
        prediction = logic.start(volume, logic.load_settings())
        try:
            running = True
            while running:
                _, running = prediction.poll()
                slicer.app.processEvents()
            logic.show(prediction.results(), volume)
        finally:
            prediction.close()
        segmentation = slicer.util.getNode(f"{volume.GetName()} liver and lesions")
        self.assertGreater(segmentation.GetSegmentation().GetNumberOfSegments(), 0)
        self.delayDisplay("Test passed")
