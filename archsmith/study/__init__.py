"""Run a search and keep its record; keep the record of a job's stages."""

from archsmith.study.directory import RunDirectory
from archsmith.study.executor import Executor, Inline, LocalProcesses
from archsmith.study.loop import run
from archsmith.study.store import Store
from archsmith.study.tracker import Tracker

__all__ = ["Executor", "Inline", "LocalProcesses", "RunDirectory", "Store", "Tracker", "run"]
