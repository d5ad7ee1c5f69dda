"""The paper's comparison: strategies, initialisations and fine-tuning plans over folds and seeds."""

from liverseg.study.config import Row, StudyDefinition, read_study

__all__ = ["Row", "StudyDefinition", "read_study"]
