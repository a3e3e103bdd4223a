"""One kind of problem each: data, a loss and a metric."""

from archsmith.tasks.image_classification import ImageClassification
from archsmith.tasks.interval import Interval, mcnemar, paired_interval
from archsmith.tasks.language_modelling import LanguageModelling
from archsmith.tasks.sentence_embedding import SentenceEmbedding
from archsmith.tasks.series_forecasting import SeriesForecasting
from archsmith.tasks.split import SplitReport
from archsmith.tasks.task import Part, Task
from archsmith.tasks.text_classification import TextClassification

__all__ = [
    "ImageClassification",
    "Interval",
    "LanguageModelling",
    "Part",
    "SentenceEmbedding",
    "SeriesForecasting",
    "SplitReport",
    "Task",
    "TextClassification",
    "mcnemar",
    "paired_interval",
]
