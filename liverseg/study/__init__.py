"""Compare strategies, initialisations and fine-tuning plans over folds and seeds, as the papers do."""

from liverseg.study.config import Row, StudyConfig, read_study

__all__ = ["Row", "StudyConfig", "read_study"]
